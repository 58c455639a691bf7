"""How long do `stoker ls`, `show` and `plot` take on many and on long runs, against an earlier commit?

``ls`` on 1,000 runs, ``show`` and ``plot`` on a run of a million episodes, each as a separate command, its
start included. The earlier commit is the one that STOKER_BEFORE names; its sources come from git. Exits with
1 if ``ls`` takes more than a second.
"""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from functools import partial
from pathlib import Path

from benchmarks.made_runs import MadeRun, make_runs
from benchmarks.measure import QUICK, repeated, report

HERE = "."  # a disk; the system's /tmp may be memory
SOURCES = Path(__file__).parents[1] / "src"
BEFORE = os.environ.get("STOKER_BEFORE", "0e3c6b8")
"""The last commit whose commands made an object of each row."""
N_RUNS, N_EPISODES = (200, 100_000) if QUICK else (1_000, 1_000_000)
N_EVALUATIONS, N_RECORDS = 100, 1_000
RUNS = 2 if QUICK else 5
LS_S = 1.0


@contextlib.contextmanager
def sources_before() -> Generator[Path | None]:
    """The sources of the earlier commit; None where git has none of it."""
    with tempfile.TemporaryDirectory() as place:
        git = ["git", "-C", str(SOURCES.parent), "archive", BEFORE, "src"]
        packed = subprocess.run(git, capture_output=True, check=False)
        if packed.returncode:
            yield None
            return
        subprocess.run(["tar", "-x", "-C", place], input=packed.stdout, check=True)
        yield Path(place) / "src"


def seconds(sources: Path, words: list[str], kept: dict[str, list[float]], name: str) -> float:
    """How long a command takes, and how much processor time."""
    env = {**os.environ, "PYTHONPATH": str(sources), "MPLBACKEND": "agg"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "stoker", *words], env=env, check=True, stdout=subprocess.DEVNULL)
    took_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    kept.setdefault(name, []).append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return took_s


def compare(question: str, words: list[str], sources: Mapping[str, Path]) -> float:
    """Measure a command with each of the sources in turn; return the median of the present ones."""
    cpu: dict[str, list[float]] = {}
    rows = repeated({name: partial(seconds, each, words, cpu, name) for name, each in sources.items()}, RUNS)
    median = {name: statistics.median(values) for name, values in rows.items()}
    ratios = {f"{name} / now": value / median["now"] for name, value in median.items() if name != "now"}
    report(question, "s", rows, ratios)
    report(f"{question}: processor time", "s", cpu, {})
    return median["now"]


def main() -> int:
    with tempfile.TemporaryDirectory(dir=HERE) as directory, sources_before() as before:
        place = Path(directory)
        sources = {"now": SOURCES} | ({} if before is None else {BEFORE: before})
        if before is None:
            print(f"git has no {BEFORE}: only the present commands are measured", file=sys.stderr)
        make_runs(place / "many", N_RUNS, 20)
        long = MadeRun(place / "long", n_wanted=N_EPISODES)
        for _ in range(N_EVALUATIONS):
            long.grow(N_EPISODES // N_EVALUATIONS)
            long.add_evaluation()
            for _ in range(N_RECORDS // N_EVALUATIONS):
                long.add_record()
        long.end()
        run, curve = str(long.directory), str(place / "curve.png")
        ls_s = compare(f"stoker ls, {N_RUNS:,} runs", ["ls", str(place / "many")], sources)
        compare(f"stoker show, a run of {N_EPISODES:,} episodes", ["show", run], sources)
        compare("stoker plot, the same run", ["plot", run, "-o", curve], sources)
    return ls_s > LS_S


if __name__ == "__main__":
    sys.exit(main())
