"""Keeps exceptions that end a process, raised by user code, from ending the event loop under a training."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import TracebackType
from typing import Any

from stoker.errors import UnexpectedExit, first_error

__all__ = ["Contained"]


class Contained:
    """``with Contained("env of actor 3.step"):`` turns an exception that ends a process into an error.

    asyncio passes SystemExit and KeyboardInterrupt by all tasks out of the event loop, so that nothing would
    be saved. They, and all others that are not an ``Exception``, become an ``UnexpectedExit``.

    What stays as it is: an ``Exception``, a cancellation, the GeneratorExit of a coroutine that is being
    closed, and a KeyboardInterrupt in the main thread on trio: it may be a Ctrl-C, and trio passes it on
    through all tasks. May be used again.

    Args:
        where: names the call in the message.
    """

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.check(error)

    def check(self, error: BaseException) -> None:
        """The same for an exception that was caught already, where a ``with`` takes too long.

        Raises:
            UnexpectedExit: It ends a process.
        """
        if isinstance(error, Exception):
            return
        leaf = first_error(error)
        if isinstance(leaf, Exception | asyncio.CancelledError | GeneratorExit) or _is_from_trio(leaf):
            return
        raise UnexpectedExit(
            f"{self._where} raised {leaf!r}: code inside a training must not end the process; to end the "
            "training, call session.stop()"
        ) from leaf


def _is_from_trio(error: BaseException) -> bool:
    """Whether trio raised it here: a cancellation, or a KeyboardInterrupt for a Ctrl-C."""
    trio: Any = sys.modules.get("trio")
    if trio is None:
        return False
    if isinstance(error, KeyboardInterrupt):
        return threading.current_thread() is threading.main_thread() and trio.lowlevel.in_trio_run()
    return isinstance(error, trio.Cancelled)
