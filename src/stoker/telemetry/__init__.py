"""Where the time of a training goes: state clocks of its parts, profiles of a period, and what limits it."""

from stoker.telemetry.clocks import ClockReading, Clocks, StateClock, TimeTally
from stoker.telemetry.explaining import Explanation, explained
from stoker.telemetry.findings import Finding
from stoker.telemetry.profiles import Profile, profile_of_records
from stoker.telemetry.sampling import Sampler
from stoker.telemetry.tracing import Window, chrome_trace, windows_of

__all__ = [
    "ClockReading",
    "Clocks",
    "Explanation",
    "Finding",
    "Profile",
    "Sampler",
    "StateClock",
    "TimeTally",
    "Window",
    "chrome_trace",
    "explained",
    "profile_of_records",
    "windows_of",
]
