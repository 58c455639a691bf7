"""The event loop's clock, and what else only a look from outside can tell.

An event loop cannot be asked what it does: uvloop has no hooks around its waiting. But the system knows how
long its thread has run, and on Linux how long it was ready to run and got no processor. The rest of the time
it waits for events, or in a call that keeps it from there: blocking, or waiting for the interpreter lock. A
thread looks at its stack some 16 times a second, and shares the rest out between these two.

The same thread sees how long it has to wait for the interpreter lock itself. While some other thread holds
the lock all the time, each look takes a whole switch interval (``sys.getswitchinterval``).
"""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from types import CodeType, FrameType

from stoker.telemetry.clocks import HISTORY_S, Clocks
from stoker.telemetry.frames import frame_of
from stoker.threads import on_asyncio

LOOP_STATES = ("waiting", "running", "starved", "blocked")
"""Waiting for events; running; ready to run, without a processor; in a call that waits, or for the lock."""
_INTERVAL_S = 0.06
_NOTES_S = 0.25
_THREADS_S = 1.0
_CALLBACK = asyncio.Handle._run.__code__  # noqa: SLF001  # pyright: ignore
_OWN = ("stoker-", "env of ", "evaluation env ")
_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Sampler:
    """Looks at the event loop on which it is constructed, from a thread, between ``start`` and ``stop``.

    Args:
        clocks: get the ``loop`` as a part, and a note of all clocks now and then.
        gauges: numbers to be read at each look; their sums are counters of these names.
    """

    def __init__(self, clocks: Clocks, **gauges: Callable[[], float]) -> None:
        self.states = LOOP_STATES
        self._clocks = clocks
        self._gauges = gauges
        self._is_over = False
        self._loop_thread = threading.get_ident()
        self._loop_scheduling = _Scheduling(threading.get_native_id())
        self._base = _base_of(inspect.currentframe())
        # Of this thread, once and for all: asked for later, the thread might be gone.
        has_clock = hasattr(time, "pthread_getcpuclockid")
        self._cpu_clock = time.pthread_getcpuclockid(self._loop_thread) if has_clock else None
        self._totals = [0, 0, 0, 0]
        self._looks = self._held = 0
        self._other_cpu_s = 0.0
        self._sums = dict.fromkeys(gauges, 0.0)
        self._cpu_by_thread: dict[tuple[int, str], float] = {}
        self._used: deque[tuple[float, str, float]] = deque()
        self._blocked: deque[tuple[float, str]] = deque()
        clocks.add("loop", self)
        clocks.count(
            looks=lambda: self._looks,
            held=lambda: self._held,
            cpu_s=time.process_time,
        )
        clocks.count(**{name: partial(self._sums.__getitem__, name) for name in gauges})
        if Path("/proc/self/task").exists():  # Linux
            clocks.count(other_cpu_s=lambda: self._other_cpu_s)

    def totals_ns(self) -> list[int]:
        """The nanoseconds until the last look in each of the states."""
        return self._totals.copy()

    @property
    def blocked_in(self) -> str:
        """Where the event loop was blocked most often in the last minute; empty: it was not seen blocked."""
        common = Counter(where for _, where in list(self._blocked)).most_common(1)
        return common[0][0] if common else ""

    @property
    def busiest_thread(self) -> str:
        """The foreign Python thread that used most processor time in the last minute; empty: none did."""
        found: dict[str, float] = {}
        for _, name, used_s in list(self._used):
            found[name] = found.get(name, 0.0) + used_s
        return max(found, key=found.__getitem__, default="")

    def start(self) -> None:
        """Begin to look."""
        self._clocks.note()
        threading.Thread(target=self._run, name="stoker-sampler", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._is_over = True
        self._clocks.note()

    def _run(self) -> None:
        with closing(_Scheduling(threading.get_native_id())) as mine, closing(self._loop_scheduling):
            self._look(mine)

    def _look(self, mine: _Scheduling) -> None:
        """Look at the event loop until ``stop``, from a thread whose scheduling this is."""
        switch_s = 0.9 * sys.getswitchinterval()
        jitter = random.Random(0)  # noqa: S311 - only so that nothing periodic is always met at the same place
        starved_before_s = mine.read()[1]
        looked_at, before = time.perf_counter(), self._times_of_loop()
        noted_at = threads_at = looked_at
        self._read_threads(looked_at, is_first=True)
        while True:
            delay_s = _INTERVAL_S * jitter.uniform(0.5, 1.5)
            due_at = time.perf_counter() + delay_s
            time.sleep(delay_s)
            if self._is_over:
                return
            now, times, starved_s = time.perf_counter(), self._times_of_loop(), mine.read()[1]
            self._held += now - due_at - (starved_s - starved_before_s) > switch_s
            starved_before_s = starved_s
            self._looks += 1
            for name, gauge in self._gauges.items():
                self._sums[name] += gauge()
            loop_ran_s, loop_starved_s = (max(0.0, new - old) for new, old in zip(times, before, strict=True))
            self._share_out(now, now - looked_at, loop_ran_s, loop_starved_s)
            looked_at, before = now, times
            if now - threads_at >= _THREADS_S:
                self._read_threads(now)
                threads_at = now
            if now - noted_at >= _NOTES_S:
                self._clocks.note()
                noted_at = now

    def _share_out(self, now: float, passed_s: float, ran_s: float, starved_s: float) -> None:
        frame = frame_of(self._loop_thread)
        ran_s = min(ran_s, passed_s)
        starved_s = min(starved_s, passed_s - ran_s)
        rest_s = passed_s - ran_s - starved_s
        waits, has_times = self._waits(frame), self._cpu_clock is not None
        # Where the system does not say how long it ran, what is no waiting counts as running.
        in_rest = 0 if waits else 3 if has_times else 1
        for state, seconds in ((1, ran_s), (2, starved_s), (in_rest, rest_s)):
            self._totals[state] += int(seconds * 1e9)
        if frame is not None and in_rest == 3 and rest_s > 0.5 * passed_s:
            self._blocked.append((now, _named(frame)))
        while self._blocked and now - self._blocked[0][0] > HISTORY_S:
            self._blocked.popleft()

    def _waits(self, frame: FrameType | None) -> bool:
        """Whether it runs no task and no callback."""
        if self._base is not None:
            return frame is None or frame.f_code is self._base
        while frame is not None:
            if frame.f_code.co_flags & _COROUTINE or frame.f_code is _CALLBACK:
                return False
            frame = frame.f_back
        return True

    def _times_of_loop(self) -> tuple[float, float]:
        """The seconds that its thread has run, and that it was ready to run without a processor."""
        if self._cpu_clock is None:
            return 0.0, 0.0
        try:
            return time.clock_gettime(self._cpu_clock), self._loop_scheduling.read()[1]
        except OSError:  # the thread of the event loop has ended
            return 0.0, 0.0

    def _read_threads(self, now: float, *, is_first: bool = False) -> None:
        """Sum up what threads ran or were ready to run, without the event loop's and stoker's own."""
        before, self._cpu_by_thread = self._cpu_by_thread, {}
        for thread in threading.enumerate():
            native = thread.native_id
            is_loop = thread.ident == self._loop_thread
            is_main = thread is threading.main_thread()  # without the event loop it plays on a sync session
            if native is None or is_loop or is_main or thread.name.startswith(_OWN):
                continue
            with closing(_Scheduling(native)) as scheduling:
                spent_s = sum(scheduling.read())
            key = (native, thread.name)
            self._cpu_by_thread[key] = spent_s
            used_s = spent_s - before.get(key, spent_s if is_first else 0.0)
            if used_s > 0.0:
                self._other_cpu_s += used_s
                self._used.append((now, thread.name, used_s))
        while self._used and now - self._used[0][0] > HISTORY_S:
            self._used.popleft()


class _Scheduling:
    """What the system says of a thread; the file stays open, because each look reads it."""

    def __init__(self, native_id: int) -> None:
        self._file: int | None = None
        with suppress(OSError):  # it has ended, or this is not Linux
            self._file = os.open(f"/proc/self/task/{native_id}/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> tuple[float, float]:
        """The seconds that it has run and waited for a processor; zeros if the system does not say."""
        if self._file is None:
            return 0.0, 0.0
        try:
            ran, waited, _ = os.pread(self._file, 80, 0).split()
        except OSError:  # it has ended
            return 0.0, 0.0
        return int(ran) / 1e9, int(waited) / 1e9

    def close(self) -> None:
        """Close the file; from then on the system says nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _base_of(frame: FrameType | None) -> CodeType | None:
    """The function that runs the event loop, on uvloop, which has no Python frames; else None.

    Args:
        frame: of a function that a coroutine has called.
    """
    if not on_asyncio() or not type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        return None
    while frame is not None and not frame.f_code.co_flags & _COROUTINE:
        frame = frame.f_back
    while frame is not None and frame.f_code.co_flags & _COROUTINE:
        frame = frame.f_back
    return None if frame is None else frame.f_code


def _named(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_qualname} ({Path(code.co_filename).name}:{frame.f_lineno})"
