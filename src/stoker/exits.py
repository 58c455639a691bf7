"""What ends: user code that exits, errors of task groups, waits despite cancellation, and what is closed."""

from __future__ import annotations

import asyncio
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import anyio

from stoker.errors import UnexpectedExit, first_error


@contextmanager
def single_error() -> Generator[None]:
    """Around a task group: raise the error itself instead of an exception group, see ``first_error``."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = first_error(group)
        raise error from error.__cause__


async def wait_to_the_end(wait: Callable[[], Awaitable[object]]) -> None:
    """Return when the wait has ended, whatever is cancelled meanwhile.

    A shielded scope holds off cancel scopes. ``asyncio.Task.cancel`` goes through it, so the wait begins
    again, and the cancellation is raised once it has ended.

    Args:
        wait: waits for something; called again after each native cancellation.

    Raises:
        asyncio.CancelledError: This task was cancelled natively meanwhile; the wait has ended all the same.
    """
    cancelled: asyncio.CancelledError | None = None
    has_ended = False
    with anyio.CancelScope(shield=True):
        while not has_ended:
            try:
                await wait()
                has_ended = True
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled


class Closing(ABC):
    """Leaving it as a context manager closes it."""

    @abstractmethod
    def close(self) -> None:
        """End it; may be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
