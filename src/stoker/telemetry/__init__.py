"""Where the time of a training goes: state clocks of its parts, profiles of a period, and what limits it."""

from stoker.telemetry.clocks import ClockReading, Clocks, StateClock, TimeTally
from stoker.telemetry.explaining import Explanation, explained
from stoker.telemetry.findings import Finding
from stoker.telemetry.opentelemetry import Spans, span_of, spans_here, traced
from stoker.telemetry.profiles import Profile, profile_of_records
from stoker.telemetry.reading import Buckets, NodeReading, ServiceCounts, TrainingReading
from stoker.telemetry.sampling import Sampler
from stoker.telemetry.tracing import Window, chrome_trace, windows_of

__all__ = [
    "Buckets",
    "ClockReading",
    "Clocks",
    "Explanation",
    "Finding",
    "NodeReading",
    "Profile",
    "Sampler",
    "ServiceCounts",
    "Spans",
    "StateClock",
    "TimeTally",
    "TrainingReading",
    "Window",
    "chrome_trace",
    "explained",
    "profile_of_records",
    "span_of",
    "spans_here",
    "traced",
    "windows_of",
]
