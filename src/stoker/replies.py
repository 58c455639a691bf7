"""The answer to one request: set once by the serving task, awaited by the caller.

Unlike an ``asyncio.Future`` it runs on every backend, a cancelled caller may abandon it, and an error that
nobody awaits is not logged: the session reports failures.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar, cast

import anyio

T = TypeVar("T")


class Reply(Generic[T]):
    """A value or an error, set once."""

    __slots__ = ("_error", "_event", "_value", "is_set")

    def __init__(self) -> None:
        self._event: anyio.Event | None = None  # once somebody waits
        self._value: T | None = None
        self._error: BaseException | None = None
        self.is_set: bool = False
        """Whether there is an answer."""

    def set(self, value: T) -> None:
        """Answer, unless answered already."""
        self._answer(value, None)

    def fail(self, error: BaseException) -> None:
        """Answer with an error, unless answered already."""
        self._answer(None, error)

    async def wait(self) -> T:
        """Return the answer or raise the error. Cancelled: the request stands, its answer is dropped."""
        if not self.is_set:
            if self._event is None:
                self._event = anyio.Event()
            await self._event.wait()
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def _answer(self, value: T | None, error: BaseException | None) -> None:
        if not self.is_set:
            self._value, self._error, self.is_set = value, error, True
            if self._event is not None:
                self._event.set()


class OpenReplies(set[Reply[Any]]):
    """The replies that callers wait for at the moment; all get an error once no answer can come."""

    @contextlib.contextmanager
    def waiting(self, reply: Reply[Any]) -> Generator[None]:
        """Count this reply as open while the block runs."""
        self.add(reply)
        try:
            yield
        finally:
            self.discard(reply)

    def fail(self, error: Callable[[], Exception]) -> None:
        """Fail each reply with its own error."""
        for reply in self:
            reply.fail(error())
