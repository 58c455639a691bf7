"""The answer to one request: set once by whoever serves it, awaited by whoever asked.

Unlike an ``asyncio.Future`` it runs on every backend, may be abandoned by a cancelled asker, and makes no
noise when nobody listens: failures are reported by the session, not here.
"""

from __future__ import annotations

from typing import Generic, TypeVar, cast

import anyio

__all__ = ["Reply"]

T = TypeVar("T")


class Reply(Generic[T]):
    """One value or one error, for one asker."""

    __slots__ = ("_error", "_event", "_value", "abandoned")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._value: T | None = None
        self._error: BaseException | None = None
        self.abandoned = False

    @property
    def is_set(self) -> bool:
        """Whether there is an answer."""
        return self._event.is_set()

    def set(self, value: T) -> None:
        """Answer, unless answered already."""
        if not self._event.is_set():
            self._value = value
            self._event.set()

    def fail(self, error: BaseException) -> None:
        """Answer with an error, unless answered already."""
        if not self._event.is_set():
            self._error = error
            self._event.set()

    async def wait(self) -> T:
        """Return the answer or raise the error. Cancelled: the request stands, its answer is dropped."""
        try:
            await self._event.wait()
        except BaseException:
            self.abandoned = True
            raise
        if self._error is not None:
            raise self._error
        return cast("T", self._value)
