"""Signals for programs that hold a session: the first one stops it, the second ends the process."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol, runtime_checkable

from stoker.errors import ConfigError, SessionClosed, SessionError, SessionFailed
from stoker.session.watching import Health, stuck_line
from stoker.signals import SignalGuard


class Stoppable(Protocol):
    """A ``TrainingSession``, a ``Trainer``, or anything else that can be stopped."""

    def stop(self) -> None:
        """Stop; called on its event loop. ``SessionError`` if there is nothing to stop."""
        ...


@runtime_checkable
class ReportsHealth(Protocol):
    """Reports which of its parts is busy, as ``TrainingSession`` does."""

    def health(self) -> Health:
        """Who waits for whom at this moment."""
        ...


@runtime_checkable
class NotesSignals(Protocol):
    """Records which signal stopped it, as ``TrainingSession`` does."""

    def note_signal(self, name: str) -> None:
        """Keep the signal's name; ``stop`` follows."""
        ...


@asynccontextmanager
async def stop_on_signals(stoppable: Stoppable, *, grace_s: float = 30.0) -> AsyncGenerator[None]:
    """Let SIGINT and SIGTERM stop a training cleanly while the block runs.

        async with stoker.stop_on_signals(session), session:
            while not session.is_done:
                ...

    At the first signal the session is stopped: ``is_done`` becomes true, and the program is to leave the
    session, which drains, flushes and writes the final checkpoint. If the block has not ended ``grace_s``
    later, or at a second signal that comes at least a second after the first, a line on standard error says
    what is still busy, and the process ends with exit code 1, or 130 for the second signal. So put it around
    the session, as above: then closing the session is a part of the block.

    A signal that comes before the session is open does what it did before the block, since there is nothing
    to save. A signal that is ignored at the start stays ignored, such as SIGINT in a program that a shell
    script starts with ``&``. The previous handlers are restored at the end. On asyncio, uvloop and trio.

    Args:
        stoppable: the session, or whatever else has a ``stop``.
        grace_s: seconds from the first signal to the end of the block, at most.

    Raises:
        ConfigError: ``grace_s`` is not a number above 0, or this is not the main thread, which alone receives
            signals.
    """
    if isinstance(grace_s, bool) or not (grace_s > 0 and math.isfinite(grace_s)):
        raise ConfigError(f"grace_s={grace_s!r}: give a number of seconds above 0")
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError(
            f"stop_on_signals in thread {threading.current_thread().name!r}: Python handles signals in the "
            "main thread only; use it there, and call session.stop() from here"
        )
    with _Guard(stoppable, grace_s) as guard:
        guard.finish_with(guard.stop)
        yield


class _Guard(SignalGuard):
    def __init__(self, stoppable: Stoppable, grace_s: float) -> None:
        super().__init__([signal.SIGINT, signal.SIGTERM], grace_s)
        self._stoppable = stoppable

    def stop(self) -> None:
        """Stop; or, if there is nothing to stop yet, let the signal do what it did before."""
        try:
            if isinstance(self._stoppable, NotesSignals):
                self._stoppable.note_signal(signal.Signals(self.first).name)
            self._stoppable.stop()
        except SessionFailed:
            pass  # it ends already
        except SessionError as error:
            if not (isinstance(error, SessionClosed) and error.entered):
                self.close()
                signal.raise_signal(self.first)

    def overdue(self, *, loop_turns: bool) -> str:
        since = f"{self.grace_s:g} s after {signal.Signals(self.first).name}"
        return f"stoker: error: not stopped {since}: {self._stuck(loop_turns=loop_turns)}"

    def interrupted(self) -> str:
        return f"stoker: interrupted by a second signal: {self._stuck(loop_turns=True)}"

    def _stuck(self, *, loop_turns: bool) -> str:
        if isinstance(self._stoppable, ReportsHealth):
            return stuck_line(self._stoppable.health, loop_turns=loop_turns)
        return "the program has not ended"
