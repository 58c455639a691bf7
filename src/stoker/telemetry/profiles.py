"""What the parts of a training did within a period: shares of the time, rates and fills.

A profile comes from two readings of the clocks, or from the records of a run's metrics, which hold the same
numbers as ``time/<part>_<state>`` and ``load/<name>``. So a run that has ended, or died, has one too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

PARTS = ("loop", "learner", "inference", "actors", "evaluator", "writer", "checkpoints")
"""The parts that have clocks, beside ``recorder.<name>``: one for each recorder."""
_RATES = ("time/fps", "time/opt_steps_per_sec")
_LOADS = (
    "queue_fill", "queue_capacity", "passes_per_s", "actions_per_pass", "actors", "lock_held", "cpus",
    "other_cpus",
)  # fmt: skip


def clock_of(name: str) -> tuple[str, str] | None:
    """Part and state of a metric ``time/<part>_<state>``; None: it is another one."""
    part, _, state = name.removeprefix("time/").rpartition("_")
    is_clock = name.startswith("time/") and (part in PARTS or part.startswith("recorder."))
    return (part, state) if is_clock else None


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What the parts of a training did within a period. None: not known.

    Attributes:
        seconds: how long the period was.
        shares: by part and state, the share of the part's time; the shares of a part add up to 1.
        steps_per_s: environment steps consumed per second.
        opt_steps_per_s: optimization steps per second.
        queue_fill: how full the event queue was, 0 to 1, on average.
        queue_capacity: how many events it holds.
        passes_per_s: forward passes per second.
        actions_per_pass: how many actions a forward pass chose, on average.
        actors: how many actors were in an episode, on average.
        lock_held: the share of looks from another thread that had to wait for the interpreter lock for a
            whole switch interval.
        cpus: processors in use.
        other_cpus: processors that Python threads used, or were ready to use, which are neither the event
            loop's nor stoker's.
        blocked_in: the function in which the event loop was blocked most often.
        busiest_thread: the thread of ``other_cpus`` that used most.
    """

    seconds: float
    shares: Mapping[str, Mapping[str, float]]
    steps_per_s: float = 0.0
    opt_steps_per_s: float = 0.0
    queue_fill: float | None = None
    queue_capacity: float | None = None
    passes_per_s: float | None = None
    actions_per_pass: float | None = None
    actors: float | None = None
    lock_held: float | None = None
    cpus: float | None = None
    other_cpus: float | None = None
    blocked_in: str = ""
    busiest_thread: str = ""

    def share(self, part: str, *states: str) -> float:
        """The share of the part's time in these states together; 0 where it has no clock."""
        found = self.shares.get(part, {})
        return sum(found.get(state, 0.0) for state in states)

    def metrics(self) -> dict[str, float]:
        """The numbers of a record, by their names there, apart from the rates."""
        shares = {
            f"time/{part}_{state}": share
            for part, found in self.shares.items()
            for state, share in found.items()
        }
        loads = {f"load/{name}": value for name in _LOADS if (value := getattr(self, name)) is not None}
        return {**shares, "load/period_s": self.seconds, **loads}


def profile_between(
    seconds: float,
    spent: tuple[Mapping[str, Mapping[str, float]], Mapping[str, Mapping[str, float]]],
    counts: tuple[Mapping[str, float], Mapping[str, float]],
) -> Profile:
    """The profile of a period.

    Args:
        seconds: how long it was.
        spent: the seconds by part and state before and after it.
        counts: the counters before and after it.
    """
    shares: dict[str, dict[str, float]] = {}
    for part, after in spent[1].items():
        before = spent[0].get(part, {})
        found = {state: max(0.0, total - before.get(state, 0.0)) for state, total in after.items()}
        if (whole := sum(found.values())) > 0:
            shares[part] = {state: value / whole for state, value in found.items()}
    earlier, later = counts
    moved = {name: value - earlier.get(name, 0.0) for name, value in later.items()}
    span = max(seconds, 1e-9)

    def rate(name: str) -> float | None:
        return moved[name] / span if name in moved else None

    def ratio(name: str, per: str) -> float | None:
        return moved[name] / moved[per] if name in moved and moved.get(per) else None

    return Profile(
        seconds=seconds,
        shares=shares,
        steps_per_s=rate("steps") or 0.0,
        opt_steps_per_s=rate("opt_steps") or 0.0,
        queue_fill=ratio("queue_fill", "looks"),
        queue_capacity=later.get("queue_capacity"),
        passes_per_s=rate("passes"),
        actions_per_pass=ratio("actions", "passes"),
        actors=ratio("actors", "looks"),
        lock_held=ratio("held", "looks"),
        cpus=rate("cpu_s"),
        other_cpus=rate("other_cpu_s"),
    )


def profile_of_records(records: Iterable[Mapping[str, Any]]) -> Profile | None:
    """The mean profile of the periods of several records, each weighted by its length.

    Args:
        records: the metrics of each; those without clocks, such as an evaluation's, are passed over.

    Returns:
        None: none of them has clocks.
    """
    found = [record for record in records if "load/period_s" in record]
    whole = sum(record["load/period_s"] for record in found)
    if not found or whole <= 0:
        return None
    shares: dict[str, dict[str, float]] = {}
    weights: dict[str, float] = {}
    for record in found:
        seen: set[str] = set()
        for key, value in record.items():
            if (clock := clock_of(key)) is not None:
                part, state = clock
                states = shares.setdefault(part, {})
                states[state] = states.get(state, 0.0) + value * record["load/period_s"]
                seen.add(part)
        for part in seen:
            weights[part] = weights.get(part, 0.0) + record["load/period_s"]
    shares = {
        part: {state: total / weights[part] for state, total in states.items()}
        for part, states in shares.items()
    }

    def mean(key: str) -> float | None:
        known = [(record[key], record["load/period_s"]) for record in found if key in record]
        length = sum(period for _, period in known)
        return sum(value * period for value, period in known) / length if length else None

    rates = [mean(key) or 0.0 for key in _RATES]
    loads: dict[str, Any] = {name: mean(f"load/{name}") for name in _LOADS}
    return Profile(seconds=whole, shares=shares, steps_per_s=rates[0], opt_steps_per_s=rates[1], **loads)
