# stoker: `make train` and `make test` set everything up on a machine with only Python and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help train test lint format learning faults bench bench-quick clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing stoker and what it needs into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

train: $(STAMP) ## Learn CartPole-v1 with DQN from eight concurrent environments, until it is solved
	$(BIN)/stoker train CartPole-v1 --stop-at-reward 475

test: $(STAMP) ## Run the tests, with a short form of the long suites
	$(BIN)/python -m pytest -m 'not learning and not faults' -n 2 --dist worksteal

lint: $(STAMP) ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(STAMP) ## Rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

learning: $(STAMP) ## Train the presets over their seeds and hold the scores to their targets (long)
	$(BIN)/python -m pytest -m learning --timeout 3600 -s

faults: $(STAMP) ## Kill and break things at full length (long)
	$(BIN)/python -m pytest -m faults --timeout 3600 -s

bench: $(STAMP) ## Measure stoker beside its peers and print the ratios
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

bench-quick: $(STAMP) ## Print the ratios that matter most, in a minute
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks observe act slow_envs calm_loop --quick

clean: ## Remove what the other targets made, except runs
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis dist build
