"""An actor whose environment and policy copy live on a thread or in a process: its side on the event loop.

To a group it is what ``Actor`` is: the same episodes, seeds, failures and reports. What its worker tells is
taken in here, in order; what is still on the way when the worker ends is lost, as a step under way is.
"""

from __future__ import annotations

import time

import anyio

from stoker.actors.copies import PolicyFeed
from stoker.actors.episodes import EnvFactory
from stoker.actors.failures import (
    EnvironmentFailed,
    FailureCount,
    FailureLimit,
    RemoteFailure,
    WorkerLost,
    described,
    recover,
)
from stoker.actors.links import Link, Place
from stoker.actors.messages import (
    Credit,
    DiscardEnv,
    EnvDiscarded,
    Failed,
    Granted,
    Played,
    Ready,
    RestartEnv,
    Stop,
    WorkerEvent,
    WorkerExited,
)
from stoker.actors.metrics import Gate, OnStep, StepTeller
from stoker.actors.playing import blame_policy
from stoker.actors.report import ActorReport
from stoker.actors.round_robin import RoundRobin
from stoker.actors.worker import Assignment
from stoker.errors import ConfigError, InvalidExperience, Stalled
from stoker.journal import EpisodeEnded, EpisodeStarted, JournalEvent
from stoker.session import TrainingSession
from stoker.types import ActorId, Experience

__all__ = ["RemoteActor"]

_BOOT_S = 120.0
"""A process that is not up after so long will not be."""

_LEAVE_S = 5.0
"""A worker that is to end has so long to close its environment, or ``actor_timeout_s`` if that is shorter."""

_LOST_S = 10.0
"""What was killed is seen to end within this time, or not at all."""


class RemoteActor:
    """Has an environment played elsewhere until the session is done.

    Args:
        session: takes the experiences.
        actor_id: the stream of episodes that this actor is.
        place: where its environment is played.
        factory: makes the environment.
        feed: where its copies of the policy come from.
        booting: so many processes may be about to come up at a time.
        seed: episodes are seeded from it, the actor and the episode's number; None: not at all.
        limit: how many failures it puts up with.
        on_step: awaited after each step that was accepted.
        gate: asked before each step.
    """

    def __init__(
        self,
        session: TrainingSession,
        actor_id: ActorId,
        place: Place,
        factory: EnvFactory,
        feed: PolicyFeed,
        booting: anyio.CapacityLimiter,
        *,
        seed: int | None = None,
        limit: FailureLimit | None = None,
        on_step: OnStep | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.report = ActorReport(actor_id)
        self.in_env_since: float | None = None
        """When its last message came, in monotonic seconds, while the session owes it nothing."""
        self.is_starting = False
        """Whether its process is being started: nothing of it would be missed."""
        self._session = session
        self._actor_id: ActorId = actor_id
        self._place = place
        self._factory = factory
        self._feed = feed
        self._booting = booting
        self._seed = seed
        self._failures = FailureCount(actor_id, limit or FailureLimit())
        self._teller = None if on_step is None else StepTeller(session, actor_id, on_step)
        self._gate = gate
        self._asks = gate is not None or session.config.max_staleness is not None
        self._is_shut_out = False  # by the gate
        self._life = anyio.CancelScope()  # of the present worker
        self._stuck: Stalled | None = None
        self._is_given_up = False
        self._spent = (0.0, 0.0, 0.0, 0)  # by earlier workers: seconds in env, act and wait; syncs
        self._sent = 0  # the version that the worker has, or that is on its way to it
        self._refused: InvalidExperience | None = None  # its environment is being given up for that
        self._is_there = False  # there is a worker, as far as is known
        self._is_up = False  # and it has come up

    async def run(self, turns: RoundRobin | None = None, place: int = 0) -> None:
        """Play episode after episode.

        Raises:
            ActorFailed: The environment failed too often.
            ConfigError: It is not an environment that can be played, or not one that can be played there.
            SessionError: The session does not run.
        """
        del turns, place  # workers do not take turns: a group refuses them with lockstep
        self._episode = self._session.actor_episodes(self._actor_id)
        self.report.begin()
        try:
            while self._plays_on():
                cause = await self._live()
                if cause is not None and self._plays_on():
                    self._give_back()
                    await recover(self.report, self._failures, cause)
        finally:
            self.report.end()

    def give_up(self) -> None:
        """Let go of what it plays: nobody waits for it any more."""
        self._is_given_up = True
        self._life.cancel()

    def restart(self, stuck: Stalled) -> None:
        """Give up on the worker, which is stuck: it counts as a failure, and another one is made."""
        self._stuck = stuck
        self._life.cancel()

    def _plays_on(self) -> bool:
        return not (self._session.is_done or self._is_shut_out)

    def _give_back(self) -> None:
        if self._gate is not None:
            self._gate.give_back(self._actor_id)

    # One worker ----------------------------------------------------------------------------------------

    async def _live(self) -> BaseException | None:
        """From a worker's beginning to its end; returns what it died of, if it did."""
        report = self.report
        self._spent = (report.env_s, report.act_s, report.wait_s, report.syncs)
        self._refused, self._is_up = None, False
        own = self._feed.fork(self._seed, self._actor_id, self._episode)
        self._sent = own.version
        assignment = Assignment(
            actor_id=self._actor_id, seed=self._seed, episode=self._episode, asks=self._asks
        )
        link = self._place.link(assignment, self._factory, own, self._feed)
        cause: BaseException | None = None
        try:
            with anyio.CancelScope() as self._life:
                await self._start_worker(link)
                await self._serve(link)
            cause, self._stuck = self._stuck, None
        except EnvironmentFailed as failure:
            cause = failure.__cause__ or failure
        finally:
            at_once = cause is not None or self._is_given_up or self._is_stuck() or not self._is_up
            self.in_env_since = None
            self._session.pacing.end(self._actor_id)  # nobody waits for what it had begun
            await self._end_worker(link, at_once=at_once)
        return cause

    def _is_stuck(self) -> bool:
        since = self.in_env_since
        return since is not None and time.monotonic() - since >= self._session.config.actor_timeout_s

    async def _start_worker(self, link: Link) -> None:
        if not link.is_remote:
            self._open(link)
            self._is_up = True
            return
        async with self._booting:
            if not self._plays_on():
                return
            self._open(link)
            with anyio.move_on_after(_BOOT_S):
                self.is_starting = True
                try:
                    message = await self._next(link)
                finally:
                    self.is_starting = False
                await self._handle(message, link)
                return
        raise EnvironmentFailed from WorkerLost(f"its process was not up after {_BOOT_S:.0f} s")

    def _open(self, link: Link) -> None:
        link.open()
        self._is_there = True

    async def _serve(self, link: Link) -> None:
        while self._plays_on():
            self.in_env_since = time.monotonic()
            message = await self._next(link)
            self.in_env_since = None
            await self._handle(message, link)
        # What is on its way may be the end of an episode all of whose steps were accepted.
        link.send(Stop())
        while self._is_there and not self._session.is_draining:
            self.in_env_since = time.monotonic()
            message = await self._next(link)
            self.in_env_since = None
            if isinstance(message, Played):
                await self._accept_steps(message, link)

    async def _end_worker(self, link: Link, *, at_once: bool) -> None:
        """Have the worker end, if there is one, and wait for that; not for ever."""
        with anyio.CancelScope(shield=True):
            link.send(Stop())
            if not at_once:
                with anyio.move_on_after(min(_LEAVE_S, self._session.config.actor_timeout_s)):
                    await self._wait_for_end(link)
            if self._is_there:
                link.kill()
            if link.is_remote:
                with anyio.move_on_after(_LOST_S):
                    await self._wait_for_end(link)
            self._is_there = False

    async def _wait_for_end(self, link: Link) -> None:
        while self._is_there:
            if isinstance(message := await self._next(link), Played):
                self._note(message)

    async def _next(self, link: Link) -> WorkerEvent:
        message = await link.messages.take()
        if isinstance(message, WorkerExited):
            self._is_there = False
        return message

    # Messages -------------------------------------------------------------------------------------

    async def _handle(self, message: WorkerEvent, link: Link) -> None:
        match message:
            case Played():
                await self._accept_steps(message, link)
            case Failed():
                await self._restart_env(self._refused or self._judged(message), link)
            case EnvDiscarded():
                await self._restart_env(self._refused or WorkerLost("it gave up"), link)
            case WorkerExited():
                raise EnvironmentFailed from WorkerLost(message.in_words)
            case Ready():
                self._is_up = True
                if link.is_remote and self._feed.is_due(self._sent):  # it took a while
                    self._send_weights(link)

    async def _accept_steps(self, played: Played, link: Link) -> None:
        self._note(played)
        following = self._episode + sum(type(event) is EpisodeStarted for event in played.events)
        if self._refused is None:
            try:
                await self._observe(played.events)
            except InvalidExperience as error:  # an observation of another shape, say
                self._refused = error
                link.send(DiscardEnv())
        self._episode = following  # the worker counts those too that are not wanted any more
        self._sent = max(self._sent, played.version)
        link.send(Credit(played.n_steps))
        # Weights are big: the next ones go out when the worker has got those before.
        if link.is_remote and played.version == self._sent and self._feed.is_due(self._sent):
            self._send_weights(link)
        if played.asks and self._refused is None:
            await self._permit(link)

    async def _observe(self, events: tuple[JournalEvent, ...]) -> None:
        steps: list[Experience] = []
        for event in events:
            if isinstance(event, Experience):
                steps.append(event)
                continue
            await self._observe_steps(steps)
            steps = []
            await self._observe_episode(event)
        await self._observe_steps(steps)

    async def _observe_steps(self, steps: list[Experience]) -> None:
        session, report = self._session, self.report
        if self._teller is None and steps:
            try:
                await session.observe_many(steps)
            except InvalidExperience:
                pass  # none was taken: those before the bad one are, below
            else:
                report.steps += len(steps)
                return
        for step in steps:
            is_accepted = not session.is_done
            await session.observe(step)
            report.steps += 1
            if self._teller is not None and is_accepted:
                await self._teller.tell(step.reward, step.status)

    async def _observe_episode(self, event: EpisodeStarted | EpisodeEnded) -> None:
        session = self._session
        if isinstance(event, EpisodeStarted):
            if self._teller is not None:
                self._teller.begin(self._episode)
            self._episode += 1
            await session.on_episode_start(self._actor_id, event.seed)
            return
        record = event.record
        self.report.episodes += 1
        await session.on_episode(
            record.total_reward, record.length, record.status, record.extras, self._actor_id
        )

    def _note(self, played: Played) -> None:
        report, (env_s, act_s, wait_s, syncs) = self.report, self._spent
        report.env_s, report.act_s = env_s + played.env_s, act_s + played.act_s
        report.wait_s, report.syncs = wait_s + played.wait_s, syncs + played.syncs

    # Commands -----------------------------------------------------------------------------------

    def _send_weights(self, link: Link) -> None:
        fresh = self._feed.newest()
        self._sent = fresh.version
        link.send(fresh)

    async def _permit(self, link: Link) -> None:
        """Let it do its next step, when that may be done."""
        if not self._plays_on():
            return
        if self._gate is not None and not await self._gate.enter(self._actor_id):
            self._is_shut_out = True
            return
        pace = self._session.pacing
        while not await pace.begin(self._actor_id, self._sent):
            self._send_weights(link)
        if self._plays_on():
            link.send(Granted())

    def _judged(self, failed: Failed) -> BaseException:
        """What its environment failed of.

        Raises:
            ConfigError: Trying again would not help.
            SessionFailed: It was the policy, not the environment.
        """
        error = failed.error
        match failed.blame:
            case "environment" | "exit":
                return error
            case "policy":
                blamed = blame_policy(self._session, failed.observation, error)
                if isinstance(blamed, InvalidExperience):
                    return blamed
                raise blamed from error
            case "setup":
                if isinstance(error, RemoteFailure):
                    raise ConfigError(described(error).removeprefix("ConfigError: ")) from error
                raise error

    async def _restart_env(self, cause: BaseException, link: Link) -> None:
        """Its environment has failed: have it make another one, unless that was one failure too many."""
        self._refused = None
        self._session.pacing.end(self._actor_id)
        self._give_back()
        if not self._plays_on():
            return
        await recover(self.report, self._failures, cause)
        link.send(RestartEnv())
