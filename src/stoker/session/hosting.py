"""The host task: a session lives in a task of the event loop, so that any task can open and close it.

No cancel scope or task group of a caller surrounds the host, and no native cancellation of a caller reaches
it: a caller who is cancelled in ``open`` or ``close`` cannot leave a session half open or half closed. From
opening to closing, the host claims the agent and the right to write the run.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
from anyio.lowlevel import current_token

from stoker.agents.protocol import LearningAgent
from stoker.errors import SessionClosed, SessionError, SessionFailed
from stoker.exits import wait_to_the_end
from stoker.recorders import Recording
from stoker.replies import Reply
from stoker.runs import TrainingRun
from stoker.session.config import SessionConfig
from stoker.session.engine import Engine
from stoker.session.learner import Learner
from stoker.session.opening import context_of, open_learning
from stoker.threads import DedicatedThread, call_soon_here

__all__ = ["Body", "Host", "SessionClaim"]

logger = logging.getLogger("stoker.session")


T = TypeVar("T")


class SessionClaim:
    """The agent and the run of one session, from its opening until ``release``.

    Args:
        agent: what learns; claimed at once.
        run: where the session writes, or None; locked by ``open``.

    Raises:
        SessionError: The agent is in another open session of this process.
    """

    def __init__(self, agent: LearningAgent, run: TrainingRun | None) -> None:
        self._agent = agent  # as long as this lives, no other object has its id
        self._run = run
        self._has_run = self._is_opening = self._is_released = False
        self._lock = threading.Lock()
        with _agents_lock:
            other = _agents.setdefault(id(agent), self)
        if other is not self:
            raise SessionError(
                f"this {type(agent).__name__} is in another open session ({other}): close that one first, or "
                "give each session its own agent, such as copy.deepcopy(agent)"
            )

    def __str__(self) -> str:
        return "without a run" if self._run is None else f"of {self._run.directory}"

    def open(self, restore: Callable[[], T]) -> T:
        """Lock the run and restore from it: all, or nothing. Blocks.

        If ``release`` is called meanwhile, the claim ends when ``restore`` has returned.

        Raises:
            RunLocked, RunBroken, WriteFailed: As for ``TrainingRun.begin_session``.
            SessionClosed: The claim was released.
        """
        with self._lock:
            if self._is_released:
                raise _closed()
            self._is_opening = True
        is_open = False
        try:
            if self._run is not None:
                self._run.begin_session()
                self._has_run = True
            result = restore()
            is_open = True
        finally:
            with self._lock:
                self._is_opening = False
                is_open = is_open and not self._is_released
                self._is_released = not is_open
            if not is_open:
                self._give_back(settled=True)
        if not is_open:
            raise _closed()
        return result

    def release(self, *, settled: bool = True) -> None:
        """Let other sessions have the agent and the run. A second call does nothing.

        Args:
            settled: whether no thread of the session uses them any more; if not, both stay taken.
        """
        with self._lock:
            was_released, self._is_released = self._is_released, True
            if was_released or self._is_opening:  # in a thread, which gives them back
                return
        self._give_back(settled)

    def _give_back(self, settled: bool) -> None:
        if settled:
            with _agents_lock:
                del _agents[id(self._agent)]
        else:
            _never_released.append(self)
        if self._has_run and self._run is not None:
            self._run.end_session(settled)


def _closed() -> SessionClosed:
    return SessionClosed("open", entered=True)


_agents: weakref.WeakValueDictionary[int, SessionClaim] = weakref.WeakValueDictionary()
"""By the agents' ids. Weak, because an event loop that was dropped never closes its sessions."""
_agents_lock = threading.Lock()
_never_released: list[SessionClaim] = []


_tasks: set[asyncio.Task[None]] = set()  # asyncio itself keeps no task alive


class Host:
    """Opens, runs and closes an engine in its own task. Created by ``open``."""

    def __init__(self, claim: SessionClaim) -> None:
        self._claim = claim
        self._engine: Engine | None = None
        self._opened: Reply[None] = Reply()
        self._opening = anyio.CancelScope()
        self._ended = anyio.Event()
        self._loop = current_token()
        self._call_soon = call_soon_here()

    @classmethod
    async def open(
        cls, learner: Learner, run: TrainingRun | None, config: SessionConfig, recording: Recording
    ) -> Self:
        """Claim agent and run, restore the newest checkpoint, open the recorders and start the engine.

        All or nothing: if it fails or is cancelled, agent and run are free again when it raises. A disk that
        does not answer delays that for ``stall_timeout_s`` at most; then they are free when it answers.

        Args:
            learner: what learns; new.
            run: where the session writes, or None.
            config: the session's settings.
            recording: where records of the metrics go.

        Raises:
            SessionError: The agent is in another open session.
            RunLocked: The run is written by another session.
            ConfigError, CheckpointCorrupt, CheckpointNotFound, JournalBroken: The run cannot be resumed.
            ConfigError, MissingDependency, RecorderFailed: A recorder cannot be used.
            WriteFailed: Nothing can be written there.
        """
        host = cls(SessionClaim(learner.agent, run))
        _start(partial(host._live, learner, run, config, recording), host._end)
        try:
            await host._opened.wait()
        except BaseException:
            host._opening.cancel()
            if host._engine is not None:
                host._engine.end()
            await wait_to_the_end(host._ended.wait)
            raise
        return host

    @property
    def engine(self) -> Engine:
        """What it hosts.

        Raises:
            SessionClosed: It is not open yet.
        """
        if self._engine is None:
            raise SessionClosed("engine", entered=False)
        return self._engine

    async def close(self, error: BaseException | None = None) -> None:
        """Let the engine wind down, and wait for its end, also when cancelled.

        Args:
            error: what the block of ``async with`` was left with.

        Raises:
            SessionFailed: A part of the session failed.
            SessionError: The session was opened on another event loop, which has not closed it.
        """
        if not self._ended.is_set():
            if current_token() != self._loop:
                raise SessionError("close: this session was opened on another event loop; close it there")
            self.engine.end(error)
            await wait_to_the_end(self._ended.wait)
        if self.engine.failure is not None:
            raise SessionFailed(*self.engine.failure)

    def end_soon(self) -> None:
        """Let the engine wind down, without waiting for it. From any thread.

        Raises:
            RuntimeError: The event loop was closed.
        """
        self._call_soon(self.engine.end)

    async def _live(
        self, learner: Learner, run: TrainingRun | None, config: SessionConfig, recording: Recording
    ) -> None:
        try:
            self._engine = engine = await self._open(learner, run, config, recording)
            if self._opening.cancel_called:
                engine.end()
            self._opened.set(None)
            try:
                await engine.live()
            finally:
                self._claim.release(settled=engine.is_settled)
        except GeneratorExit:  # the event loop was dropped
            raise
        except BaseException as error:  # noqa: BLE001 - raised by ``open``
            cause = error
            if isinstance(error, anyio.get_cancelled_exc_class()):  # which no caller can do
                cause = SessionError("open: the event loop ended before the session was open")
                cause.__cause__ = error
            self._opened.fail(cause)
        finally:
            self._end()

    def _end(self) -> None:
        self._claim.release()  # if that was not done
        self._ended.set()

    async def _open(
        self, learner: Learner, run: TrainingRun | None, config: SessionConfig, recording: Recording
    ) -> Engine:
        thread = DedicatedThread("stoker-learner")
        engine: Engine | None = None
        try:
            with self._opening:
                restore = partial(open_learning, learner, config, run)
                opened = await thread.run(self._claim.open, restore)
                await recording.open(context_of(learner, run, config))
                engine = Engine(learner, opened, run, config, recording, thread)
                return engine
        finally:
            if engine is None:
                await self._give_up(thread, config.stall_timeout_s)
        raise SessionClosed("open", entered=True)  # the caller was cancelled

    async def _give_up(self, thread: DedicatedThread, patience_s: float) -> None:
        self._claim.release()
        with anyio.CancelScope(shield=True):
            if not await thread.settle(patience_s):
                logger.warning(
                    "opening a session %s was given up; agent and run stay taken until its call returns",
                    self._claim,
                )
        thread.close()


class Body:
    """The block of ``async with session``: cancelled when the session fails, in the task that entered it."""

    def __init__(self) -> None:
        self._entered_in = anyio.get_current_task()
        self._task = _asyncio_task()
        self._scope = anyio.CancelScope()
        self._scope.__enter__()

    def cancel(self) -> None:
        """Cancel what the block does."""
        self._scope.cancel()

    def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the block; the arguments are those of ``__exit__``.

        Raises:
            SessionError: The block was entered by another task, which still runs, or something inside of it
                was not left.
        """
        here = anyio.get_current_task()
        if here == self._entered_in:
            try:
                self._scope.__exit__(kind, error, traceback)
            except RuntimeError as problem:
                raise SessionError(
                    "`async with session` was left before a task group or cancel scope that was entered in "
                    "it: leave that first, or use session.open() and session.close()"
                ) from problem
        elif self._task is None or not self._task.done():
            raise SessionError(
                f"`async with session` was entered in task {self._entered_in.name!r}, which still runs, and "
                f"left in task {here.name!r}; use session.open() and session.close() instead"
            )


def _start(run: Callable[[], Coroutine[Any, Any, None]], end: Callable[[], None]) -> None:
    """Start a task that belongs to the event loop; it must not raise.

    Args:
        run: the task. It calls ``end`` itself, but for asyncio's tasks that are cancelled before they begin.
        end: does nothing the second time.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        from trio.lowlevel import spawn_system_task

        spawn_system_task(run, name="stoker-session", context=contextvars.copy_context())
    else:
        task = loop.create_task(run(), name="stoker-session")
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        task.add_done_callback(lambda _: end())


def _asyncio_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # on trio
        return None
