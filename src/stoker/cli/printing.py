"""What commands print for people: ages, sizes, paths, command lines and tables."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import IO, Any

import msgspec
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_UNBOUNDED = 10_000


def ago(then: datetime, now: datetime) -> str:
    """How long ago, in the largest unit: ``now``, ``12s ago``, ``5m ago``, ``3h ago``, ``8d ago``."""
    seconds = int((now - then).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        if seconds >= length:
            return f"{seconds // length}{unit} ago"
    return "now"


def from_here(path: Path | str) -> str:
    """A path as a user types it: relative to the working directory, if it lies below that."""
    here = Path.cwd()
    return str(Path(path).relative_to(here) if Path(path).is_relative_to(here) else path)


def command(words: Sequence[str]) -> str:
    """A command line that can be pasted into a shell."""
    return shlex.join(map(from_here, words))


def columns(names: Sequence[str], *, numbers: Container[int] = (), folds: int = 0) -> Table:
    """An empty table without lines.

    Args:
        names: of the columns; if all are empty, there is no header.
        numbers: the columns that are aligned to the right.
        folds: the column that is wrapped if the table is too wide.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(names), header_style="bold")
    for place, name in enumerate(names):
        side = "right" if place in numbers else "left"
        table.add_column(name, justify=side, no_wrap=place != folds, overflow="fold")
    return table


def counted(n: int, word: str) -> str:
    """``1 run``, ``3 runs``."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def labeled(rows: Mapping[str, str | None]) -> list[str]:
    """The lines below the head of a report: a label and a value each; a value that is None has no line."""
    return [f"  {label:<18} {value}" for label, value in rows.items() if value is not None]


def facts_table(rows: Mapping[str, str]) -> Table:
    """A table of what each text is, and the text; empty texts left out."""
    table = columns(("", ""), folds=1)
    for label, text in rows.items():
        if text:
            table.add_row(Text(label, style="cyan"), Text(text))
    return table


def note(text: str) -> None:
    """Print a line for people, beside the results."""
    print(text, file=sys.stderr, flush=True)


def output() -> Console:
    """Standard output; if it is not a terminal, no line is too long."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _UNBOUNDED
    return console


def say_json(facts: Mapping[str, Any]) -> None:
    """Print one line of JSON, for scripts; structs are objects of their fields."""
    print(json.dumps(msgspec.to_builtins(facts)))


def say(what: RenderableType = "", file: IO[str] | None = None) -> None:
    """Print something that rich can draw, to standard output or that file; no line ends in spaces."""
    console = output()
    lines = _aligned(what, console) if isinstance(what, Table) else None
    for line in _drawn(what, console).splitlines() if lines is None else lines:
        print(line.rstrip(), file=file)


def _drawn(what: RenderableType, console: Console) -> str:
    with console.capture() as drawn:
        console.print(what)
    return drawn.get()


def _aligned(table: Table, console: Console) -> list[str] | None:
    """The lines of a table of ``columns``; None: rich has to draw it, because it is wider than the screen.

    Rich takes half a second for a thousand rows, because it looks for line breaks in each cell.
    """

    @cache
    def drawn(text: str, style: Any) -> str:
        return _drawn(Text(text, style=style), console).removesuffix("\n") if style else text

    parts: list[list[str]] = []
    n_wide = 0
    for column in table.columns:
        cells = [cell if isinstance(cell, Text) else Text(str(cell)) for cell in column.cells]
        if table.show_header:
            cells.insert(0, Text(str(column.header), table.header_style))
        if not all(cell.plain.isprintable() for cell in cells):
            return None
        widths = [cell_len(cell.plain) for cell in cells]
        width = max(widths, default=0)
        spaces = (" " * (width - one) for one in widths)
        texts = (drawn(cell.plain, cell.style) for cell in cells)
        is_right = column.justify == "right"
        parts.append(
            [pad + text if is_right else text + pad for pad, text in zip(spaces, texts, strict=True)]
        )
        n_wide += width + 2
    return None if n_wide - 2 > console.width else ["  ".join(row) for row in zip(*parts, strict=True)]
