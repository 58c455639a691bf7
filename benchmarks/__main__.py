"""Ask all questions, or those named, in turn: ``python -m benchmarks [QUESTION ...] [--json] [--quick]``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

QUESTIONS = (
    "observe", "act", "dqn", "iqn", "ppo", "sac", "joint", "offline", "solve", "slow_envs", "calm_loop",
    "saving", "journal", "resuming", "explain", "telemetry", "rows", "replay", "growth", "processes",
    "scaling", "export", "service", "served", "cluster", "reading", "dashboard", "datasets", "data",
)  # fmt: skip
LONG = ("zoo", "warm")
"""Asked only by name: they take a day, and half an hour."""


def main() -> int:
    """Run each question in a separate process, so that none warms the next one up."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure stoker beside its peers; benchmarks/README.md says what each question asks.",
        epilog=f"Questions: {', '.join(QUESTIONS)}; only by name: {', '.join(LONG)}.",
    )
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help="default: all that are short")
    parser.add_argument("--quick", action="store_true", help="measure less, for a first impression")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each table")
    given = parser.parse_args()
    if unknown := sorted({*given.questions} - {*QUESTIONS, *LONG}):
        parser.error(f"no such question: {', '.join(unknown)}; there are {', '.join((*QUESTIONS, *LONG))}")
    options = [f"--{name}" for name in ("quick", "json") if getattr(given, name)]
    worst = 0
    for question in given.questions or QUESTIONS:
        command = [sys.executable, "-m", f"benchmarks.{question}", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                for line in process.stdout or ():
                    print(line, end="", flush=True)
            except BrokenPipeError:  # the reader has left, as in `| head`: end this question, ask no other
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                process.communicate()
                return 1
        worst = max(worst, process.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
