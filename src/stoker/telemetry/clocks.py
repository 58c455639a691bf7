"""State clocks: in which state each part of a training is, and for how long it was in each.

A clock is always in exactly one of its states, so the shares of the states add up to all of the time: none is
unaccounted. A change is one read of the system's clock. Clocks count from the beginning; what happened within
a period is the difference of two readings, so that any number of readers can look at them at any time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import NamedTuple, Protocol

import msgspec

from stoker.telemetry.profiles import Profile, profile_between

HISTORY_S = 60.0
"""How long the readings of ``Clocks.note`` are kept."""


class Timed(Protocol):
    """Anything that knows how long it was in each of its states."""

    @property
    def states(self) -> Sequence[str]:
        """The names of the states."""
        ...

    def totals_ns(self) -> list[int]:
        """The nanoseconds so far in each state; from any thread."""
        ...


class StateClock:
    """One part's clock. One thread at a time changes the state; any thread may read.

    Args:
        states: the names of the states, words without an underscore. They are entered by their indices.
        is_running: whether it begins in the first state; if not, it counts from the first ``enter`` on.
    """

    __slots__ = ("_began", "_since", "_state", "_totals", "states")

    def __init__(self, states: Sequence[str], *, is_running: bool = True) -> None:
        self.states: Sequence[str] = states
        self._totals = [0] * (len(states) + 1)  # the last one: stopped
        self._state = 0 if is_running else len(states)
        self._began = self._since = perf_counter_ns()

    @property
    def state(self) -> int:
        """The index of the present state; that behind the last one: the clock is stopped."""
        return self._state

    def enter(self, state: int) -> int:
        """Be in this state from now on; return now, in nanoseconds of ``time.perf_counter_ns``."""
        now = perf_counter_ns()
        self._totals[self._state] += now - self._since
        self._since = now
        self._state = state
        return now

    def stop(self) -> None:
        """Count no more, until a state is entered again."""
        self.enter(len(self.states))

    def totals_ns(self) -> list[int]:
        """The nanoseconds so far in each state, the present one included."""
        state = self._state  # first: should the state change before the copy, the time up to then is in that
        totals = self._totals.copy()
        totals[state] += perf_counter_ns() - self._began - sum(totals)
        return totals[:-1]

    def seconds(self, *states: int) -> float:
        """The seconds so far in these states together."""
        totals = self.totals_ns()
        return sum(totals[state] for state in states) / 1e9


class TimeTally:
    """The same of a part that is timed elsewhere, and reports now and then.

    Args:
        states: the names of the states.
    """

    def __init__(self, states: Sequence[str]) -> None:
        self.states = states
        self._before, self._present = [0.0] * len(states), [0.0] * len(states)

    def report(self, seconds: Sequence[float]) -> None:
        """Take the seconds in each state since the part started last."""
        self._present = list(seconds)

    def restart(self) -> None:
        """The part starts again, and with it what it reports."""
        self._before = self.seconds()
        self._present = [0.0] * len(self.states)

    def seconds(self) -> list[float]:
        """The seconds so far in each state."""
        return [before + present for before, present in zip(self._before, self._present, strict=True)]

    def totals_ns(self) -> list[int]:
        """The nanoseconds so far in each state."""
        return [int(seconds * 1e9) for seconds in self.seconds()]


class ClockReading(msgspec.Struct, frozen=True):
    """What all clocks showed at one moment.

    Attributes:
        at: in seconds of ``time.perf_counter``.
        seconds: by part and state, so far; a part of several clocks is their sum.
        counts: the counters of the training, by name.
    """

    at: float
    seconds: Mapping[str, Mapping[str, float]]
    counts: Mapping[str, float]

    def since(self, earlier: ClockReading) -> Profile:
        """What happened in between."""
        return profile_between(
            self.at - earlier.at, (earlier.seconds, self.seconds), (earlier.counts, self.counts)
        )


class _Part(NamedTuple):
    """The clocks of a part, and the seconds by state of those that were retired; replaced as one."""

    timed: tuple[Timed, ...] = ()
    ended: Mapping[str, float] = {}

    def seconds(self) -> dict[str, float]:
        found = dict(self.ended)
        for one in self.timed:
            _add(found, one)
        return found


class Clocks:
    """The clocks and counters of one training. Safe for several threads."""

    def __init__(self) -> None:
        self._parts: dict[str, _Part] = {}
        self._counts: dict[str, Callable[[], float]] = {}
        self._history: deque[ClockReading] = deque()
        self._lock = threading.Lock()

    def add(self, part: str, *timed: Timed) -> None:
        """Read these clocks as this part, from now on."""
        with self._lock:
            before = self._parts.get(part, _Part())
            self._parts[part] = before._replace(timed=(*before.timed, *timed))

    def retire(self, part: str, timed: Timed) -> None:
        """Keep what a clock of this part has counted, and read it no more."""
        with self._lock:
            before = self._parts[part]
            ended = dict(before.ended)
            _add(ended, timed)
            self._parts[part] = _Part(tuple(one for one in before.timed if one is not timed), ended)

    def count(self, **counts: Callable[[], float]) -> None:
        """Read these counters, by their names."""
        self._counts |= counts

    def read(self) -> ClockReading:
        """What they show now."""
        seconds = {part: found.seconds() for part, found in list(self._parts.items())}
        counts = {name: float(count()) for name, count in list(self._counts.items())}
        return ClockReading(time.perf_counter(), seconds, counts)

    def note(self) -> None:
        """Take a reading into the history of the last minute."""
        history = self._history
        history.append(self.read())
        while history[-1].at - history[0].at > HISTORY_S:
            history.popleft()

    def history(self) -> list[ClockReading]:
        """The readings that were noted in the last minute, in order."""
        return list(self._history)


def _add(found: dict[str, float], timed: Timed) -> None:
    for state, total in zip(timed.states, timed.totals_ns(), strict=True):
        found[state] = found.get(state, 0.0) + total / 1e9
