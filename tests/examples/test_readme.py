"""The README: its example runs, its claims have something that shows them, and it is short."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
RUNS = (ROOT / "docs" / "runs.md").read_text()
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NUMBER = r"(?<![\w.,-])\d+(?:,\d{3})*(?:\.\d+)?"


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sentence or a cell of the README.

    Attributes:
        text: what the README says, with single spaces.
        shown_by: a test (``tests/path.py::name``), a command that measures it, or an example that does it.
        source: the document that has its numbers; empty: it has none.
    """

    text: str
    shown_by: list[str]
    source: str = ""


CLAIMS = msgspec.convert(
    tomllib.loads((Path(__file__).parent / "claims.toml").read_text())["claim"], list[Claim]
)


def flat(text: str) -> str:
    return " ".join(text.split())


@cache
def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "name")}


def test_it_fits_in_two_hundred_lines_and_one_example() -> None:
    assert len(README.splitlines()) <= 200
    [code] = [code for tag, code in FENCE.findall(README) if tag == "python"]
    assert "await session.act(" in code
    assert "await session.observe(" in code


def test_its_extras_are_those_of_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for_maintainers = {"test", "dev", "docs", "faults", "bench"}
    listed = re.findall(r"`([a-z]+)`", README.partition("\nExtras: ")[2].partition(". ")[0])
    assert sorted(listed) == sorted(extras.keys() - for_maintainers)


def test_each_claim_is_in_the_readme_and_something_shows_it() -> None:
    assert [claim.text for claim in CLAIMS if claim.text not in flat(README) or not claim.shown_by] == []
    for shown_by in {shown_by for claim in CLAIMS for shown_by in claim.shown_by}:
        if make := re.fullmatch(r"make ([a-z-]+)", shown_by):
            assert f"\n{make[1]}:" in (ROOT / "Makefile").read_text(), shown_by
        elif bench := re.fullmatch(r"python -m benchmarks (\w+)", shown_by):
            assert (ROOT / "benchmarks" / f"{bench[1]}.py").exists(), shown_by
        else:
            path, _, name = shown_by.partition("::")
            assert (ROOT / path).exists(), shown_by
            assert not name or name in functions(ROOT / path), shown_by


def test_the_numbers_of_each_claim_are_those_of_its_source() -> None:
    for claim in CLAIMS:
        if claim.source:
            known = set(re.findall(NUMBER, (ROOT / claim.source).read_text()))
            assert set(re.findall(NUMBER, claim.text)) <= known, claim


def test_each_number_in_its_tables_belongs_to_a_claim() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| ")]
    claimed = [claim.text for claim in CLAIMS if claim.source]
    for row in rows:
        rest = flat(row)
        for text in claimed:
            rest = rest.replace(text, "")
        assert not re.findall(NUMBER, rest), row


def test_the_numbers_of_the_comparison_are_those_of_the_benchmarks() -> None:
    page = (ROOT / "docs" / "comparison.md").read_text()
    rows = [
        line for line in page.split("\n## Numbers\n")[1].split("\n## ")[0].splitlines() if line[:2] == "| "
    ]
    assert len(rows) > 15
    known = set(re.findall(NUMBER, (ROOT / "benchmarks" / "README.md").read_text()))
    for row in rows:
        assert set(re.findall(NUMBER, row)) <= known, row


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, run_python_in: Callable[[str, Path], str]) -> Path:
    """The directory in which the README's example has run."""
    directory = tmp_path_factory.mktemp("readme")
    [code] = [code for tag, code in FENCE.findall(README) if tag == "python"]
    run_python_in(code.replace("20_000", "400"), directory)
    return directory


@pytest.mark.skipif(shutil.which("jq") is None, reason="the one-liners of docs/runs.md use jq")
def test_the_one_liners_read_the_run_that_the_example_made(example: Path) -> None:
    [script] = [code for tag, code in FENCE.findall(RUNS) if tag == "sh" and "jq" in code]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=example,
        env={"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert '"total_steps": 400' in done.stdout
    assert done.stdout.splitlines()[-1] == "400"
    assert done.stderr == ""


def test_the_tree_of_a_run_is_the_one_on_disk(example: Path, run_on_disk: Callable[..., Any]) -> None:
    directory = run_on_disk(example / "runs").directory
    tree = RUNS.partition("```text\n")[2].partition("```")[0]
    written = {path.name for path in directory.rglob("*") if path.is_file() and path.name[0] != "."}
    journal = "0001-000000000000.journal"
    rows = {"train_episodes.jsonl", "events.jsonl"}
    assert written == {"metadata.json", *rows, "step_400.pt", "latest.pt", journal}
    for name in written:
        assert name.replace("_400", "_<N>").replace("0001-000000000000", "<attempt>-<first event>") in tree
    assert directory.relative_to(example).parts[:3] == ("runs", "cartpole", "v1")
