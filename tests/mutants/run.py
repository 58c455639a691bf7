"""Do the tests notice faults? Run each mutant's killers on a copy of the source that has the fault.

    python tests/mutants/run.py [AREA | AREA:NUMBER ...] [--list]

First the killers must pass on the unchanged copy. A mutant is killed if a test fails then; a test that hangs
until its time-out notices, too, but is itself at fault. Exits with 1 unless all mutants are killed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Never

import pytest
from mutant_lists import ROOT, Mutant, Named, chosen

TIMEOUT_S = 60
"""For each test; the repository's own limit leaves room for slow machines."""

PRELOADED = ("gymnasium", "torch", "uvloop")
"""What tests import besides stoker and the plugins of pytest, which must be imported by it."""

_copies: list[Path] = []
"""Of a process of the pool: its copy of the source."""

HANGS = ("Failed: Timeout (>", "+++ Timeout +++")
"""What pytest-timeout writes for a test that does not end."""


def outcome(copy: Path, killers: Sequence[str]) -> tuple[str, str]:
    """Run tests on the copy: ``killed``, ``survived``, ``hangs`` or ``broken``, and what they printed."""
    with tempfile.TemporaryFile("w+") as printed:  # no pipe, which a left process would keep open
        tests = os.fork()
        if not tests:
            _test(copy, killers, printed.fileno())
        try:
            status = _status_of(tests, TIMEOUT_S * (1 + len(killers)))
        finally:  # also of what a failed test left behind
            with contextlib.suppress(ProcessLookupError):
                os.killpg(tests, signal.SIGKILL)
        printed.seek(0)
        output = printed.read()
    if status is None or any(hint in output for hint in HANGS):
        return "hangs", output
    if re.search(r"^\d+ failed", output, re.MULTILINE):  # at its end pytest may fail once more
        return "killed", output
    return {0: "survived", 1: "killed"}.get(status, "broken"), output


def _test(copy: Path, killers: Sequence[str], printed: int) -> Never:
    """In a forked process, which has imported nothing of stoker yet: run pytest on the copy, and end."""
    os.setsid()
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    os.chdir(ROOT)
    sys.path[:0] = [str(copy), str(ROOT)]  # the second, as `python -m` does
    os.environ["PYTHONPATH"] = os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")])
    options = ["-x", "-q", "-p", "no:cacheprovider", "--timeout", str(TIMEOUT_S), "--color", "no"]
    options += ["--basetemp", f"{copy}-tests"]  # pytest would tidy up behind other runs, and may fail at that
    status = 3
    try:
        status = int(pytest.main([*options, *killers]))
    except Exception:  # noqa: BLE001 - shown as "broken"
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _status_of(process: int, timeout_s: float) -> int | None:
    """The exit status of a child, which is ended if it takes longer than that; None: it was."""
    until = time.monotonic() + timeout_s
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(ended[1])


def put(copy: Path, file: str, source: str) -> None:
    """Change a module of the copy; byte code of the same second and size would hide the change."""
    path = copy / "stoker" / file
    path.write_text(source, encoding="utf-8")
    Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)


def outcome_with(mutant: Mutant, copy: Path) -> tuple[str, str]:
    """What becomes of one fault; the copy is as before afterwards."""
    source = (copy / "stoker" / mutant.file).read_text(encoding="utf-8")
    put(copy, mutant.file, mutant.applied(source))
    try:
        return outcome(copy, mutant.killers)
    finally:
        put(copy, mutant.file, source)


def begin(folder: str) -> None:
    """In a process of the pool: make its copy of the source, and import what all tests import."""
    copy = Path(folder) / str(os.getpid())
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name in PRELOADED:
        importlib.import_module(name)
    _copies.append(copy)


def try_one(mutant: Mutant) -> tuple[str, str]:
    """In a process of the pool: what becomes of one fault."""
    return outcome_with(mutant, _copies[0])


def try_unchanged(killers: Sequence[str]) -> tuple[str, str]:
    """In a process of the pool: what tests make of the source as it is."""
    return outcome(_copies[0], killers)


def run(mutants: Sequence[Named], jobs: int) -> int:
    """Run them, so many at a time, and print what became of each; return the exit status."""
    killers = list({killer: None for _, mutant in mutants for killer in mutant.killers})
    counts: Counter[str] = Counter()
    forks = multiprocessing.get_context("fork")
    with (
        tempfile.TemporaryDirectory(prefix="stoker-mutants-") as folder,
        ProcessPoolExecutor(jobs, forks, begin, (folder,)) as pool,
    ):
        state, output = pool.submit(try_unchanged, killers).result()
        if state != "survived":
            print(output, "\nThe tests do not pass on the unchanged source.", sep="")
            return 1
        outcomes = pool.map(try_one, [mutant for _, mutant in mutants])
        for (name, mutant), (state, output) in zip(mutants, outcomes, strict=True):
            counts[state] += 1
            print(f"{state:9} {name:14} {mutant.file:28} {mutant.why}", flush=True)
            if state in ("broken", "hangs"):
                print("\n".join(f"    {line}" for line in output.splitlines()[-20:]))
    share = counts["killed"] / len(mutants)
    print(f"\n{counts['killed']} of {len(mutants)} killed ({share:.1%})", end="")
    print(
        *(f", {counts[state]} {state}" for state in ("survived", "hangs", "broken") if counts[state]), sep=""
    )
    return 0 if share == 1 else 1


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "areas", metavar="AREA", nargs="*", help="a list, or one of its mutants; all if none is named"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many run at a time (default: 2)")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    arguments = parser.parse_args()
    try:
        mutants = chosen(arguments.areas)
    except ValueError as error:
        parser.error(str(error))
    if not arguments.list:
        return run(mutants, arguments.jobs)
    for name, mutant in mutants:
        print(f"{name:14} {mutant.file:28} {mutant.why}", *mutant.killers, sep="\n    ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
