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
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TypeVar

import anyio

from stoker.agents.protocol import LearningAgent
from stoker.errors import SessionClosed, SessionError
from stoker.exits import wait_to_the_end
from stoker.recorders import Recording
from stoker.replies import Reply
from stoker.runs import TrainingRun
from stoker.session.engine import Engine
from stoker.session.learner import Learner
from stoker.session.opening import context_of, open_learning
from stoker.threads import DedicatedThread, on_asyncio

__all__ = ["Body", "Host", "SessionClaim"]

logger = logging.getLogger("stoker.session")

T = TypeVar("T")


class SessionClaim:
    """The agent and the run of one session, until all that hold the claim have released it.

    Args:
        agent: what learns; claimed at once.
        run: where the session writes, or None; locked by ``open``.

    Raises:
        SessionError: The agent is in another open session of this process.
    """

    def __init__(self, agent: LearningAgent, run: TrainingRun | None) -> None:
        self._agent = agent  # as long as this lives, no other object has its id
        self._run = run
        self._has_run = False
        self._n_holders = 1  # the host; and a thread in ``open``
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
        """Lock the run and restore from it. Blocks, and holds the claim meanwhile."""
        with self._lock:
            if not self._n_holders:
                raise SessionClosed("open", entered=True)
            self._n_holders += 1
        try:
            if self._run is not None:
                self._run.begin_session()
                self._has_run = True
            return restore()
        finally:
            self.release()

    def release(self, *, settled: bool = True) -> None:
        """Hold the claim no longer; the last holder frees the agent and the run for other sessions.

        Args:
            settled: whether no thread of the session uses them any more; if not, both stay taken.
        """
        with self._lock:
            self._n_holders -= 1
            if self._n_holders:
                return
        if settled:
            with _agents_lock:
                del _agents[id(self._agent)]
        else:
            _never_released.append(self)
        if self._has_run and self._run is not None:
            self._run.end_session(settled)


_agents: weakref.WeakValueDictionary[int, SessionClaim] = weakref.WeakValueDictionary()
"""By the agents' ids. Weak, because an event loop that was dropped never closes its sessions."""
_agents_lock = threading.Lock()
_never_released: list[SessionClaim] = []
_tasks: set[asyncio.Task[None]] = set()  # asyncio itself keeps no task alive


class Host:
    """The task of a session, from opening to the end of its engine. Created by ``open``."""

    def __init__(self, learner: Learner, recording: Recording) -> None:
        self._claim = SessionClaim(learner.agent, learner.run)
        self._learner = learner
        self._recording = recording
        self._engine: Engine | None = None
        self._opened: Reply[Engine] = Reply()
        self._opening = anyio.CancelScope()
        self._ended = anyio.Event()

    @classmethod
    async def open(cls, learner: Learner, recording: Recording) -> Engine:
        """Claim agent and run, restore the newest checkpoint, open the recorders and start the engine.

        All or nothing: if it fails or is cancelled, agent and run are free again when it raises. A disk that
        does not answer delays that for ``stall_timeout_s`` at most; then they are free when it answers.
        """
        host = cls(learner, recording)
        host._start()
        try:
            return await host._opened.wait()
        except BaseException:
            host._opening.cancel()
            if host._engine is not None:
                host._engine.end()
            await wait_to_the_end(host._ended.wait)
            raise

    def _start(self) -> None:
        """Start the task, which belongs to the event loop and must not raise."""
        if not on_asyncio():
            from trio.lowlevel import spawn_system_task

            spawn_system_task(self._live, name="stoker-session", context=contextvars.copy_context())
            return
        task = asyncio.get_running_loop().create_task(self._live(), name="stoker-session")
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        task.add_done_callback(lambda _: self._end())  # a task that is cancelled before it begins

    async def _live(self) -> None:
        thread = DedicatedThread("stoker-learner")
        try:
            with self._opening:
                point = await thread.run(self._claim.open, partial(open_learning, self._learner))
                await self._recording.open(context_of(self._learner))
                self._engine = Engine(self._learner, point, self._recording, thread, self._ended)
            if (engine := self._engine) is None:  # the caller was cancelled
                await self._give_up(thread)
                return
            if self._opening.cancel_called:
                engine.end()
            self._opened.set(engine)
            await engine.live()
        except GeneratorExit:  # the event loop was dropped
            raise
        except BaseException as error:  # noqa: BLE001 - raised by ``open``
            cause = error
            if isinstance(error, anyio.get_cancelled_exc_class()):  # which no caller can do
                cause = SessionError("open: the event loop ended before the session was open")
                cause.__cause__ = error
            if self._engine is None:
                await self._give_up(thread)
            self._opened.fail(cause)
        finally:
            self._end()

    async def _give_up(self, thread: DedicatedThread) -> None:
        with anyio.CancelScope(shield=True):
            if not await thread.settle(self._learner.config.stall_timeout_s):
                logger.warning(
                    "opening a session %s was abandoned; agent and run stay claimed until its call returns",
                    self._claim,
                )
        thread.close()

    def _end(self) -> None:
        if not self._ended.is_set():
            self._claim.release(settled=self._engine is None or self._engine.is_settled)
            self._ended.set()


class Body:
    """The block of ``async with session``: cancelled when the session fails, in the task that entered it."""

    def __init__(self) -> None:
        self._entered_in = anyio.get_current_task()
        self._task = asyncio.current_task() if on_asyncio() else None
        self.scope = anyio.CancelScope()
        self.scope.__enter__()

    def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the block; the arguments are those of ``__exit__``."""
        here = anyio.get_current_task()
        if here == self._entered_in:
            try:
                self.scope.__exit__(kind, error, traceback)
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
