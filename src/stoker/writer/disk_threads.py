"""Threads for calls to a disk that may never come back.

A disk that hangs holds the thread that called it, and nothing can take it back. So each file that is
written has its own thread; a cancelled caller leaves at once, what comes
later queues up behind, and a thread that still hangs does not keep the process from exiting.
A call can be handed in by another thread, so that one file's turn comes behind another's without the event
loop between them. ``stoker.threads`` has the thread for everything else; this one is an ``Executor`` too, for
aiofiles, and can be asked to end and be used again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar, TypeVarTuple, cast

import anyio
from anyio.lowlevel import current_token

__all__ = ["DiskCall", "DiskThread"]

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
_IDLE_S = 10.0
"""A thread with nothing to do for so long ends; the next call starts one."""


class _Call:
    """One call on its way through the thread."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.result: Any = None
        self.error: BaseException | None = None

    def begin(self) -> bool:
        """Whether anybody still wants it."""
        return True

    def tell(self) -> None:
        """Say that it is done."""


class DiskCall(_Call, Generic[T]):
    """One that a task waits for, or has given up."""

    def __init__(self, function: Callable[[], T], *, is_kept: bool) -> None:
        super().__init__(function)
        self._done = anyio.Event()
        self._is_abandoned = False
        self._is_kept = is_kept
        # What both kinds of event loop have, each under its own name. It is far cheaper than to let the
        # thread wait for an answer.
        loop = cast("Any", current_token().native_token)
        self._call_soon = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon

    async def wait(self) -> T:
        """Return what it returned, or raise what it raised. Cancelled, it is abandoned."""
        try:
            await self._done.wait()
        finally:
            self._is_abandoned = not self._done.is_set()
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None  # the traceback would keep this frame, and it the call
        return self.result

    def begin(self) -> bool:
        """Whether it is still to be made."""
        return self._is_kept or not self._is_abandoned

    def tell(self) -> None:
        """Wake the waiting callers."""
        if not self._is_abandoned:
            with suppress(RuntimeError):  # the loop has ended: nobody is left to hear of it
                self._call_soon(self._done.set)


class _Promised(_Call):
    """One with a future, as executors give them."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(function)
        self.future: Future[Any] = Future()

    def begin(self) -> bool:
        return self.future.set_running_or_notify_cancel()

    def tell(self) -> None:
        if self.future.cancelled():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class DiskThread(Executor):
    """Runs calls one after the other, in the order asked for, in a daemonic thread.

    Args:
        name: the thread's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: deque[_Call] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_ending = False
        self._n_calls = 0

    @property
    def is_idle(self) -> bool:
        """Whether every call it got has come back."""
        return self._n_calls == 0

    async def run(self, function: Callable[[*Ts], T], *args: *Ts, is_kept: bool = False) -> T:
        """Call the function there and return what it returns, or raise what it raises.

        Cancelled, it does not wait: a running call goes on unseen; one that has not begun is skipped,
        unless it ``is_kept``.
        """
        call = self.prepare(function, *args, is_kept=is_kept)
        self.hand_in(call)
        return await call.wait()

    def prepare(self, function: Callable[[*Ts], T], *args: *Ts, is_kept: bool = False) -> DiskCall[T]:
        """A call for ``hand_in``, made where it will be waited for."""
        return DiskCall(partial(function, *args), is_kept=is_kept)

    def hand_in(self, call: DiskCall[Any]) -> None:
        """Let a call take its place behind those that are there already. From any thread."""
        self._hand_in(call)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Ask for a call, as of any executor. A cancelled future's call is skipped if it has not begun."""
        call = _Promised(partial(fn, *args, **kwargs))
        self._hand_in(call)
        return call.future

    async def settle(self, timeout_s: float) -> bool:
        """Wait until the calls it has have come back, but no longer than that; say whether they have."""
        if self.is_idle:
            return True
        with anyio.move_on_after(timeout_s):
            await self.run(_nothing)
            return True
        return False

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Let the thread end after the calls it has; a later call starts one again.

        Args:
            wait: not heeded: it may take for ever.
            cancel_futures: not heeded: what was asked for is done.
        """
        with self._changed:
            self._is_ending = True
            self._changed.notify()

    def _hand_in(self, call: _Call) -> None:
        with self._changed:
            self._calls.append(call)
            self._n_calls += 1
            self._is_ending = False
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def _serve(self) -> None:
        while (call := self._next()) is not None:
            if call.begin():
                try:
                    call.result = call.function()
                except BaseException as error:  # noqa: BLE001 - raised again where the call is awaited
                    call.error = error
            # Freed before the result is announced: tensors that a thread frees while the interpreter is
            # shutting down abort the process.
            call.function = _nothing
            with self._changed:
                self._n_calls -= 1
            call.tell()
            del call

    def _next(self) -> _Call | None:
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._is_ending, _IDLE_S)
            if not self._calls:
                self._thread = None
                return None
            return self._calls.popleft()


def _nothing() -> None:
    """Reached when everything asked for earlier is done."""
