"""One dedicated thread whose calls are awaited: the only kind of thread that stoker hands work to.

Why not a thread pool: torch keeps per-thread pools and modes, simulators (OpenGL, SQLite, many C++ engines)
want every call from the thread that made them, and a disk that hangs must hold up its own file only. Why
daemonic: a call that never returns must not keep the process from exiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar, TypeVarTuple

import anyio

CallSoon = Callable[[Callable[[], object]], object]
"""Schedules a function on an event loop, from any thread and without waiting; raises a RuntimeError when that
loop has ended."""

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ThreadCall(Generic[T]):
    """A call of a function on a ``DedicatedThread``; a task may wait for it.

    Args:
        function: what the thread calls.
        args: its arguments.
        is_kept: whether it is called also where the waiting task was cancelled before that.
    """

    __slots__ = ("_is_kept", "_wake", "args", "error", "function", "is_done", "is_wanted", "result")

    def __init__(self, function: Callable[[*Ts], T], *args: *Ts, is_kept: bool = False) -> None:
        self.function: Callable[..., Any] = function
        self.args: tuple[Any, ...] = args
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_done: bool = False
        self.is_wanted: bool = True
        self._is_kept = is_kept
        self._wake: Callable[[], object] | None = None

    async def wait(self) -> T:
        """Return what the function returned, or raise what it raised. Cancellation does not wait."""
        done = anyio.Event()
        self._wake = partial(call_soon_here(), done.set)
        try:
            if not self.is_done:  # looked at after ``_wake`` is set: ``finish`` does it in reverse order
                await done.wait()
        except BaseException:
            self.is_wanted = self._is_kept
            raise
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None  # the traceback would keep this frame, and it the call
        return self.result

    def finish(self) -> None:
        """Wake the waiting task, if there is one."""
        self.is_done = True
        if self._wake is not None:
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                self._wake()


class DedicatedThread(Executor):
    """Runs functions one after the other, in the order in which they were handed in, on one thread.

    The thread starts with the first call. ``close`` ends it for good; ``release`` ends it until the next
    call, which never overtakes one that still runs.
    """

    def __init__(self, name: str) -> None:
        self.since: float | None = None
        """When the running call began, in monotonic seconds, also an abandoned one; None: no call runs."""
        self.busy_s: float = 0.0
        """Seconds that the calls took that have returned."""
        self._name = name
        self._calls: queue.SimpleQueue[ThreadCall[Any] | None] = queue.SimpleQueue()
        self._n_calls = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @property
    def is_idle(self) -> bool:
        """Whether every call has returned."""
        return self._n_calls == 0

    async def run(self, function: Callable[[*Ts], T], *args: *Ts, is_kept: bool = False) -> T:
        """Call the function there and return what it returns, or raise what it raises.

        Cancellation does not wait: a call that has not begun is skipped unless it ``is_kept``, a running one
        continues unseen and later calls queue up behind it.

        Raises:
            RuntimeError: The thread was closed.
        """
        call = ThreadCall(function, *args, is_kept=is_kept)
        self.hand_in(call)
        return await call.wait()

    def hand_in(self, call: ThreadCall[Any]) -> None:
        """Queue a call behind those that are there, from any thread.

        Raises:
            RuntimeError: The thread was closed.
        """
        with self._lock:
            if self._is_closed:  # a second thread would overtake a call that still runs on this one
                raise RuntimeError(f"thread {self._name!r} was closed; make a new one")
            self._n_calls += 1
            self._calls.put(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._thread.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call from any thread, as with any executor: it is skipped if its future is cancelled."""
        future: Future[T] = Future()
        self.hand_in(ThreadCall(_fulfill, future, partial(fn, *args, **kwargs)))
        return future

    async def settle(self, timeout_s: float) -> bool:
        """Wait at most that long until every call has returned; return whether they have."""
        with anyio.move_on_after(timeout_s):
            if not self.is_idle:
                await self.run(_nothing)
            return True
        return False

    def release(self) -> None:
        """Let the thread end after the calls it has, without waiting; a later call starts a new one."""
        with self._lock:
            if self._thread is not None:
                self._calls.put(None)

    def close(self) -> None:
        """Let the thread end after the calls it has, without waiting, and accept no more."""
        self.release()
        self._is_closed = True

    def _serve(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                with self._lock:
                    if self._calls.empty():
                        self._thread = None
                        return
                continue
            if call.is_wanted:
                self.since = since = time.monotonic()
                try:
                    call.result = call.function(*call.args)
                except BaseException as error:  # noqa: BLE001 - raised again where the call is awaited
                    call.error = error
                self.busy_s += time.monotonic() - since
                self.since = None
            # Freed before the result is announced: tensors that a thread frees while the interpreter is
            # shutting down abort the process.
            call.function, call.args = _nothing, ()
            with self._lock:
                self._n_calls -= 1
            call.finish()
            del call


def call_soon_here() -> CallSoon:
    """The function that schedules calls on the running event loop."""
    if on_asyncio():
        return asyncio.get_running_loop().call_soon_threadsafe
    from trio.lowlevel import current_trio_token  # installed, since it is running

    return current_trio_token().run_sync_soon


def on_asyncio() -> bool:
    """Whether the running event loop is asyncio's, uvloop included; if not, it is trio's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def backend_here() -> str:
    """The name by which ``anyio.run`` knows the running event loop."""
    return "asyncio" if on_asyncio() else "trio"


def _fulfill(future: Future[T], function: Callable[[], T]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised again where the future is asked
            future.set_exception(error)


def _nothing() -> Any:
    """Returns once every earlier call has returned."""
