"""What the last minute of a session's clocks says: the part that limits it, and a trace."""

from __future__ import annotations

from operator import methodcaller
from pathlib import Path

import msgspec

from stoker.session.parts import Parts
from stoker.telemetry import ClockReading, Explanation, chrome_trace, explained, windows_of
from stoker.writer import files

__all__ = ["explanation_of", "write_trace_of"]


def explanation_of(parts: Parts, seconds: float) -> Explanation:
    """Explain the last seconds, from the nearest reading before them if there is one."""
    readings = _readings(parts)
    last = readings[-1]
    first = next((one for one in reversed(readings[:-1]) if one.at <= last.at - seconds), readings[0])
    profile = last.since(first)
    if (sampler := parts.sampler) is not None:
        seen = {"blocked_in": sampler.blocked_in, "busiest_thread": sampler.busiest_thread}
        profile = msgspec.structs.replace(profile, **seen)
    return explained(profile, offline=parts.config.offline)


def write_trace_of(parts: Parts, path: Path) -> None:
    """Write the trace of the last minute."""
    name = "training" if parts.run is None else parts.run.metadata.name
    trace = msgspec.json.encode(chrome_trace(windows_of(_readings(parts)), name))
    files.put_in_place(path, methodcaller("write", trace))


def _readings(parts: Parts) -> list[ClockReading]:
    """Those of the last minute, up to now or to the end."""
    clocks = parts.learner.metrics.clocks
    return [*clocks.history(), *([] if parts.ended_at else [clocks.read()])]
