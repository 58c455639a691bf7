"""All questions, one after the other: ``python -m benchmarks [--json] [--quick]``."""

from __future__ import annotations

import subprocess
import sys

QUESTIONS = ("observe", "act", "dqn", "calm_loop", "journal", "saving")


def main() -> int:
    """Run each question in a process of its own, so that none warms the next one up."""
    worst = 0
    for question in QUESTIONS:
        command = [sys.executable, "-m", f"benchmarks.{question}", *sys.argv[1:]]
        worst = max(worst, subprocess.run(command, check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
