"""What ends a program from outside: signals, and deadlines that hold even when nothing else moves.

A thread waits for both. The system writes a signal's number straight to its socket
(``signal.set_wakeup_fd``), so that it learns of one while the event loop, or a call into C, stands still.
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
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

from stoker.threads import CallSoon, call_soon_here

__all__ = ["SignalGuard"]

_FAREWELL_S = 1.0
"""So long may a terminal that takes nothing hold up the end."""
_ANSWER_S = 0.3
"""An event loop that does not answer for so long is said to stand still."""
_ONE_WISH_S = 1.0
"""Until the message is out, a further signal of the same kind is the same request; one of another kind for
this long in any case: wrappers pass on what a terminal has sent to all."""


class SignalGuard:
    """Obeys signals and deadlines while a program runs; a context manager.

    The first signal asks the program to finish, for which it has ``grace_s``; the second ends the process at
    once with exit code 130, as does the first one before there is anything to finish. A process that is still
    there when the grace or its time is over says why and ends with exit code 1. Signals that are not among
    these go where they went before, and so do these when the block is left. A signal that is ignored at the
    start stays ignored: SIGHUP under ``nohup``, and SIGINT in what a shell script starts with ``&``, so that
    Ctrl-C ends the script alone. SIGTERM stops such a process.

    Args:
        numbers: the signals; outside of the main thread, which alone receives them, there are only deadlines.
        grace_s: seconds to finish after the first signal.
        leaves_at: when the process is made to end in any case, on the clock of ``time.monotonic``.
    """

    def __init__(self, numbers: Sequence[int], grace_s: float, leaves_at: float = math.inf) -> None:
        self.leaves_at = leaves_at
        """When the process is made to end, on the clock of ``time.monotonic``; infinity: not at all."""
        self.signalled_at: float | None = None
        """When the first signal came."""
        self.first = 0
        """The number of the first signal."""
        self._numbers = numbers
        self._grace_s = grace_s
        self._finish: Callable[[], None] | None = None
        self._call_soon: CallSoon | None = None
        self._told = False
        self._closed = False
        self._before: dict[int, Any] = {}
        self._fd_before = -1

    def overdue(self, *, loop_turns: bool) -> str:
        """The last line when the grace or the time is over; called in a thread.

        Args:
            loop_turns: whether the event loop answers.
        """
        return "stoker: error: " + ("the time is over" if loop_turns else "the event loop does not turn")

    def interrupted(self) -> str:
        """The last line when a signal ends the process at once; called in a thread."""
        return "stoker: interrupted"

    def before_signal(self, number: int) -> None:
        """Called in a thread before a signal is obeyed."""

    def before_exit(self) -> None:
        """Called in a thread before the last line."""

    def __enter__(self) -> Self:
        self._inbox, self._outbox = socket.socketpair()
        self._outbox.settimeout(0)
        heeded = [number for number in self._numbers if signal.getsignal(number) != signal.SIG_IGN]
        if heeded and threading.current_thread() is threading.main_thread():
            for number in heeded:
                self._before[number] = signal.signal(number, _received) or signal.SIG_DFL
            self._fd_before = signal.set_wakeup_fd(self._outbox.fileno(), warn_on_full_buffer=False)
        self._arm()
        self._thread = threading.Thread(target=self._watch, name="stoker-guard", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let signals go where they went before. A second call does nothing."""
        if self._closed:
            return
        if self._before:
            signal.set_wakeup_fd(self._fd_before, warn_on_full_buffer=False)
            for number, handler in self._before.items():
                signal.signal(number, handler)
        self._closed = True
        self._outbox.close()
        self._thread.join()
        self._inbox.close()
        if self.leaves_at < math.inf:
            faulthandler.cancel_dump_traceback_later()

    def finish_with(self, finish: Callable[[], None]) -> None:
        """From now on there is something to finish; called on its event loop.

        Args:
            finish: asks the program to end; called on this event loop at the first signal.
        """
        self._call_soon, self._finish = call_soon_here(), finish

    def told(self) -> None:
        """The user knows that it is finishing: the next signal is another wish."""
        self._told = True

    # In the thread --------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            left_s = self.leaves_at - time.monotonic()
            if left_s <= 0:
                self._leave(1, lambda: self.overdue(loop_turns=self._turns()))
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
                elif self._fd_before >= 0:
                    with contextlib.suppress(OSError):
                        os.write(self._fd_before, bytes([number]))

    def _take(self, number: int) -> None:
        self.before_signal(number)
        now = time.monotonic()
        if self._finish is None or self._call_soon is None:
            self._leave(130, self.interrupted)
        elif self.signalled_at is None:
            self.signalled_at, self.first = now, number
            self.leaves_at = min(self.leaves_at, now + self._grace_s)
            self._arm()
            with contextlib.suppress(RuntimeError):  # the event loop has ended, and the program with it
                self._call_soon(self._finish)
        elif now >= self.signalled_at + (_ONE_WISH_S if number != self.first or not self._told else 0.0):
            self._leave(130, self.interrupted)

    def _turns(self) -> bool:
        """Whether the event loop answers; one that is not known is taken to."""
        if self._call_soon is None:
            return True
        answered = threading.Event()
        try:
            self._call_soon(answered.set)
        except RuntimeError:  # it has ended
            return True
        return answered.wait(_ANSWER_S)

    def _leave(self, code: int, last_line: Callable[[], str]) -> None:
        """End the process; threads that learn or write, and a disk that is looked at, are not waited for."""

        def farewell() -> None:
            with contextlib.suppress(OSError, ValueError):  # the terminal is gone
                self.before_exit()
                sys.stderr.write(f"{last_line()}\n")
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


def _received(number: int, frame: FrameType | None) -> None:
    """Nothing: with a handler in Python the system's own, which would end the process, is not taken."""


def _has_stderr() -> bool:
    try:
        os.fstat(2)
    except OSError:
        return False
    return True
