"""Open a session on its run, in a task of the event loop in which it then lives.

No cancel scope or task group of a caller surrounds this host task, and no native cancellation of a caller
reaches it: a caller who is cancelled in ``open`` or ``close`` cannot leave a session half open or half
closed. From opening to closing, the host claims the agent and the right to write the run.

Opening restores the newest checkpoint, learns the journal's tail behind it, begins an attempt and opens the
journal, in the learner's thread before the first event. With ``lockstep`` it also finds the running episodes:
resetting an environment with an episode's seed and repeating its actions brings a deterministic environment
back.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import shlex
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, cast

import anyio
import msgspec

from stoker.agents.protocol import LearningAgent, settings_of
from stoker.errors import CheckpointCorrupt, JournalBroken, SessionClosed, SessionError
from stoker.exits import wait_to_the_end
from stoker.journal import ActorEvent, EpisodeStarted, Journal
from stoker.recorders import Recording, RunContext, flat_params
from stoker.replies import Reply
from stoker.runs import TrainingRun
from stoker.runs.events import Resumed
from stoker.session.engine import Engine
from stoker.session.eventlog import EventLog, ending_of
from stoker.session.journaling import EventJournal
from stoker.session.learner import Learner
from stoker.session.relearning import as_in_attempts
from stoker.session.tail import learn_tail
from stoker.threads import DedicatedThread, on_asyncio
from stoker.types import ActorId, Experience

_logger = logging.getLogger("stoker.session")

T = TypeVar("T")


class RunningEpisode(msgspec.Struct, frozen=True):
    """An episode up to a checkpoint.

    Attributes:
        seed: the seed of its environment's reset.
        steps: its transitions so far, in order.
    """

    seed: int | None
    steps: tuple[Experience, ...]

    @property
    def is_done(self) -> bool:
        """Whether its last transition ended it; only its record is still to come."""
        return bool(self.steps) and self.steps[-1].status.is_done


class ResumePoint(msgspec.Struct, frozen=True):
    """The episodes of actors that take turns, at a checkpoint.

    Attributes:
        episodes: the running episodes by actor.
        last_actor: the actor of the last event; None: there was none.
    """

    episodes: Mapping[ActorId, RunningEpisode] = {}
    last_actor: ActorId | None = None


def _context_of(learner: Learner) -> RunContext:
    """Describe the training to recorders: which run, from which step, with what settings."""
    settings: dict[str, Any] = {"agent_type": type(learner.agent).__name__}
    if (agent_settings := settings_of(learner.agent)) is not None:
        settings["agent"] = agent_settings
    settings["session"] = cast("dict[str, Any]", msgspec.to_builtins(learner.config))
    params, run = flat_params(settings), learner.run
    if run is None:
        return RunContext(name="training", params=params, total_steps=learner.total_steps)
    return RunContext(
        name=run.metadata.name,
        version=run.metadata.version,
        run_id=run.metadata.run_id,
        directory=run.directory,
        params=params,
        resumed=run.attempt > 1,
        total_steps=learner.total_steps,
    )


def _open_learning(learner: Learner, events: EventLog, is_given_up: Callable[[], bool]) -> ResumePoint:
    """Restore the newest checkpoint, if there is one, learn the journal's tail, and let the learner begin.

    Nothing is written before the tail is learned.

    Args:
        learner: new.
        events: of the attempt, which begins here.
        is_given_up: asked while the tail is learned; then this raises.

    Returns:
        With lockstep, after a resume: the running episodes.

    Raises:
        CheckpointCorrupt, JournalBroken: There are checkpoints, and none can be restored. Nothing is
            changed: the next try finds the same.
        CheckpointNotFound: There were checkpoints, and they are gone.
        ConfigError: The run is of another agent.
        RelearningFailed: The agent failed on an event of the tail.
        SessionError: It was given up.
        WriteFailed: Nothing can be written there.
    """
    import torch  # here, because actors that play for a server import this module

    torch.get_num_threads()  # a new thread follows set_num_threads only once it has asked
    point, run, tail, config = ResumePoint(), learner.run, None, learner.config
    began_at, checkpoint_step = time.monotonic(), None
    if run is not None:
        if run.is_new:
            run.is_new = False
            events.begin()
        else:
            with as_in_attempts(learner):
                is_exact = _restore_newest(learner, run)
                checkpoint_step = learner.total_steps if run.has_checkpoint() else None
                if config.roll_forward:
                    tail = learn_tail(learner, run, is_given_up, is_exact=is_exact)
            if is_exact and (tail is None or tail.is_exact):
                point = _read_resume_point(learner, run.journal)
            learner.best = run.load_best_score()
            counts = (learner.total_steps, learner.total_episodes, learner.n_events, learner.opt_steps)
            run.begin_attempt(*counts, relearned_steps=0 if tail is None else tail.n_steps)
            events.begin(
                Resumed(
                    checkpoint_step=checkpoint_step,
                    tail_steps=0 if tail is None else tail.n_steps,
                    tail_events=0 if tail is None else tail.n_events,
                    took_s=time.monotonic() - began_at,
                )
            )
    learner.config = config = config.beginning_at(
        learner.total_steps, learner.opt_steps, was_interrupted=tail is not None and tail.has_learned
    )
    if run is not None and config.journal:
        learner.journal = EventJournal(run, learner.agent, config, learner.n_events)
    learner.begin()
    learner.stats.restart_speeds()  # episodes of the tail were not played now
    if not (point.episodes or learner.kept.is_within):
        learner.abandon_episodes()
    if tail is not None:
        learner.outbox = tail.missing.found()
        # So that the next resume need not learn it again.
        learner.is_checkpoint_due = tail.has_learned and config.final_checkpoint
    return point


def _restore_newest(learner: Learner, run: TrainingRun) -> bool:
    """Restore the newest checkpoint that can be restored whole, if there is one.

    Returns:
        Whether the running episodes go on behind it.
    """
    problem: JournalBroken | None = None
    last = learner.config.roll_forward_to
    for path, state in run.candidates():
        session = state.get("session", {})
        if session.get("run_started_at") not in (None, learner.run_started_at):
            raise CheckpointCorrupt(path, "it is of another run: put this run's own file back, or remove it")
        if last is not None and session["events"] > last:
            continue
        try:
            learner.restore(path, state, run.journal)
            is_exact = learner.config.lockstep and bool(session["lockstep"])
            if is_exact:
                _read_resume_point(learner, run.journal)  # else an older checkpoint may do
        except JournalBroken as error:
            if problem is None:
                problem = error
                error.add_note(_way_out(run, session["total_steps"]))
            _logger.warning("%s cannot be resumed: %s; trying the one before", path.name, error)
            continue
        for lost in run.lost_rows(learner.total_episodes, learner.eval_episodes, learner.n_records):
            verify = shlex.join(["stoker", "verify", str(run.directory)])
            _logger.warning("%s; training continues without them; `%s` says more", lost, verify)
        return is_exact
    if problem is not None:
        raise problem
    return learner.config.lockstep


def _way_out(run: TrainingRun, step: int) -> str:
    command = f"{shlex.join(['stoker', 'fork', str(run.directory)])} --at-step {step} --name NEW"
    return f"to continue from step {step} with an empty replay, in a new run: `{command} --without-replay`"


def _read_resume_point(learner: Learner, journal: Journal) -> ResumePoint:
    """The running episodes of a learner that was just restored.

    Raises:
        JournalBroken: The journal does not reach back to where they began.
    """
    last = learner.n_events
    if last == 0:
        return ResumePoint()
    starts = learner.actors.running
    seeds: dict[ActorId, int | None] = {}
    steps: dict[ActorId, list[Experience]] = {actor_id: [] for actor_id in starts}
    last_actor: ActorId | None = None
    for number, event in journal.read(min([last - 1, *starts.values()]), last):
        if not isinstance(event, ActorEvent):
            continue
        actor_id = last_actor = event.actor_id
        if number >= starts.get(actor_id, last):
            if isinstance(event, Experience):
                steps[actor_id].append(event)
            elif isinstance(event, EpisodeStarted):
                seeds[actor_id] = event.seed
    episodes = {actor_id: RunningEpisode(seeds.get(actor_id), tuple(steps[actor_id])) for actor_id in starts}
    return ResumePoint(episodes, last_actor)


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
        self._locked: TrainingRun | None = None
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
                self._locked = self._run
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
        if self._locked is not None:
            self._locked.end_session(settled)


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
        self._events = EventLog(learner.run, lambda: learner.total_steps)
        self._engine: Engine | None = None
        self._opened: Reply[tuple[Engine, ResumePoint]] = Reply()
        self._opening = anyio.CancelScope()
        self._ended = anyio.Event()
        self._is_given_up = False

    @classmethod
    async def open(cls, learner: Learner, recording: Recording) -> tuple[Engine, ResumePoint]:
        """Claim agent and run, restore the newest checkpoint, open the recorders and start the engine.

        All or nothing: if it fails or is cancelled, agent and run are free again when it raises. A disk that
        does not answer delays that for ``stall_timeout_s`` at most; then they are free when it answers.
        """
        host = cls(learner, recording)
        host._start()
        try:
            return await host._opened.wait()
        except BaseException:
            host._is_given_up = True
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
        self._events.hear()
        try:
            with self._opening:
                restore = partial(_open_learning, self._learner, self._events, lambda: self._is_given_up)
                point = await thread.run(self._claim.open, restore)
                await self._recording.open(_context_of(self._learner))
                self._engine = engine = Engine(
                    self._learner, self._recording, thread, self._events, self._ended
                )
                self._opened.set((engine, point))
            if self._engine is None:  # the caller was cancelled
                await self._give_up(thread, None)
                return
            if self._opening.cancel_called:
                self._engine.end()
            await self._engine.live()
        except GeneratorExit:  # the event loop was dropped
            raise
        except BaseException as error:  # noqa: BLE001 - raised by ``open``
            cause = error
            if isinstance(error, anyio.get_cancelled_exc_class()):  # which no caller can do
                cause = SessionError("open: the event loop ended before the session was open")
                cause.__cause__ = error
            if self._engine is None:
                await self._give_up(thread, cause)
            self._opened.fail(cause)
        finally:
            self._end()

    async def _give_up(self, thread: DedicatedThread, error: BaseException | None) -> None:
        """End an attempt that may have begun; None: the caller was cancelled."""
        self._is_given_up = True  # which ends a tail between two of its chunks
        with anyio.CancelScope(shield=True):
            if await thread.settle(self._learner.config.stall_timeout_s):
                how = "stopped" if error is None else "failed"
                await self._events.end(ending_of(how, (None, error), self._events.signal))
            else:
                _logger.warning(
                    "opening a session %s was abandoned; agent and run stay claimed until its call returns",
                    self._claim,
                )
        thread.close()

    def _end(self) -> None:
        if not self._ended.is_set():
            self._events.hear_no_more()
            self._claim.release(settled=self._engine is None or self._engine.is_settled)
            self._ended.set()


class Body:
    """The block of ``async with session``: cancelled when the session fails, in the task that entered it."""

    def __init__(self) -> None:
        self._entered_in = anyio.get_current_task()
        self._task = asyncio.current_task() if on_asyncio() else None
        self.scope: anyio.CancelScope = anyio.CancelScope()
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
