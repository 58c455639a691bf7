"""``stoker verify``: whether every file of a run is whole, and whether they agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import tyro
from rich.table import Table
from rich.text import Text

from stoker.cli.driving import run_async
from stoker.cli.formats import from_here, size
from stoker.cli.parsing import parse, required
from stoker.cli.stored import open_run
from stoker.cli.tables import say
from stoker.errors import RunBroken
from stoker.runs.verifying import Finding, verify_run

__all__ = ["VerifyArguments", "verify"]

_SAID = {"ok": "ok", "torn": "torn", "damaged": "DAMAGED", "note": "note"}
_STYLES = {"ok": "green", "torn": "yellow", "damaged": "bold red", "note": "cyan"}
_DESCRIPTION = """Check every file of a run: checksums, rows, journal, agreement of counters.

What a kill leaves behind is reported and is no damage. Nothing is changed. Exit code 1 if a file is damaged.
"""


class VerifyArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line of ``stoker verify`` says."""

    run: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="(required)")
    ] = ""
    """The run's directory, or that of a version or name: then its newest run."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object instead."""


def verify(args: Sequence[str]) -> int:
    """Run ``stoker verify`` and return its exit code: 1 if something is damaged.

    Raises:
        RunNotFound, RunBroken: There is no such run.
    """
    arguments = parse("verify", VerifyArguments, args, _DESCRIPTION)
    path = required(arguments.run, "verify", "a run", "runs/CartPole-v1")
    try:
        run = run_async(open_run, path)
    except RunBroken as error:
        directory, findings = _of_broken(error)
    else:
        directory, findings = run.directory, verify_run(run)
    is_damaged = any(finding.kind == "damaged" for finding in findings)
    if arguments.json:
        plain = msgspec.to_builtins(findings)
        print(json.dumps({"run": str(directory), "whole": not is_damaged, "findings": plain}))
    else:
        _print(directory, findings)
    return int(is_damaged)


def _of_broken(error: RunBroken) -> tuple[Path, list[Finding]]:
    """What is found of a run that does not open: its metadata, which all else depends on."""
    path = Path(error.path)
    if path.is_dir():  # none of several runs
        raise error
    n_bytes = path.stat().st_size if path.exists() else 0
    return path.parent, [Finding(path.name, n_bytes, "damaged", str(error).removeprefix(f"{path}: "))]


def _print(directory: Path, findings: list[Finding]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        bytes_ = size(finding.size) if finding.size else ""
        said = Text(_SAID[finding.kind], style=_STYLES[finding.kind])
        table.add_row(Text(finding.file or "run"), bytes_, said, Text(finding.text))
    say(table)
    damaged = sorted({finding.file or "run" for finding in findings if finding.kind == "damaged"})
    if damaged:
        verdict = f"DAMAGED: {', '.join(damaged)}"
    else:
        torn = any(finding.kind == "torn" for finding in findings)
        verdict = "whole" + (", but for the torn end that a kill leaves" if torn else "")
    print(f"{from_here(directory)}: {verdict}")
