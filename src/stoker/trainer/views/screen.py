"""Shows one training on a view while it goes on, from its own thread."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio

from stoker.threads import DedicatedThread
from stoker.trainer.views.readings import Gauges, Reading
from stoker.trainer.views.view import View

if TYPE_CHECKING:
    from stoker.trainer.result import Progress

__all__ = ["Screen"]

_REFRESH_S = 0.25
_CLOSING_S = 2.0
"""A terminal that accepts nothing delays the end of a training by at most this."""


class Screen:
    """Draws a view in a thread. Used for one training; close it in any case.

    Drawing takes milliseconds, which actors on the event loop would feel, and on a terminal that accepts
    nothing it does not return.

    Args:
        view: what to draw on.
    """

    def __init__(self, view: View) -> None:
        self.reading: Reading | None = None
        """What was shown last."""
        self._view = view
        self._thread = DedicatedThread("stoker-view")

    async def follow(self, progress: Progress) -> None:
        """Show the training until cancelled, and then its last state."""
        gauges = Gauges(progress)
        show = partial(contextvars.copy_context().run, self._show)  # a notebook knows its cell by the context
        try:
            while True:
                self.reading = gauges.read()
                await self._thread.run(show, self.reading)
                await anyio.sleep(_REFRESH_S)
        finally:
            self.reading = gauges.read()
            await self.draw(partial(show, self.reading, last=True))

    async def draw(self, work: Callable[[], None]) -> None:
        """Let the thread do something after what it was given before, and wait for it, but not for long."""
        with anyio.move_on_after(_CLOSING_S, shield=True):
            await self._thread.run(work)

    async def close(self) -> None:
        """Leave the terminal as it was, with what was shown last still on it."""
        await self.draw(self._view.close)
        self._thread.close()

    def _show(self, reading: Reading, *, last: bool = False) -> None:
        with contextlib.suppress(OSError):  # nobody can see it any more; the training goes on
            self._view.show(reading, last=last)
