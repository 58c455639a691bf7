"""The event loop's clock, and what else only a look from outside can tell.

An event loop cannot be asked for what it does: uvloop and asyncio have no hooks around their waiting. Its
processor time is exact, though, and asked for from any thread. What is left of the time it spends either in
the system's wait for events, or in a call that keeps it from there: blocking, or waiting for the interpreter
lock. A thread looks at its uppermost frame some 25 times a second, and shares the rest out between these two.

The same thread sees how long it has to wait for the interpreter lock itself. While some other thread holds
the lock all the time, each look takes a whole switch interval (``sys.getswitchinterval``).
"""

from __future__ import annotations

import inspect
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

from stoker.telemetry.clocks import HISTORY_S, Clocks

__all__ = ["LOOP_STATES", "Sampler"]

LOOP_STATES = ("waiting", "running", "blocked")
_INTERVAL_S = 0.04
_NOTES_S = 0.25
_THREADS_S = 1.0
_WAITS = {("select", "selectors.py"), ("get_events", "_io_epoll.py"), ("get_events", "_io_kqueue.py")}
"""Functions and files in which asyncio and trio wait for events."""
_OWN = ("stoker-", "env of ", "evaluation env ")
_COROUTINE = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


class Sampler:
    """Looks at the event loop on which it is constructed, from a thread, between ``start`` and ``stop``.

    Args:
        clocks: get the ``loop`` as a part, and a note of all clocks now and then.
        fill: how full the event queue is, 0 to 1; sampled at each look.
    """

    def __init__(self, clocks: Clocks, fill: Callable[[], float]) -> None:
        self.states = LOOP_STATES
        self._clocks = clocks
        self._fill = fill
        self._ended = threading.Event()
        self._loop_thread = threading.get_ident()
        self._loop_native = threading.get_native_id()
        self._base = _base_of(inspect.currentframe())
        # Of this thread, once and for all: asked for later, the thread might be gone.
        has_clock = hasattr(time, "pthread_getcpuclockid")
        self._cpu_clock = time.pthread_getcpuclockid(self._loop_thread) if has_clock else None
        self._totals = [0, 0, 0]
        self._looks = self._held = 0
        self._fills = self._other_cpu_s = 0.0
        self._cpu_by_thread: dict[tuple[int, str], float] = {}
        self._blocked: deque[tuple[float, str]] = deque()
        clocks.add("loop", self)
        clocks.count(
            looks=lambda: self._looks,
            held=lambda: self._held,
            queue_fill=lambda: self._fills,
            cpu_s=time.process_time,
        )
        if Path("/proc/self/task").exists():  # Linux
            clocks.count(other_cpu_s=lambda: self._other_cpu_s)

    def totals_ns(self) -> list[int]:
        """The nanoseconds until the last look in which the event loop waited, ran, and was blocked."""
        return self._totals.copy()

    @property
    def blocked_in(self) -> str:
        """Where the event loop was blocked most often in the last minute; empty: it was not seen blocked."""
        common = Counter(where for _, where in list(self._blocked)).most_common(1)
        return common[0][0] if common else ""

    @property
    def busiest_thread(self) -> str:
        """The foreign Python thread that has used most processor time; empty: there is none."""
        found = {name: spent for (_, name), spent in list(self._cpu_by_thread.items())}
        return max(found, key=found.__getitem__, default="")

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="stoker-sampler", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def _run(self) -> None:
        switch_s = 0.9 * sys.getswitchinterval()
        jitter = random.Random(0)  # noqa: S311 - only so that nothing periodic is always met at the same place
        looked_at = time.perf_counter()
        cpu_before = self._loop_cpu_s()
        noted_at = threads_at = looked_at
        self._read_threads(is_first=True)
        while True:
            delay_s = _INTERVAL_S * jitter.uniform(0.5, 1.5)
            due_at = time.perf_counter() + delay_s
            if self._ended.wait(delay_s):
                return
            now, cpu_now = time.perf_counter(), self._loop_cpu_s()
            self._held += now - due_at > switch_s
            self._looks += 1
            self._fills += self._fill()
            passed_s = now - looked_at
            ran_s = (
                0.0
                if cpu_now is None or cpu_before is None
                else min(passed_s, max(0.0, cpu_now - cpu_before))
            )
            self._share_out(now, passed_s, ran_s)
            looked_at, cpu_before = now, cpu_now
            if now - threads_at >= _THREADS_S:
                self._read_threads()
                threads_at = now
            if now - noted_at >= _NOTES_S:
                self._clocks.note()
                noted_at = now

    def _share_out(self, now: float, passed_s: float, ran_s: float) -> None:
        # Documented, and the only way to see another thread.
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        rest = int((passed_s - ran_s) * 1e9)
        self._totals[1] += int(ran_s * 1e9)
        if frame is None or self._is_waiting(frame.f_code):
            self._totals[0] += rest
        elif self._cpu_clock is None:
            self._totals[1] += rest
        else:
            self._totals[2] += rest
            if rest > 0.5e9 * passed_s:
                self._blocked.append((now, _named(frame)))
        while self._blocked and now - self._blocked[0][0] > HISTORY_S:
            self._blocked.popleft()

    def _is_waiting(self, code: CodeType) -> bool:
        return code is self._base or (code.co_name, code.co_filename.rpartition("/")[2]) in _WAITS

    def _loop_cpu_s(self) -> float | None:
        if self._cpu_clock is None:
            return None
        try:
            return time.clock_gettime(self._cpu_clock)
        except OSError:  # the thread of the event loop has ended
            return None

    def _read_threads(self, *, is_first: bool = False) -> None:
        """Sum up the processor time of Python's threads, without the event loop's and stoker's own."""
        for thread in threading.enumerate():
            native = thread.native_id
            is_main = thread is threading.main_thread()  # without the event loop it plays on a sync session
            if native is None or native == self._loop_native or is_main or thread.name.startswith(_OWN):
                continue
            try:
                spent_ns = int(Path(f"/proc/self/task/{native}/schedstat").read_bytes().split()[0])
            except (OSError, IndexError):  # it has ended, or this is not Linux
                continue
            key = (native, thread.name)
            before_s = self._cpu_by_thread.get(key, spent_ns / 1e9 if is_first else 0.0)
            self._other_cpu_s += spent_ns / 1e9 - before_s
            self._cpu_by_thread[key] = spent_ns / 1e9


def _base_of(frame: FrameType | None) -> CodeType | None:
    """The function that runs the event loop, as far as it is Python: uvloop waits without a frame of its own.

    Args:
        frame: of a function that a coroutine has called.
    """
    while frame is not None and not frame.f_code.co_flags & _COROUTINE:
        frame = frame.f_back
    while frame is not None and frame.f_code.co_flags & _COROUTINE:
        frame = frame.f_back
    code = None if frame is None else frame.f_code
    # asyncio's Handle._run runs something; its waiting has a frame.
    is_asyncio = code is not None and code.co_filename.endswith("/events.py")
    return None if is_asyncio else code


def _named(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_qualname} ({Path(code.co_filename).name}:{frame.f_lineno})"
