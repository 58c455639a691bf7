"""Text for the views and the command line: numbers and times, and curves made of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.-=+*%#"
# The bit of each dot in a braille character, by row and column: Unicode block U+2800.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """The values, resampled to at most ``width`` characters, from the lowest to the highest block."""
    known = np.array([value for value in values if math.isfinite(value)])
    if not len(known) or width < 1:
        return ""
    points = _resampled(np.arange(len(known)), known, min(width, len(known)))
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    low, span = points.min(), np.ptp(points)
    places = (points - low) / span * (len(blocks) - 1) + 0.5 if span else np.full(len(points), 3)
    return "".join(blocks[int(place)] for place in places)


def chart(xs: ArrayLike, ys: ArrayLike, width: int, height: int, *, ascii_only: bool = False) -> list[str]:
    """A line chart with labelled ends of its axes: ``height`` lines, the x axis and its labels.

    Args:
        xs: ascending.
        ys: one for each x; those that are not finite are left out.
        width: in characters, with the labels.
        height: in lines.
        ascii_only: use no characters beyond ASCII.
    """
    xs, ys = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
    known = np.isfinite(ys)
    low, high = (ys[known].min(), ys[known].max()) if known.any() else (0.0, 0.0)
    margin = max(len(short(low)), len(short(high))) + 2
    columns = max(8, width - margin)
    across, down = (1, 1) if ascii_only else (2, 4)
    heights = _resampled(xs[known], ys[known], columns * across)
    span, top = high - low, height * down - 1
    rows = np.rint((high - heights) / span * top) if span else np.full(len(heights), top // 2)
    canvas = [[0] * columns for _ in range(height)]
    before: int | None = None
    for x, row in enumerate(rows.astype(int)):
        # The line between two neighbors is drawn in the second one's column.
        start = row if before is None else before + np.sign(row - before)
        for y in range(min(start, row), max(start, row) + 1):
            canvas[y // down][x // across] |= _DOTS[y % down][x % across]
        before = row
    bar, line, corner, floor = ("|", "|", "+", "-") if ascii_only else ("┤", "│", "└", "─")
    labels = [short(high), *[""] * (height - 2), short(low)] if height > 1 else [short(high)]
    lines: list[str] = []
    for label, cells in zip(labels, canvas, strict=True):
        drawn = "".join(("*" if ascii_only else chr(0x2800 + dots)) if dots else " " for dots in cells)
        lines.append(f"{label:>{margin - 2}} {bar if label else line}{drawn.rstrip()}")
    lines.append(" " * (margin - 1) + corner + floor * columns)
    first, last = (f"{xs[0]:,.0f}", f"{xs[-1]:,.0f}") if len(xs) else ("", "")
    lines.append(" " * margin + first + last.rjust(columns - len(first)))
    return lines


def _resampled(xs: NDArray[Any], ys: NDArray[Any], n_bins: int) -> NDArray[np.float64]:
    """The mean of the values in each of equally wide bins, with straight lines across empty bins."""
    if not len(xs):
        return np.empty(0)
    places = ((xs - xs[0]) / ((xs[-1] - xs[0]) or 1) * n_bins).astype(int).clip(max=n_bins - 1)
    counts, sums = np.bincount(places), np.bincount(places, ys)
    known = counts.nonzero()[0]
    return np.interp(np.arange(len(counts)), known, sums[known] / counts[known])


def number(value: float | None, digits: int = 1) -> str:
    """A number with thousands separated; a dash for None and numbers that are not finite."""
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
    """``0:24``, ``12:05``, ``3:01:59``, ``2d 4:00``; a dash for an unknown one."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
