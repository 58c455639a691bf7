"""Numbers and times as people read them."""

from __future__ import annotations

import math

__all__ = ["duration", "number", "short"]


def number(value: float | None, digits: int = 1) -> str:
    """A number with thousands separated; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if isinstance(value, int) else f"{value:,.{digits}f}"


def short(value: float) -> str:
    """A number of any magnitude in at most nine characters: ``0.0123``, ``1.2e-07``, ``12.3``."""
    if not math.isfinite(value):
        return "-"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return f"{value:.2e}"


def duration(seconds: float | None) -> str:
    """``0:24``, ``12:05``, ``3:01:59``, ``2d 4:00``; a dash where it is unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
