"""What ends a training on the command line from outside: signals, ``--grace`` and ``--max-time``."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from stoker.cli.limits import Limits
from stoker.signals import SignalGuard

__all__ = ["Guard"]

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Guard(SignalGuard):
    """Obeys signals and deadlines while a command runs, and says at the end how to resume.

    Every file under a final name is whole at any moment.

    Args:
        limits: the grace, and the time that the process has.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__(_SIGNALS, limits.grace_s, limits.leaves_at)
        self.limits = limits
        self._busy: Callable[[bool], str] = lambda _: "the training has not begun; give it more"
        self._left: Callable[[], str] | None = None
        self._restore: Callable[[], None] | None = None
        self._terminals = [fd for fd in (0, 1, 2) if _is_terminal(fd)]

    def attend(
        self,
        *,
        finish: Callable[[], None],
        busy: Callable[[bool], str],
        left: Callable[[], str],
        restore: Callable[[], None],
    ) -> None:
        """From now on there is a training to finish; called on its event loop.

        Args:
            finish: asks the training to end; called on this event loop at the first signal.
            busy: says which part still works and how to resume, given whether the event loop still turns;
                called in a thread, before the training is given up.
            left: says how to resume a training that is left at once; called in a thread.
            restore: restores the terminal; called in a thread, before the process ends.
        """
        self._busy, self._left, self._restore = busy, left, restore
        self.finish_with(finish)

    def overdue(self, *, loop_turns: bool) -> str:
        """Which limit is over, which part is busy, and how to resume."""
        limits = self.limits
        in_time = self.signalled_at is None or self.leaves_at < self.signalled_at + limits.grace_s
        over = f"--max-time of {limits.max_s or 0:g} s" if in_time else f"--grace of {limits.grace_s:g} s"
        return f"stoker: error: {over} is over: {self._busy(loop_turns)}"

    def interrupted(self) -> str:
        """How to resume."""
        return "stoker: interrupted" if self._left is None else f"stoker: interrupted; {self._left()}"

    def before_signal(self, number: int) -> None:
        """Redirect output for a terminal that is gone to the null device: writing there would fail."""
        if number == getattr(signal, "SIGHUP", None):
            nowhere = os.open(os.devnull, os.O_RDWR)
            for fd in self._terminals:
                os.dup2(nowhere, fd)
            os.close(nowhere)

    def before_exit(self) -> None:
        """Restore the terminal."""
        if self._restore is not None:
            self._restore()


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False
