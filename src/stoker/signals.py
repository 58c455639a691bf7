"""Signals that end a program, and deadlines that hold even while the rest of the program is stuck.

A thread waits for both. The system writes a signal's number straight to its socket
(``signal.set_wakeup_fd``), so that the thread gets it while the event loop, or a call into C, is stuck.
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
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

from stoker.threads import CallSoon, call_soon_here

ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What ends a program of the command line: Ctrl-C, a scheduler, a terminal that is gone."""

_FAREWELL_S = 1.0
"""How long a blocked terminal may delay the end."""
_ANSWER_S = 0.3
"""An event loop that does not answer for this long counts as stuck."""
_ONE_REQUEST_S = 1.0
"""A further signal within this time is the same request: wrappers forward what a terminal sent to all.
Another signal of the first kind is a new request as soon as the user knows that the program is finishing."""


class SignalGuard(ABC):
    """Obeys signals and deadlines while a program runs; a context manager. Subclasses word its last line.

    The first signal asks the program to finish within ``grace_s``. The second one ends the process at once
    with exit code 130, and so does the first one if there is nothing to finish yet. A process that still runs
    when the grace or its time is over prints the reason and ends with exit code 1. Other signals keep their
    handlers, and the handlers of these are restored at the end of the block. A signal that is ignored at the
    start stays ignored: SIGHUP under ``nohup``, and SIGINT in a program that a shell script starts with
    ``&``, so that Ctrl-C ends the script alone. SIGTERM stops such a process.

    Args:
        numbers: the signals; outside of the main thread, which alone receives them, there are only deadlines.
        grace_s: seconds to finish after the first signal.
        leaves_at: when the process ends in any case, on the clock of ``time.monotonic``.
    """

    def __init__(self, numbers: Sequence[int], grace_s: float, leaves_at: float = math.inf) -> None:
        self.leaves_at: float = leaves_at
        """When the process ends in any case, on the clock of ``time.monotonic``; infinity: never."""
        self.signalled_at: float | None = None
        """When the first signal came."""
        self.first: int = 0
        """The number of the first signal."""
        self.grace_s = grace_s
        self._numbers = numbers
        self._finish: Callable[[], None] | None = None
        self._call_soon: CallSoon | None = None
        self._is_announced = False
        self._closed = False
        self._before: dict[int, Any] = {}
        self._fd_before = -1
        self._terminals = [fd for fd in (0, 1, 2) if os.isatty(fd)]

    @property
    def is_out_of_time(self) -> bool:
        """Whether the process ends because its time is over, and not the grace after a signal."""
        return self.signalled_at is None or self.leaves_at < self.signalled_at + self.grace_s

    @abstractmethod
    def overdue(self, *, loop_turns: bool) -> str:
        """The line that is printed last when the grace or the time is over; called in a thread.

        Args:
            loop_turns: whether the event loop answers.
        """

    @abstractmethod
    def interrupted(self) -> str:
        """The line that is printed last when a signal ends the process at once; called in a thread."""

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

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Restore the handlers of the signals. A second call does nothing."""
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
        """Set what a first signal does; called on the event loop of the program.

        Args:
            finish: asks the program to end; called on this event loop at the first signal.
        """
        self._call_soon, self._finish = call_soon_here(), finish

    def announced(self) -> None:
        """The user knows that the program is finishing: the next signal ends it."""
        self._is_announced = True

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
        if number == getattr(signal, "SIGHUP", None):
            self._leave_terminals()
        now = time.monotonic()
        if self._finish is None or self._call_soon is None:
            self._leave(130, self.interrupted)
        elif self.signalled_at is None:
            self.signalled_at, self.first = now, number
            self.leaves_at = min(self.leaves_at, now + self.grace_s)
            self._arm()
            with contextlib.suppress(RuntimeError):  # the event loop has ended, and the program with it
                self._call_soon(self._finish)
        elif now >= self.signalled_at + _ONE_REQUEST_S or (number == self.first and self._is_announced):
            self._leave(130, self.interrupted)

    def _leave_terminals(self) -> None:
        """Redirect output for a terminal that is gone to the null device: writing there would fail."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in self._terminals:
            os.dup2(nowhere, fd)
        os.close(nowhere)

    def _turns(self) -> bool:
        """Whether the event loop answers; True if there is none yet."""
        if self._call_soon is None:
            return True
        answered = threading.Event()
        try:
            self._call_soon(answered.set)
        except RuntimeError:  # it has ended
            return True
        return answered.wait(_ANSWER_S)

    def _leave(self, code: int, last_line: Callable[[], str]) -> None:
        """End the process without waiting for its threads or the disk."""

        def farewell() -> None:
            with contextlib.suppress(OSError, ValueError):  # the terminal is gone
                line = last_line()  # first: closing a live view replaces sys.stderr
                sys.stderr.write(f"{line}\n")
                sys.stdout.flush()
                sys.stderr.flush()

        last = threading.Thread(target=farewell, daemon=True)
        last.start()
        last.join(_FAREWELL_S)
        os._exit(code)

    def _arm(self) -> None:
        """Set a timer that works even while code holds the interpreter lock, which stops this thread."""
        if self.leaves_at < math.inf:
            left_s = max(0.0, self.leaves_at - time.monotonic())
            with contextlib.suppress(OSError):  # standard error is closed: another file may get its number
                os.fstat(2)
                faulthandler.dump_traceback_later(left_s + 1.5 * _FAREWELL_S, exit=True, file=2)


def _received(*_: object) -> None:
    """Nothing: with a handler in Python the system's own, which would end the process, is not taken."""
