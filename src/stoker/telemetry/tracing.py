"""A Chrome trace of a training: what each part did over time, for chrome://tracing or ui.perfetto.dev.

Each part is a track of spans, named by the state that took most of them, and a stacked counter with the exact
shares of each window. A window is the time between two readings: a quarter of a second of a running session,
the period of a record in a run's metrics. Within a window the order of states is not known, and not drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from stoker.telemetry.clocks import ClockReading
from stoker.telemetry.profiles import Profile

Window = tuple[float, Profile]
"""When it began, in seconds of any clock, and what happened in it."""


def windows_of(readings: Iterable[ClockReading]) -> list[Window]:
    """The windows between readings, which are in order."""
    return [(before.at, after.since(before)) for before, after in pairwise(readings) if after.at > before.at]


def chrome_trace(windows: Iterable[Window], name: str) -> dict[str, Any]:
    """The trace as JSON has it: Google's "Trace Event Format", times in microseconds.

    Args:
        windows: in order.
        name: of the training.
    """
    found = list(windows)
    parts = list(dict.fromkeys(part for _, profile in found for part in profile.shares))
    events: list[dict[str, Any]] = [_event("M", "process_name", args={"name": f"stoker: {name}"})]
    for number, part in enumerate(parts, 1):
        events.append(_event("M", "thread_name", number, args={"name": part}))
        events += _spans(found, part, number)
    for begun, profile in found:
        for part, shares in profile.shares.items():
            percents = {state: round(100 * share, 2) for state, share in shares.items()}
            events.append(_event("C", f"{part} %", at=begun, args=percents))
        events.append(_event("C", "steps/s", at=begun, args={"steps/s": round(profile.steps_per_s, 2)}))
        if profile.queue_fill is not None:
            events.append(_event("C", "queue %", at=begun, args={"full": round(100 * profile.queue_fill, 2)}))
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _spans(windows: list[Window], part: str, number: int) -> list[dict[str, Any]]:
    """Neighboring windows with the same longest state, as one span each."""
    spans: list[dict[str, Any]] = []
    ended = None
    for begun, profile in windows:
        if not (shares := profile.shares.get(part)):
            continue
        state = max(shares, key=shares.__getitem__)
        share_s = shares[state] * profile.seconds
        is_same = bool(spans) and spans[-1]["name"] == state and ended is not None
        if is_same and abs(begun - (ended or 0.0)) < 0.01:
            spans[-1]["dur"] += 1e6 * profile.seconds
            spans[-1]["args"]["seconds in it"] += share_s
        else:
            args = {"seconds in it": share_s}
            spans.append(_event("X", state, number, begun, args, dur=1e6 * profile.seconds))
        ended = begun + profile.seconds
    return spans


def _event(
    phase: str, name: str, track: int = 0, at: float = 0.0, args: dict[str, Any] | None = None, **more: float
) -> dict[str, Any]:
    return {"ph": phase, "name": name, "pid": 1, "tid": track, "ts": 1e6 * at, "args": args or {}, **more}
