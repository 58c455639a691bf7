"""Actors: the loop over environments that all of them share, and the actor that is a task of the event loop.

An environment that raises costs one episode: it is closed and made again. An error of the session or the
agent is not the environment's fault and ends the actor.
"""

from __future__ import annotations

import abc
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from stoker.actors.episodes import (
    Choice,
    EnvCalls,
    EnvFactory,
    EnvironmentFailed,
    FailureCount,
    FailureLimit,
    PolicyFailed,
    check_factory,
    opened_env,
    play_episode,
)
from stoker.actors.sessions import ActorSession
from stoker.actors.streams import ActorReport, ActorStream, Gate, OnStep, PolicyFeed
from stoker.actors.timing import ACTING, ACTOR_STATES, OBSERVING, RESETTING, STARTING, STEPPING
from stoker.actors.worker import OwnPolicy
from stoker.agents.protocol import ChecksInput, HasSpaces
from stoker.envs import PlayedEnv, Stepping
from stoker.errors import ActorFailed, InvalidExperience, SessionFailed, Stalled
from stoker.notices import KNOWN
from stoker.raising import described
from stoker.runs.events import ActorGivenUp, ActorRestarted
from stoker.session import ResumePoint, RunningEpisode
from stoker.telemetry import StateClock
from stoker.telemetry.clocks import Timed
from stoker.types import ActorId, Experience

_logger = logging.getLogger("stoker.actors")


class WorkerLost(Exception):
    """The process or thread of an environment ended for an unknown reason.

    Args:
        why: in words.
        counts: whether it counts as a failure of the environment; if not, the place reports it.
    """

    def __init__(self, why: str, *, counts: bool = True) -> None:
        super().__init__(why)
        self.counts = counts


class RoundRobin:
    """Gives each actor its turn, in the order of their ids; for lockstep.

    A turn is one step, with the start of an episode before it or the end of one after it. So the order of
    events, and with it the training, does not depend on time.

    Args:
        actor_ids: the actors in order.
        resume_point: where a resumed training stood.
    """

    def __init__(self, actor_ids: Iterable[ActorId], resume_point: ResumePoint) -> None:
        self._order = deque(actor_ids)  # the first one has its turn
        self._events = {actor_id: anyio.Event() for actor_id in self._order}
        last = resume_point.last_actor
        if last in self._order:
            # The last actor to step has had its turn, unless the end of its episode, or the first step after
            # the start of one, still belongs to that turn.
            running = resume_point.episodes.get(last)
            is_over = running is None or (bool(running.steps) and not running.is_done)
            self._order.rotate(-self._order.index(last) - is_over)
        self._events[self._order[0]].set()

    async def take(self, actor_id: ActorId) -> None:
        """Wait for this actor's turn; returns at once during it."""
        await self._events[actor_id].wait()

    def pass_on(self, actor_id: ActorId) -> None:
        """End this actor's turn, if it has it."""
        if self._order[0] == actor_id:
            self._events[actor_id] = anyio.Event()
            self._order.rotate(-1)
            self._events[self._order[0]].set()

    def leave(self, actor_id: ActorId) -> None:
        """Take no more turns."""
        self.pass_on(actor_id)
        self._order.remove(actor_id)


class PlayerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What all actors of a group share; see ``ActorGroup``.

    Attributes:
        feed: gives them their own copies of the policy; None: the session's ``act`` chooses.
        turns: they step only in their turns; None: whenever they can.
        running: the episodes that they continue after a resume.
    """

    factory: EnvFactory
    seed: int | None
    limit: FailureLimit
    stepping: Stepping = "auto"
    on_step: OnStep | None = None
    gate: Gate | None = None
    feed: PolicyFeed | None = None
    turns: RoundRobin | None = None
    running: Mapping[ActorId, RunningEpisode] = {}

    def __post_init__(self) -> None:
        check_factory(self.factory)


class Player(abc.ABC):
    """An actor, wherever it plays: plays until the session is done, with a new environment after a failure.

    Args:
        session: takes the experiences.
        actor_id: the stream of episodes that this actor is.
        settings: those of its group.
    """

    is_starting: bool = False
    """Whether its worker is being started: abandoning it now loses nothing."""

    def __init__(self, session: ActorSession, actor_id: ActorId, settings: PlayerSettings) -> None:
        self._session = session
        self.actor_id: ActorId = actor_id
        self._settings = settings
        self._stream = ActorStream(session, actor_id, settings.on_step)
        self.streams: list[ActorStream] = [self._stream]
        """The streams that it plays: one, except for a vector environment."""
        self.calls: EnvCalls = EnvCalls()
        """Of its environment."""
        self.clock: StateClock = StateClock(ACTOR_STATES, is_running=False)
        """What it does; stopped unless it plays on the session's event loop."""
        self.timed: Timed = self.clock
        """How long it was in each state, wherever it plays."""
        self._failures = FailureCount(actor_id, settings.limit)
        self._is_shut_out = False  # by the gate
        self._life = anyio.CancelScope()  # of the present environment
        self._stuck: Stalled | None = None

    @property
    def reports(self) -> list[ActorReport]:
        """What each actor has done so far: one report, except for a vector environment."""
        return [stream.report for stream in self.streams]

    async def run(self) -> None:
        """Play episode after episode.

        Raises:
            ActorFailed: The environment failed too often.
            ConfigError: It is not an environment that can be played, or not there.
            SessionError: The session does not run.
        """
        for stream in self.streams:
            stream.begin()
        clocks, timed = self._session.clocks, self.timed
        clocks.add("actors", timed)
        try:
            while await self._may_continue():
                self._stuck = None
                cause: BaseException | None = None
                try:
                    with anyio.CancelScope() as self._life:
                        try:
                            await self._play_env()
                        finally:
                            self._lose_actions()
                    cause = self._stuck
                except EnvironmentFailed as failure:
                    cause = failure.__cause__ or failure
                except InvalidExperience as refusal:  # a NaN reward, an observation of another shape
                    cause = refusal
                except PolicyFailed as failure:
                    cause = self._refusal(failure)
                if cause is not None and not self._is_over:
                    await self._recover(cause)
        finally:
            self.clock.stop()
            clocks.retire("actors", timed)
            if self._settings.turns is not None:
                self._settings.turns.leave(self.actor_id)
            for stream in self.streams:
                stream.report.ended_at = time.monotonic()

    @abc.abstractmethod
    async def _play_env(self) -> None:
        """Make one environment and play it until the session is done.

        Raises:
            EnvironmentFailed: It failed.
            InvalidExperience: The session refused one of its values.
            PolicyFailed: A copy of the policy failed on one of its observations.
        """

    def _opened_env(self) -> AbstractAsyncContextManager[PlayedEnv]:
        settings, name = self._settings, f"env of actor {self.actor_id}"
        return opened_env(settings.factory, settings.stepping, name, self.calls, self._agent_spaces)

    @property
    def _agent_spaces(self) -> tuple[Any, Any] | None:
        """The spaces that the agent was made for, if it knows them."""
        agent = self._session.agent
        return agent.env_spaces if isinstance(agent, HasSpaces) else None

    def leave(self, stuck: Stalled | None = None) -> None:
        """Leave the environment without waiting for it; if it is stuck, this counts as its failure."""
        self._stuck = stuck
        self._life.cancel()

    @property
    def _is_over(self) -> bool:
        return self._session.is_done or self._is_shut_out

    async def _may_continue(self) -> bool:
        if self._settings.turns is not None:
            await self._settings.turns.take(self.actor_id)
        return not self._is_over

    def _pass_on(self) -> None:
        """End this actor's turn."""
        if self._settings.turns is not None:
            self._settings.turns.pass_on(self.actor_id)

    async def _pass_gate(self) -> None:
        gate = self._settings.gate
        if gate is not None and not self._is_over and not await gate.enter(self.actor_id):
            self._is_shut_out = True

    async def _recover(self, cause: BaseException) -> None:
        """Count a failure and pause before another environment is made.

        Raises:
            ActorFailed: The environment failed too often.
        """
        self._pass_on()
        if self._settings.gate is not None:
            self._settings.gate.give_back(self.actor_id)
        self._note_failure(described(cause))
        actor_id, error, restarts = self.actor_id, described(cause), self._stream.report.restarts
        if isinstance(cause, WorkerLost) and not cause.counts:
            self._session.log_event(ActorRestarted(actor_id=actor_id, error=error, restarts=restarts))
            return
        try:
            delay_s = self._failures.add(cause)
        except ActorFailed:
            self._session.log_event(ActorGivenUp(actor_id=actor_id, error=error, restarts=restarts - 1))
            raise
        self._session.log_event(ActorRestarted(actor_id=actor_id, error=error, restarts=restarts))
        _logger.warning(
            "actor %r: its environment failed (%s); that episode is lost, a new one is made in %.1f s",
            actor_id,
            error,
            delay_s,
            extra=KNOWN,
        )
        await anyio.sleep(delay_s)

    def _lose_actions(self) -> None:
        """Hold back nobody with actions in flight: their outcomes will not come."""
        for stream in self.streams:
            self._session.pacing.end(stream.report.actor_id)

    def _note_failure(self, error: str) -> None:
        """Count a failure in the reports."""
        for stream in self.streams:
            stream.report.restarts += 1
            stream.report.last_error = error

    def _refusal(self, failure: PolicyFailed) -> InvalidExperience:
        """Why the agent refuses the observation that a copy of its policy failed on.

        Raises:
            SessionFailed: The agent accepts the observation, so the policy failed; this ends the session.
        """
        agent, error = self._session.agent, failure.__cause__ or failure
        if isinstance(agent, ChecksInput):
            try:
                agent.check_observation(*failure.args)
            except InvalidExperience as refusal:
                return refusal
        self._session.fail("policy", error)
        raise SessionFailed("policy", error) from error


class Actor(Player):
    """Plays an environment as a task of the session's event loop.

    Args:
        session: takes the experiences, and chooses the actions unless there is a feed.
        actor_id: the stream of episodes that this actor is.
        settings: those of its group.
    """

    def __init__(self, session: ActorSession, actor_id: ActorId, settings: PlayerSettings) -> None:
        super().__init__(session, actor_id, settings)
        self._running = settings.running.get(actor_id)
        self._own: OwnPolicy | None = None

    @property
    def reports(self) -> list[ActorReport]:
        """What it has done so far."""
        report, clock = self._stream.report, self.clock
        report.act_s, report.wait_s = clock.seconds(ACTING), clock.seconds(OBSERVING)
        return super().reports

    async def _play_env(self) -> None:
        stream, seed, feed = self._stream, self._settings.seed, self._settings.feed
        self.clock.enter(STARTING)
        if feed is not None and self._own is None:
            self._own = feed.fork(seed, self.actor_id, stream.next_episode)
        earlier_s = stream.report.env_s
        async with self._opened_env() as env:
            while await self._may_continue():
                running, self._running = self._running, None
                if running is None:
                    running = RunningEpisode(stream.next_seed(seed), ())
                    await stream.start_episode(running.seed)
                else:
                    stream.resume_episode(running.steps)
                self.clock.enter(RESETTING)
                try:
                    record = await play_episode(
                        env, self, self.actor_id, running.seed, running.steps, self.calls
                    )
                finally:
                    stream.report.env_s = earlier_s + env.busy_s
                if record is not None:
                    if self._own is not None:
                        self._own.end_episode(self.actor_id)
                    await stream.end_episode(record)
                    self._pass_on()

    # The listener of an episode -----------------------------------------------------------------------

    async def may_step(self) -> bool:
        """Wait for this actor's turn and for the gate; False abandons the episode."""
        if self._settings.gate is None and self._settings.turns is None:
            return not self._is_over
        if self._settings.gate is not None and await self._may_continue():
            await self._pass_gate()
        return await self._may_continue()

    async def act(self, observation: Any, /) -> Choice:
        """Ask its own policy, or the session."""
        clock, own, feed = self.clock, self._own, self._settings.feed
        if own is None or feed is None:
            clock.enter(ACTING)
            choice = await self._session.act(observation, actor_id=self.actor_id), None, None
        else:
            clock.enter(OBSERVING)
            await self._wait_and_update(own, feed)
            clock.enter(ACTING)
            choice = own.act(observation, self.actor_id)
        clock.enter(STEPPING)
        return choice

    async def observe(self, step: Experience, /) -> None:
        """Send the step to the session."""
        self.clock.enter(OBSERVING)
        if await self._stream.observe(step):
            await self._stream.publish(step)
        if not step.status.is_done:
            self._pass_on()

    async def _wait_and_update(self, own: OwnPolicy, feed: PolicyFeed) -> None:
        """Wait until the pacing allows an action of the copy, and update it if that is due."""
        await checkpoint()  # the actors' steps mix, and none of them holds the event loop
        if feed.is_due(own.version):
            own.load(feed.newest())
        if not await self._session.pacing.begin(self.actor_id, own.version):
            own.load(feed.newest())
        self._stream.report.syncs = own.syncs
