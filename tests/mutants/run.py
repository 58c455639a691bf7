"""Do the tests notice faults? Run each mutant's killers on a copy of the source that has the fault.

    python tests/mutants/run.py [AREA | AREA:NUMBER ...] [--list]

First the killers must pass on the unchanged copy. A mutant is killed if a test fails then; a test that hangs
until its time-out notices, too, but is itself at fault. Exits with 1 unless all mutants are killed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mutant_lists import ROOT, Mutant, Named, chosen

TIMEOUT_S = 60
"""For each test; the repository's own limit leaves room for slow machines."""

HANGS = ("Failed: Timeout (>", "+++ Timeout +++")
"""What pytest-timeout writes for a test that does not end."""


def outcome(copy: Path, killers: Sequence[str]) -> tuple[str, str]:
    """Run tests on the copy: ``killed``, ``survived``, ``hangs`` or ``broken``, and what they printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")])}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the copy's other modules are compiled once
    options = ["-x", "-q", "-p", "no:cacheprovider", "--timeout", str(TIMEOUT_S), "--color", "no"]
    with tempfile.TemporaryFile("w+") as printed:  # no pipe, which a left process would keep open
        tests = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *killers],
            cwd=ROOT,
            env=environment,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = tests.wait(TIMEOUT_S * (1 + len(killers)))
        except subprocess.TimeoutExpired:
            status = None
        finally:  # also of what a failed test left behind
            with contextlib.suppress(ProcessLookupError):
                os.killpg(tests.pid, signal.SIGKILL)
            tests.wait()
        printed.seek(0)
        output = printed.read()
    if status is None or any(hint in output for hint in HANGS):
        return "hangs", output
    return {0: "survived", 1: "killed"}.get(status, "broken"), output


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


def run(mutants: Sequence[Named]) -> int:
    """Run them one after another and print what became of each; return the exit status."""
    with tempfile.TemporaryDirectory(prefix="stoker-mutants-") as folder:
        copy = Path(folder) / "src"
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        killers = {killer: None for _, mutant in mutants for killer in mutant.killers}
        state, output = outcome(copy, list(killers))
        if state != "survived":
            print(output, "\nThe tests do not pass on the unchanged source.", sep="")
            return 1
        counts: Counter[str] = Counter()
        for name, mutant in mutants:
            state, output = outcome_with(mutant, copy)
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
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    arguments = parser.parse_args()
    try:
        mutants = chosen(arguments.areas)
    except ValueError as error:
        parser.error(str(error))
    if not arguments.list:
        return run(mutants)
    for name, mutant in mutants:
        print(f"{name:14} {mutant.file:28} {mutant.why}", *mutant.killers, sep="\n    ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
