# stoker: `make train` and `make test` set everything up on a machine with only Python and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# What $(VENV) is ready for: each is installed in one go, because a second one looks at every package again.
TRAIN  := $(VENV)/.for-training
TEST   := $(VENV)/.for-tests
DEV    := $(VENV)/.for-development

# Byte code is kept, where an image has turned it off, too: each process would compile torch anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help train test lint format documents docs docs-serve mutants learning faults bench bench-quick dist wheel extras clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

define install # $(1): for what; $(2): the extra, if any; $(3): what else is there then
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing stoker and what $(1) needs into $(VENV) (once) ..."
	@$(PIP) pip # the one of Python 3.11 takes twice as long
	@$(PIP) -e '.$(2)'
	@touch $@ $(3)
endef

$(TRAIN): pyproject.toml constraints.txt
	$(call install,training)

$(TEST): pyproject.toml constraints.txt
	$(call install,testing,[test],$(TRAIN))

$(DEV): pyproject.toml constraints.txt
	$(call install,development,[dev],$(TRAIN) $(TEST))

train: $(TRAIN) ## Learn CartPole-v1 with DQN from eight concurrent environments, until it is solved
	$(BIN)/stoker train CartPole-v1 --stop-at-reward 475

test: $(TEST) ## Run the tests, with a short form of the long suites
	$(BIN)/python -m pytest -m 'not learning and not faults' -n 4 --dist worksteal

lint: $(DEV) ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --no-cache . # a cached verdict does not see that another file was added
	$(BIN)/pyright

format: $(DEV) ## Rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

documents: $(TRAIN) ## Write the documents of the service's API anew from its messages
	for name in schema openapi asyncapi; do \
	  $(BIN)/python -m docs.documents $$name > $$name.json && mv $$name.json src/stoker/protocol/ || exit 1; \
	done

mutants: $(TEST) ## Put faults into a copy of the source and see that tests notice each (long)
	$(BIN)/python tests/mutants/run.py

docs: $(TRAIN) ## Build the site of docs/ in site/; a broken link fails
	@$(PIP) -e '.[docs]'
	$(BIN)/python docs/build.py gather
	$(BIN)/zensical build --clean --strict
	$(BIN)/python docs/build.py check

docs-serve: docs ## Show the site at http://127.0.0.1:8080
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory site 8080

learning: $(TEST) ## Train the presets over their seeds and hold the scores to their targets (long)
	$(BIN)/python -m pytest -m learning --timeout 3600 -s

faults: $(TEST) ## Kill and break things at full length (long)
	@$(PIP) -e '.[faults]'
	$(BIN)/python -m pytest -m faults --timeout 3600 -s

bench: $(TEST) ## Measure stoker beside its peers and print the ratios
	@$(PIP) -e '.[bench]'
	$(BIN)/python -m benchmarks

bench-quick: $(TEST) ## Print the ratios that matter most, in a minute
	@$(PIP) -e '.[bench]'
	$(BIN)/python -m benchmarks observe act slow_envs calm_loop --quick

dist: ## Build the wheel and the sdist of the newest commit, twice, and check them
	@test -x build/release/bin/python || $(PYTHON) -m venv build/release
	@build/release/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt \
	  build check-wheel-contents hatchling twine
	build/release/bin/python tests/release/artifacts.py

wheel: dist ## Install the wheel in an empty environment of $(PYTHON), and use it as a stranger does
	rm -rf build/wheel
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet --no-compile -c constraints.txt "$$(ls dist/*.whl)[service]"
	build/wheel/bin/python -m pip check
	cd build && wheel/bin/python -P ../tests/release/installed.py

extras: dist ## Install each extra alone beside the wheel, and use what it is for (long)
	$(PYTHON) tests/release/extras.py

clean: ## Remove what the other targets made, except runs
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis dist build site
