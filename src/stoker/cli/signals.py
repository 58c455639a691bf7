"""What ends a training from outside: signals, and deadlines that hold even when nothing else moves.

A thread of its own waits for both. The system writes a signal's number straight to its socket
(``signal.set_wakeup_fd``), so that it hears of one while the event loop, or a call into C, stands still.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType, TracebackType
from typing import Any, Self

import anyio
from anyio import from_thread
from anyio.lowlevel import EventLoopToken, current_token

from stoker.cli.limits import Limits

__all__ = ["Guard"]

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_FAREWELL_S = 1.0
"""So long may a terminal that takes nothing hold up the end."""
_ANSWER_S = 0.3
"""An event loop that does not answer for so long is said to stand still."""
_ONE_WISH_S = 1.0
"""Until the user was told, but no longer, a further signal says the same; one of another kind does so for
this long in any case: wrappers pass on what a terminal has sent to all."""


class Guard:
    """Heeds signals and deadlines while a command runs; a context manager for the main thread.

    The first SIGINT, SIGTERM or SIGHUP asks the training to finish, for which it has ``grace_s``; the second
    ends the process at once with exit code 130, saying how to go on, as does the first one before there is
    anything to finish. A process that is still there when the grace or its time is over says which part is
    busy and ends with exit code 1. What lies on disk under a final name is whole at any moment.

    Args:
        limits: the grace, and the time that the process has.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.leaves_at = limits.leaves_at
        """When the process is made to end, on the clock of ``time.monotonic``; infinity: not at all."""
        self._finish: Callable[[], None] | None = None
        self._busy: Callable[[bool], str] = _starting
        self._left: Callable[[], str] | None = None
        self._restore: Callable[[], None] = _nothing
        self._token: EventLoopToken | None = None
        self._signalled_at: float | None = None
        self._first = 0  # the number of the first signal
        self._told = False
        self._closed = False
        self._before: dict[int, Any] = {}
        self._terminals = [fd for fd in (0, 1, 2) if _is_terminal(fd)]

    def __enter__(self) -> Self:
        self._inbox, self._outbox = socket.socketpair()
        self._outbox.settimeout(0)
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # Under nohup, hanging up is ignored from the start and stays so.
                if number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, _heard) or signal.SIG_DFL
            self._fd_before = signal.set_wakeup_fd(self._outbox.fileno(), warn_on_full_buffer=False)
        self._arm()
        self._thread = threading.Thread(target=self._watch, name="stoker-guard", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before:
            signal.set_wakeup_fd(self._fd_before)
            for number, handler in self._before.items():
                signal.signal(number, handler)
        self._closed = True
        self._outbox.close()
        self._thread.join()
        self._inbox.close()
        if self.leaves_at < math.inf:
            faulthandler.cancel_dump_traceback_later()

    @contextlib.contextmanager
    def in_loop(self) -> Generator[None]:
        """Hear of signals on an event loop that has arranged to hear of them itself, as uvloop does."""
        if not self._before:
            yield
            return
        loops_own = signal.set_wakeup_fd(self._outbox.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(loops_own, warn_on_full_buffer=False)

    def attend(
        self,
        *,
        finish: Callable[[], None],
        busy: Callable[[bool], str],
        left: Callable[[], str],
        restore: Callable[[], None],
    ) -> None:
        """From now on there is something to finish; called on its event loop.

        Args:
            finish: asks the training to end; called on this event loop at the first signal.
            busy: says which part still works and how to go on; called in a thread, before it is given up, and
                told whether the event loop still turns.
            left: says what becomes of a training that is left at once; called in a thread.
            restore: leaves the terminal as it was; called in a thread, before the process is ended.
        """
        self._token = current_token()
        self._busy, self._left, self._restore, self._finish = busy, left, restore, finish

    def told(self) -> None:
        """The user knows that it is finishing: the next signal is another wish."""
        self._told = True

    # In the thread --------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            left_s = self.leaves_at - time.monotonic()
            if left_s <= 0:
                self._leave(1, self._overdue)
            self._inbox.settimeout(left_s if left_s < math.inf else None)
            try:
                numbers = self._inbox.recv(64)
            except TimeoutError:
                continue
            if self._closed or not numbers:
                return
            for number in numbers:
                if number in self._before:
                    self._take(number)

    def _take(self, number: int) -> None:
        if number == getattr(signal, "SIGHUP", None):
            self._hung_up()
        now = time.monotonic()
        if self._finish is None:
            self._leave(130, self._interrupted)
        elif self._signalled_at is None:
            self._signalled_at, self._first = now, number
            self.leaves_at = min(self.leaves_at, now + self.limits.grace_s)
            self._arm()
            # Not here: an event loop that stands still would keep this thread from hearing any more.
            threading.Thread(target=self._ask, args=(self._finish,), daemon=True).start()
        elif now >= self._signalled_at + (_ONE_WISH_S if number != self._first or not self._told else 0.0):
            self._leave(130, self._interrupted)

    def _ask(self, finish: Callable[[], None]) -> None:
        # Without an event loop the training has ended by itself.
        with contextlib.suppress(anyio.RunFinishedError):
            from_thread.run_sync(finish, token=self._token)

    def _overdue(self) -> str:
        in_time = self._signalled_at is None or self.leaves_at < self._signalled_at + self.limits.grace_s
        over = (
            f"--max-time of {self.limits.max_s or 0:g} s"
            if in_time
            else f"--grace of {self.limits.grace_s:g} s"
        )
        return f"stoker: error: {over} is over: {self._busy(self._turns())}"

    def _interrupted(self) -> str:
        return "stoker: interrupted" if self._left is None else f"stoker: interrupted; {self._left()}"

    def _turns(self) -> bool:
        """Whether the event loop answers; one that is not known is taken to."""
        if self._token is None:
            return True
        asking = threading.Thread(target=self._ask, args=(_nothing,), daemon=True)
        asking.start()
        asking.join(_ANSWER_S)
        return not asking.is_alive()

    def _leave(self, code: int, last_line: Callable[[], str]) -> None:
        """End the process; threads that learn or write, and a disk that is looked at, are not waited for."""

        def farewell() -> None:
            with contextlib.suppress(OSError):  # the terminal is gone
                self._restore()
                print(last_line(), file=sys.stderr)
                sys.stdout.flush()
                sys.stderr.flush()

        last = threading.Thread(target=farewell, daemon=True)
        last.start()
        last.join(_FAREWELL_S)
        os._exit(code)

    def _arm(self) -> None:
        """Code that never lets go of the interpreter lock stops this thread too, but not that timer."""
        if self.leaves_at < math.inf and _has_stderr():
            left_s = max(0.0, self.leaves_at - time.monotonic())
            faulthandler.dump_traceback_later(left_s + 1.5 * _FAREWELL_S, exit=True, file=2)

    def _hung_up(self) -> None:
        """Write to nowhere what was meant for the terminal, which is gone: writing there would fail."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in self._terminals:
            os.dup2(nowhere, fd)
        os.close(nowhere)


def _heard(number: int, frame: FrameType | None) -> None:
    """Nothing: with a handler in Python the system's own, which would end the process, is not taken."""


def _nothing() -> None:
    """There is nothing to restore, or to do but to answer."""


def _starting(loop_turns: bool) -> str:
    return "the training has not begun; give it more"


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _has_stderr() -> bool:
    try:
        os.fstat(2)
    except OSError:
        return False
    return True
