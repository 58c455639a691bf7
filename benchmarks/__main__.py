"""All questions, or those named, in turn: ``python -m benchmarks [NAME ...] [--json] [--quick]``."""

from __future__ import annotations

import subprocess
import sys

QUESTIONS = (
    "observe", "act", "dqn", "iqn", "ppo", "sac", "joint", "offline", "solve", "slow_envs", "calm_loop",
    "saving", "journal", "resuming", "explain", "telemetry", "rows", "replay", "growth", "processes",
    "scaling", "export", "service", "cluster", "reading", "dashboard", "datasets", "data",
)  # fmt: skip
LONG = ("zoo", "warm")
"""Asked only by name: they take a day, and half an hour."""


def main() -> int:
    """Run each question in a process of its own, so that none warms the next one up."""
    named = [word for word in sys.argv[1:] if not word.startswith("-")]
    options = [word for word in sys.argv[1:] if word.startswith("-")]
    if unknown := [name for name in named if name not in (*QUESTIONS, *LONG)]:
        known = ", ".join((*QUESTIONS, *LONG))
        print(f"no such question: {', '.join(unknown)}; there are {known}", file=sys.stderr)
        return 2
    worst = 0
    for question in named or QUESTIONS:
        command = [sys.executable, "-m", f"benchmarks.{question}", *options]
        worst = max(worst, subprocess.run(command, check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
