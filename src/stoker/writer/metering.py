"""How many bytes reach files, while they do."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar


class Meter:
    """Counts bytes as they reach files; read from any thread."""

    def __init__(self) -> None:
        self.n_bytes = 0


_meter: ContextVar[Meter | None] = ContextVar("stoker_meter", default=None)


def metered(meter: Meter, work: Callable[[], object]) -> None:
    """Call the function and count what it writes with ``files.write_atomically``."""
    token = _meter.set(meter)
    try:
        work()
    finally:
        _meter.reset(token)


def meter_here() -> Meter:
    """The meter of the ``metered`` call that runs here; a new one outside of these."""
    return _meter.get() or Meter()
