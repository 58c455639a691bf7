"""``--max-time`` while the agent for an environment or a data set is found; imported only if it is given."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from stoker.cli.limits import limits_of
from stoker.signals import SignalGuard


class _FittingGuard(SignalGuard):
    """Ends the process at the end of its time while the agent for an environment is found."""

    def overdue(self, *, loop_turns: bool) -> str:
        """What is said then."""
        del loop_turns
        return (
            "stoker: error: --max-time is over: the environment or data set that decides which agent fits is "
            "still being opened; name one with --agent, or give it more"
        )

    def interrupted(self) -> str:
        """It obeys no signals."""
        return ""


@contextlib.contextmanager
def in_time(max_time: object) -> Generator[None]:
    """Hold ``--max-time`` while the agent is found; a time that is no text sets no limit."""
    limits = limits_of(max_time if isinstance(max_time, str) else None, "1s")
    with _FittingGuard([], limits.grace_s, limits.leaves_at):
        yield
