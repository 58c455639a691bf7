"""One dedicated thread whose calls are awaited.

Why not a thread pool: torch keeps per-thread pools and modes, and simulators (OpenGL, SQLite, many C++
engines) want every call from the thread that made them. Why daemonic: a call that never comes back must
not keep the process from exiting.

Used by the learner, by the writer's encoding and by environments that block.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

import anyio

__all__ = ["CallSoon", "DedicatedThread", "call_soon_here", "on_asyncio"]

CallSoon = Callable[[Callable[[], object]], object]
"""Has something called on an event loop, soon, from any thread and without waiting for it; raises a
RuntimeError when that loop has ended."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Call:
    """One call on its way through the thread and back."""

    __slots__ = ("abandoned", "args", "call_soon", "done", "error", "function", "result")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.function = function
        self.args = args
        self.call_soon = call_soon_here()
        self.done = anyio.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self.abandoned = False

    def forget(self) -> None:
        """Let go of what it was asked to do."""
        self.function, self.args = _nothing, ()


class DedicatedThread:
    """Runs functions one after the other, in the order asked for, always on the same thread.

    The thread starts with the first call and ends with ``close``. Use it from one event loop.
    """

    def __init__(self, name: str) -> None:
        self.since: float | None = None
        """When the present call began, in monotonic seconds, also an abandoned one; None: there is none."""
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call the function there and return what it returns, or raise what it raises.

        Cancellation does not wait: a call that has not begun is skipped, a running one continues unseen and
        later calls queue up behind it.

        Raises:
            RuntimeError: The thread was closed.
        """
        if self._is_closed:  # a second thread would overtake a call that still runs on this one
            raise RuntimeError(f"thread {self._name!r} was closed; make a new one")
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        call = _Call(function, args)
        self._calls.put(call)
        try:
            await call.done.wait()
        finally:
            call.abandoned = not call.done.is_set()
        if call.error is not None:
            try:
                raise call.error
            finally:
                call.error = None  # the traceback would keep this frame, and it the call
        return call.result

    async def settle(self, timeout_s: float) -> bool:
        """Wait until the calls it has have come back, but no longer than that; say whether they have."""
        if self._thread is None:
            return True
        with anyio.move_on_after(timeout_s):
            await self.run(_nothing)
            return True
        return False

    def close(self) -> None:
        """Let the thread end after the calls it has; it is not waited for. A second call does nothing."""
        if self._thread is not None and not self._is_closed:
            self._calls.put(None)
        self._is_closed = True

    def _serve(self) -> None:
        calls = self._calls
        while (call := calls.get()) is not None:
            if call.abandoned:
                continue
            self.since = time.monotonic()
            try:
                call.result = call.function(*call.args)
            except BaseException as error:  # noqa: BLE001 - raised again where the call is awaited
                call.error = error
            self.since = None
            # Freed before the result is announced: tensors that a thread frees while the interpreter is
            # shutting down abort the process.
            call.forget()
            try:
                call.call_soon(call.done.set)
            except RuntimeError:
                return  # the loop has ended: nobody is left to hear of it
            del call


def call_soon_here() -> CallSoon:
    """What calls something on the present event loop."""
    if on_asyncio():
        return asyncio.get_running_loop().call_soon_threadsafe
    from trio.lowlevel import current_trio_token  # installed, since it is running

    return current_trio_token().run_sync_soon


def on_asyncio() -> bool:
    """Whether the present event loop is asyncio's, uvloop included; if not, it is trio's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _nothing() -> None:
    """Reached when everything asked for earlier is done."""
