"""What the documents say is so: their code runs, their names exist, their links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import launching
import stoker
from stoker.cli import main as command_line
from stoker.runs import Attempt, EvalEpisodeRow, MetricsRow, TrainEpisodeRow
from stoker.runs.events import KINDS, EventRow

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LONG, SHORT = "20_000", "400"


def blocks(page: Path, language: str) -> list[str]:
    return [code for tag, code in FENCE.findall(page.read_text()) if tag == language]


def section(page: Path, heading: str) -> str:
    return page.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]


def names_in_tables(text: str) -> list[str]:
    """What stands in backticks in the first column."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


PYTHON = [
    pytest.param(page, number, id=f"{page.stem}-{number}")
    for page in PAGES
    for number in range(len(blocks(page, "python")))
    if (page.stem, number) != ("README", 0)
]


@pytest.fixture(scope="module")
def first_example(
    tmp_path_factory: pytest.TempPathFactory, run_python_in: Callable[[str, Path], str]
) -> Path:
    """The directory in which the README's first example has run; its prints are checked, too."""
    directory = tmp_path_factory.mktemp("readme")
    code = blocks(ROOT / "README.md", "python")[0].replace(LONG, SHORT)
    check_prints(code, run_python_in(code, directory))
    return directory


def check_prints(code: str, printed: str) -> None:
    for said in re.findall(r"^print\(.*\)  # (.+)$", code, re.MULTILINE):
        assert said in printed


@pytest.mark.parametrize(("page", "number"), PYTHON)
def test_its_code_runs_as_it_stands_and_prints_what_it_says(
    page: Path, number: int, run_python: Callable[..., str]
) -> None:
    code = blocks(page, "python")[number].replace(LONG, SHORT)
    check_prints(code, run_python(code))


def test_the_readme_has_a_short_example_first_and_each_of_the_ways_in() -> None:
    codes = blocks(ROOT / "README.md", "python")
    assert len(codes[0].splitlines()) <= 15
    assert all(LONG in code for code in codes)
    for code, way_in in zip(
        codes, ["run_actors(", "await session.observe(", "SyncTrainingSession(", "Trainer("], strict=True
    ):
        assert way_in in code


@pytest.mark.skipif(shutil.which("jq") is None, reason="the README's one-liners use jq")
def test_the_one_liners_read_the_run_that_the_example_made(first_example: Path) -> None:
    script = next(code for code in blocks(ROOT / "README.md", "sh") if "jq" in code)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=first_example,
        env={"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert '"total_steps": 400' in done.stdout
    assert done.stdout.splitlines()[-1] == "400"
    assert done.stderr == ""


def test_the_tree_in_the_documents_is_the_one_on_disk(
    first_example: Path, run_on_disk: Callable[..., Any]
) -> None:
    directory = run_on_disk(first_example / "runs").directory
    tree = section(ROOT / "README.md", "The run directory")
    written = {path.name for path in directory.rglob("*") if path.is_file() and path.name[0] != "."}
    journal = "0001-000000000000.journal"
    rows = {"train_episodes.jsonl", "events.jsonl"}
    assert written == {"metadata.json", *rows, "step_400.pt", "latest.pt", journal}
    for name in written:
        assert name.replace("_400", "_<N>").replace("0001-000000000000", "<attempt>-<first event>") in tree
    assert directory.relative_to(first_example).parts[:3] == ("runs", "cartpole", "v1")


@pytest.mark.parametrize(
    ("heading", "kind"),
    [("A trainer", stoker.TrainerConfig), ("Evaluation", stoker.EvaluationSettings)],
)
def test_the_trainers_tables_list_every_setting_with_its_default(
    heading: str, kind: type[msgspec.Struct]
) -> None:
    text = section(ROOT / "docs" / "training.md", heading)
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, re.MULTILINE))
    config = kind()
    found = {name: getattr(config, name) for name in kind.__struct_fields__}
    assert rows == {
        name: f"{type(value).__name__}()" if isinstance(value, msgspec.Struct) else repr(value)
        for name, value in found.items()
    }


@pytest.mark.parametrize(
    ("page", "heading", "kind"),
    [
        ("training.md", "Step by step", stoker.StepMetrics),
        ("environments.md", "Where actors play", stoker.ActorReport),
    ],
)
def test_every_field_that_is_reported_is_described(
    page: str, heading: str, kind: type[msgspec.Struct]
) -> None:
    assert set(kind.__struct_fields__) <= set(names_in_tables(section(ROOT / "docs" / page, heading)))


def test_the_failure_table_lists_every_limit_with_its_default() -> None:
    text = section(ROOT / "docs" / "environments.md", "Failures")
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", text, re.MULTILINE)
    limit = stoker.FailureLimit()
    assert dict(rows) == {name: str(getattr(limit, name)) for name in limit.__struct_fields__}


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("metadata.json", stoker.RunMetadata),
        ("metadata.json", Attempt),
        ("train_episodes.jsonl", TrainEpisodeRow),
        ("eval_episodes.jsonl", EvalEpisodeRow),
        ("metrics.jsonl", MetricsRow),
        ("events.jsonl", EventRow),
    ],
)
def test_every_field_on_disk_is_described(heading: str, kind: type[msgspec.Struct]) -> None:
    described = set(names_in_tables(section(ROOT / "docs" / "runs.md", heading)))
    assert set(kind.__struct_fields__) <= described


def test_every_kind_of_event_is_described_with_its_details() -> None:
    text = section(ROOT / "docs" / "runs.md", "events.jsonl")
    rows = dict(re.findall(r"^\| `(\w+)` \| (`.*) \|$", text, re.MULTILINE))
    assert list(rows)[1:] == list(KINDS), "below the head of the table"
    for kind, struct in KINDS.items():
        assert set(struct.__struct_fields__) <= set(re.findall(r"`(\w+)`", rows[kind])), kind


def test_every_method_of_an_agent_is_described() -> None:
    page = ROOT / "docs" / "agents.md"
    called = names_in_tables(section(page, "What is called when, and in which thread"))
    methods = {name for name in vars(stoker.LearningAgent) if not name.startswith("_")}
    assert set(called) == methods


@pytest.mark.parametrize(
    "heading", ["An environment of your own", "Wrappers with arguments", "Atari and MinAtar"]
)
def test_the_examples_of_environments_run_on_the_command_line(
    heading: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    text = (ROOT / "docs" / "environments.md").read_text().split(f"\n### {heading}\n")[1].split("\n## ")[0]
    found = FENCE.findall(text.split("\n### ")[0])
    for language, code in found:
        if language != "sh":
            name = re.match(r"# (\S+)\n", code)
            assert name is not None
            (tmp_path / name[1]).write_text(code.replace("20000", "64"))
    commands = [line for language, code in found if language == "sh" for line in code.splitlines()]
    assert commands
    for line in commands:
        words = [*line.replace("20000", "64").split()[1:], "--eval-freq", "0", "--num-envs", "2"]
        words += ["--rollout-steps", "64", "--batch-size", "16"] if "ppo" in line else []
        done = launching.run(
            [sys.executable, "-m", "stoker", *words], cwd=tmp_path, env=environment, capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Done: 64 steps" in done.stdout
    assert len(list(tmp_path.glob("runs/*/*/*"))) == len(commands)


def test_the_readme_knows_every_command() -> None:
    text = section(ROOT / "README.md", "The command line")
    assert re.findall(r"^\| `stoker ((?:data )?\w+)", text, re.MULTILINE) == list(command_line.COMMANDS)


def test_the_flags_in_the_readme_exist(capsys: pytest.CaptureFixture[str]) -> None:
    flags = set(re.findall(r"`(--?[a-z-]+)", section(ROOT / "README.md", "The command line")))
    for command in ("train", "resume", "replay", "ls", "plot", "dash"):
        with pytest.raises(SystemExit):
            command_line.main([command, "--help"])
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", capsys.readouterr().out))
    assert flags <= known
    assert len(flags) > 15


def test_the_defaults_in_the_readme_are_those_of_the_config() -> None:
    rows = re.findall(
        r"^\| (`--.*?|`-n.*?) \| .*? \| (.*?) \|$",
        section(ROOT / "README.md", "The command line"),
        re.MULTILINE,
    )
    said = {
        flag.replace("-", "_"): default
        for flags, defaults in rows
        for flag, default in zip(re.findall(r"`--([a-z-]+)`", flags), defaults.split(", "), strict=False)
    }
    config = stoker.TrainConfig(env="CartPole-v1")
    shared = said.keys() & set(config.__struct_fields__) - {
        "agent",
        "learning_rate",
    }  # which depend on others
    assert len(shared) == 31
    for name in shared:
        value = getattr(config, name)
        assert said[name] == ("none" if value is None else str(value)), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target
