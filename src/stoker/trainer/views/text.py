"""Text for the views and the command line: numbers and times, and curves made of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["chart", "duration", "number", "short", "sparkline"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.-=+*%#"
# The bit of each dot in a braille character, by row and column: Unicode block U+2800.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """The values, resampled to at most ``width`` characters, from the lowest to the highest block."""
    known = [value for value in values if math.isfinite(value)]
    if not known or width < 1:
        return ""
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    bins = _binned(range(len(known)), known, min(width, len(known)))
    points = [value for value in bins if value is not None]
    low, high = min(points), max(points)
    span = high - low
    return "".join(blocks[int((v - low) / span * (len(blocks) - 1) + 0.5) if span else 3] for v in points)


def chart(
    xs: Sequence[float], ys: Sequence[float], width: int, height: int, *, ascii_only: bool = False
) -> list[str]:
    """A line chart with labelled ends of its axes: ``height`` lines, the x axis and its labels.

    Args:
        xs: ascending.
        ys: one for each x; those that are not finite are left out.
        width: in characters, with the labels.
        height: in lines.
        ascii_only: use no characters beyond ASCII.
    """
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    low = min((y for _, y in points), default=0.0)
    high = max((y for _, y in points), default=0.0)
    margin = max(len(short(low)), len(short(high))) + 2
    columns = max(8, width - margin)
    across, down = (1, 1) if ascii_only else (2, 4)
    heights = _joined(_binned([x for x, _ in points], [y for _, y in points], columns * across))
    span, top = high - low, height * down - 1
    rows = [None if y is None else round((high - y) / span * top) if span else top // 2 for y in heights]
    canvas = [[0] * columns for _ in range(height)]
    before: int | None = None
    for x, row in enumerate(rows):
        if row is None:
            continue
        # The line between two neighbors is drawn in the second one's column.
        start = row if before is None or abs(before - row) <= 1 else before + (1 if row > before else -1)
        for y in range(min(start, row), max(start, row) + 1):
            canvas[y // down][x // across] |= 1 if ascii_only else _DOTS[y % 4][x % 2]
        before = row
    drawn = [
        "".join(
            ("*" if bits else " ") if ascii_only else chr(0x2800 + bits) if bits else " " for bits in line
        )
        for line in canvas
    ]
    bar, corner, floor = ("|", "+", "-") if ascii_only else ("┤", "└", "─")
    labels = [short(high), *[""] * (height - 2), short(low)] if height > 1 else [short(high)]
    lines = [
        f"{label:>{margin - 2}} {bar if label else '|' if ascii_only else '│'}{line.rstrip()}"
        for label, line in zip(labels, drawn, strict=True)
    ]
    lines.append(" " * (margin - 1) + corner + floor * columns)
    first, last = (f"{xs[0]:,.0f}", f"{xs[-1]:,.0f}") if len(xs) else ("", "")
    lines.append(" " * margin + first + last.rjust(columns - len(first)))
    return lines


def _binned(xs: Sequence[float], ys: Sequence[float], bins: int) -> list[float | None]:
    """The mean of the values in each of equally wide bins; None for an empty bin."""
    sums, counts = [0.0] * bins, [0] * bins
    if not len(xs):
        return [None] * bins
    first, span = xs[0], (xs[-1] - xs[0]) or 1
    for x, y in zip(xs, ys, strict=True):
        index = min(bins - 1, int((x - first) / span * bins))
        sums[index] += y
        counts[index] += 1
    return [total / count if count else None for total, count in zip(sums, counts, strict=True)]


def _joined(values: list[float | None]) -> list[float | None]:
    """The values with straight lines across the gaps."""
    joined = list(values)
    before: int | None = None
    for i, value in enumerate(values):
        if value is None:
            continue
        if before is not None and (left := values[before]) is not None:
            for gap in range(before + 1, i):
                joined[gap] = left + (value - left) * (gap - before) / (i - before)
        before = i
    return joined


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
