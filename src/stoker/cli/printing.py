"""What commands print for people: ages, sizes, paths, command lines and tables."""

from __future__ import annotations

import json
import shlex
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console, RenderableType
from rich.filesize import decimal as size
from rich.table import Table

__all__ = ["ago", "columns", "command", "from_here", "output", "say", "say_json", "size"]

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


def output() -> Console:
    """Standard output; if it is not a terminal, no line is too long."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _UNBOUNDED
    return console


def say_json(facts: Mapping[str, Any]) -> None:
    """Print one line of JSON, for scripts; structs are objects of their fields."""
    print(json.dumps(msgspec.to_builtins(facts)))


def say(what: RenderableType = "") -> None:
    """Print something that rich can draw; no line ends in spaces."""
    console = output()
    with console.capture() as drawn:
        console.print(what)
    for line in drawn.get().splitlines():
        print(line.rstrip())
