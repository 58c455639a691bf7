"""Tables with a line for each of several trainings, on a terminal of any width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

_GAP = 2
_LEFT = ("", "policy", "state")
"""Columns of texts and bars; the others are numbers."""


def fitting_table(
    columns: Mapping[str, int], rows: Sequence[Sequence[RenderableType]], spare: Sequence[str], width: int
) -> Table:
    """A table of whole values: columns that have no room are left out.

    Args:
        columns: with their least widths: they do not move with each number.
        rows: a cell for each column.
        spare: the columns that may be left out, the first one first.
        width: of the terminal.
    """
    needed = {
        name: max(least, len(name), *(len(cell) for row in rows if isinstance(cell := row[at], Text)))
        for at, (name, least) in enumerate(columns.items())
    }
    for name in spare:
        if sum(needed.values()) + _GAP * (len(needed) - 1) <= width:
            break
        del needed[name]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for name, least in needed.items():
        justify = "left" if name in _LEFT else "right"
        table.add_column(name, justify=justify, no_wrap=True, min_width=least)
    shown = [name in needed for name in columns]
    for row in rows:
        table.add_row(*(cell for cell, is_shown in zip(row, shown, strict=True) if is_shown))
    return table
