"""Where the time of a training goes: state clocks of its parts, profiles of a period, and what follows."""

from stoker.telemetry.clocks import ClockReading, Clocks, StateClock, TimeTally
from stoker.telemetry.profiles import Profile, profile_of_records
from stoker.telemetry.sampling import Sampler

__all__ = [
    "ClockReading",
    "Clocks",
    "Profile",
    "Sampler",
    "StateClock",
    "TimeTally",
    "profile_of_records",
]
