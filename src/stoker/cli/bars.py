"""Progress of a command that does many things: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_EVERY_S = 2.0
"""Seconds between two lines."""


class StepBar:
    """Shows on standard error how many steps were done; may be called in another thread.

    Args:
        verb: what is done with the steps, such as ``exported``.
        total: how many there are; None: unknown.
        shown: False: show nothing.
        unit: what is counted.
    """

    def __init__(self, verb: str, total: int | None, *, shown: bool = True, unit: str = "steps") -> None:
        self._verb, self._total, self._unit = verb, total, unit
        console = Console(stderr=True)
        is_live = shown and console.is_terminal and not console.is_dumb_terminal
        self._live: Progress | None = None
        if is_live:
            columns = (TextColumn("{task.fields[text]}"), BarColumn(), TimeRemainingColumn())
            self._live = Progress(*columns, console=console, transient=True)
            self._task = self._live.add_task("", total=total, text=self._text(0))
        self._has_lines = shown and not is_live
        self._began_at = self._told_at = time.monotonic()

    def show(self, n_steps: int, detail: str = "") -> None:
        """Show that this many steps are done, and what came of them so far."""
        text = self._text(n_steps) + (detail and f", {detail}")
        if self._live is not None:
            self._live.update(self._task, completed=n_steps, text=text)
        elif self._has_lines and time.monotonic() - self._told_at > _EVERY_S:
            self._told_at = time.monotonic()
            rate = n_steps / (self._told_at - self._began_at)
            print(f"  {text}, {rate:,.0f}/s", file=sys.stderr)

    def _text(self, n_steps: int) -> str:
        of = "" if self._total is None else f" of {self._total:,}"
        return f"{self._verb} {n_steps:,}{of} {self._unit}"

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
