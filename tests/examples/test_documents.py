"""What the documents say is so: their code runs, their names exist, their links lead somewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import launching
import stoker
from stoker.protocol import decode_step
from stoker.runs import Attempt, EvalEpisodeRow, MetricsRow, TrainEpisodeRow
from stoker.runs.event_rows import KINDS, EventRow

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LONG, SHORT = "20_000", "400"


def blocks(page: Path, language: str) -> list[str]:
    return [code for tag, code in FENCE.findall(page.read_text()) if tag == language]


CHECKED = {
    ("command-line", "toml"): "test_readme.py",
    ("environments", "toml"): "below",
    ("protocol", "json"): "tests/protocol/test_page.py and tests/service/test_page.py",
    ("runs", "text"): "test_readme.py",
    ("services", "json"): "below",
    ("training", "toml"): "test_statements.py",
}
SHOWN = {
    ("architecture", "text"): "a drawing",
    ("deploying", "ini"): "for systemd",
    ("deploying", "nginx"): "for nginx",
    ("deploying", "text"): "for Caddy",
    ("explain", "text"): "an output whose numbers are those of one machine",
    ("many-agents", "text"): "a tree",
    ("protocol", "text"): "pseudo-code",
    ("testing", "text"): "the output for an agent that is not shown",
    ("training", "text"): "an output whose numbers are those of one run",
}
"""Blocks that are neither Python nor commands: where they are checked, or why they only show something."""


def test_every_block_runs_or_is_known_here() -> None:
    found = {
        (page.stem, tag)
        for page in PAGES
        if page.parent != ROOT
        for tag in re.findall(r"^ *```(\w*)\n.*?^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
    }
    assert {block for block in found if block[1] not in ("python", "sh")} == CHECKED.keys() | SHOWN.keys()


def test_the_records_of_a_funnel_are_records() -> None:
    (code,) = blocks(ROOT / "docs" / "services.md", "json")
    records = [record for line in code.splitlines() for record in decode_step(line, "json").steps]
    assert [(record.actor, record.seq) for record in records] == [("visitor-7", seq) for seq in (1, 2, 3)]


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
    if page.stem != "quickstart" and page.parent.name != "start"
]
"""The others run in test_tutorials.py, or below."""


def check_prints(code: str, printed: str) -> None:
    for said in re.findall(r"^print\(.*\)  # (.+)$", code, re.MULTILINE):
        assert said in printed


@pytest.mark.parametrize(("page", "number"), PYTHON)
def test_its_code_runs_as_it_stands_and_prints_what_it_says(
    page: Path, number: int, run_python: Callable[..., str]
) -> None:
    code = blocks(page, "python")[number].replace(LONG, SHORT)
    check_prints(code, run_python(code))


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


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("https://"):
                assert (page.parent / target).exists(), (page, target)
