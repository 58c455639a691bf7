"""Views of a training in progress: a table that stays in place, or plain lines where none can.

Outside of notebooks both go to standard error, so that standard output holds results alone.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from rich.console import Console, RenderableType
from rich.live import Live

from stoker.threads import DedicatedThread
from stoker.trainer.views.panel import draw
from stoker.trainer.views.readings import Gauges, Reading
from stoker.trainer.views.text import duration, number, short

if TYPE_CHECKING:
    from stoker.trainer.config import TrainConfig
    from stoker.trainer.trainer import Progress

ReadingT = TypeVar("ReadingT")

_LINE_S = 5.0
"""Seconds between two plain lines."""

_REFRESH_S = 0.25
_CLOSING_S = 2.0
"""The longest delay of a training's end by a terminal that accepts nothing."""

_WIDTH, _HEIGHT = 88, 45
_HTML = '<pre style="line-height: 1.25; white-space: pre; overflow-x: auto">{code}</pre>'


class View(Generic[ReadingT]):
    """Shows readings until it is closed, from one thread at a time; this base shows nothing."""

    def show(self, reading: ReadingT, *, last: bool = False) -> None:
        """Show a reading, or skip one that is not the last."""

    def close(self) -> None:
        """Leave the terminal as it was, with the last reading on it. May be called twice."""


class LiveView(View[ReadingT]):
    """A table, redrawn in place on a terminal.

    Args:
        console: where.
        drawn: the table of a reading.
        shows_cursor: leave the cursor visible, which a process that is killed cannot give back.
    """

    def __init__(
        self, console: Console, drawn: Callable[[ReadingT], RenderableType], *, shows_cursor: bool = False
    ) -> None:
        self._console = console
        self._drawn = drawn
        self._shows_cursor = shows_cursor
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def show(self, reading: ReadingT, *, last: bool = False) -> None:
        """Redraw."""
        if not self._live.is_started:
            self._live.start()
            if self._shows_cursor:
                self._console.show_cursor()
        self._live.update(self._drawn(reading), refresh=True)

    def close(self) -> None:
        """Leave the last table where it is and give the cursor back."""
        self._live.stop()


class PlainView(View[Reading]):
    """One line every few seconds and at each evaluation."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown_at = time.monotonic()
        self._shown: tuple[int, tuple[float, int] | None] = (-1, None)

    def show(self, reading: Reading, *, last: bool = False) -> None:
        """Print a line when one is due."""
        now = time.monotonic()
        state = (reading.total_steps, reading.last_eval)
        due = now - self._shown_at >= _LINE_S or reading.last_eval != self._shown[1]
        if (due or last) and state != self._shown:
            self._shown_at, self._shown = now, state
            self._console.out(progress_line(reading), highlight=False)


def progress_line(reading: Reading) -> str:
    """A reading in one line; values that are not known yet are left out."""
    parts = [f"{reading.total_steps:,}/{reading.limit:,} steps", f"{reading.steps_per_s:,.0f}/s"]
    if reading.eta_s is not None and reading.total_steps < reading.limit:
        parts.append(f"ETA {duration(reading.eta_s)}")
    if reading.curve:
        parts += [f"reward {number(reading.mean_reward)}", f"length {number(reading.mean_length)}"]
    if reading.last_eval is not None:
        best = number(reading.best and reading.best[0])
        parts.append(f"eval {number(reading.last_eval[0])} (best {best})")
    if reading.exploration is not None:
        parts.append(f"exploration {reading.exploration:.3f}")
    parts += [f"{name} {short(value)}" for name, value in reading.metrics.items() if name == "loss"]
    if reading.restarts:
        parts.append(f"env restarts {reading.restarts}")
    if reading.workers:
        parts.append(f"workers {reading.workers}")
    return "  " + "  ".join(parts)


class NotebookView(View[Reading]):
    """The table in the output of a notebook's cell, replaced in place, without widgets."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._handle: Any = None

    def show(self, reading: Reading, *, last: bool = False) -> None:
        """Replace the displayed table."""
        console = Console(file=io.StringIO(), record=True, width=_WIDTH, height=_HEIGHT, force_jupyter=False)
        console.print(draw(reading, self._title, console))
        html = console.export_html(inline_styles=True, code_format=_HTML, clear=False)
        shown = {"text/plain": console.export_text(), "text/html": html}
        if self._handle is None:
            display: Any = import_module("IPython.display").display
            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)


class ScreenThread(Generic[ReadingT]):
    """Draws a view in a thread. Used for one training; close it in any case.

    Drawing takes milliseconds, which would delay actors on the event loop, and blocks on a terminal that
    accepts nothing.
    """

    def __init__(self, view: View[ReadingT], closing_s: float = _CLOSING_S) -> None:
        self.reading: ReadingT | None = None
        """The reading that was shown last."""
        self._view = view
        self._closing_s = closing_s
        self._thread = DedicatedThread("stoker-view")

    async def show_all(self, read: Callable[[], ReadingT]) -> None:
        """Take and show readings until cancelled, and then the last one."""
        show = partial(contextvars.copy_context().run, self._show)  # a notebook knows its cell by the context
        try:
            while True:
                self.reading = read()
                await self._thread.run(show, self.reading)
                await anyio.sleep(_REFRESH_S)
        finally:
            self.reading = read()
            await self.draw(partial(show, self.reading, last=True))

    async def show_to_the_end(self, read: Callable[[], ReadingT]) -> None:
        """``show_all``, and then ``close``."""
        try:
            await self.show_all(read)
        finally:
            await self.close()

    async def draw(self, work: Callable[[], None]) -> None:
        """Run a function in the thread after the earlier ones, and wait for it, but not for long."""
        with anyio.move_on_after(self._closing_s, shield=True):
            await self._thread.run(work)

    async def close(self) -> None:
        """Leave the terminal as it was, with the last reading on it."""
        await self.draw(self._view.close)
        self._thread.close()

    def _show(self, reading: ReadingT, *, last: bool = False) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone; the training continues
            self._view.show(reading, last=last)


class Screen(ScreenThread[Reading]):
    """Draws the view of a training of one policy."""

    async def follow(self, progress: Progress) -> None:
        """Show the training until cancelled, and then its last state."""
        await self.show_all(Gauges(progress).read)


def is_live(console: Console) -> bool:
    """Whether a table can be redrawn in place there."""
    return console.is_terminal and not console.is_dumb_terminal


def view_for(console: Console, title: str, *, progress: bool) -> View[Reading]:
    """The view that fits the console."""
    if not progress:
        return View()
    if is_live(console):
        return LiveView(console, lambda reading: draw(reading, title, console))
    return PlainView(console)


def view_here(title: str) -> View[Reading] | None:
    """The view for a notebook or a terminal, wherever this program runs; None: it runs in neither."""
    ipython = sys.modules.get("IPython")
    shell: Any = None if ipython is None else ipython.get_ipython()
    if getattr(shell, "kernel", None) is not None:  # the kernel of a notebook, which displays HTML
        return NotebookView(title)
    view = view_for(Console(stderr=True), title, progress=True)
    return view if isinstance(view, LiveView) else None


def title_of(config: TrainConfig) -> str:
    """Agent, environment and number of environments, or data set."""
    if config.offline:
        return f"{config.agent} · {Path(config.offline).name}" + f" · {config.env}" * bool(config.env)
    return f"{config.agent} · {config.env} · {config.num_envs} environments"
