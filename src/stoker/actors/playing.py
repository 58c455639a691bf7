"""The loop of one actor over many episodes, as a task on the session's event loop.

An environment that raises costs one episode: it is closed and made again. What the session or the agent
raises is not the environment's fault and ends the actor.
"""

from __future__ import annotations

import time
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from stoker.actors.copies import OwnPolicy, PolicyFeed
from stoker.actors.episodes import EnvFactory, close_played, open_played, play_episode
from stoker.actors.failures import EnvironmentFailed, FailureCount, FailureLimit, recover
from stoker.actors.metrics import Gate, OnStep, StepTeller
from stoker.actors.report import ActorReport
from stoker.actors.round_robin import RoundRobin
from stoker.agents.protocol import ChecksInput
from stoker.envs import PlayedEnv, Stepping, episode_seed
from stoker.errors import InvalidExperience, SessionFailed, Stalled
from stoker.session import RunningEpisode, TrainingSession
from stoker.types import ActorId, EpisodeStatus, Experience

__all__ = ["Actor", "EnvFactory", "blame_policy"]


class Actor:
    """Plays an environment on a session until the session is done.

    Args:
        session: takes the experiences and chooses the actions.
        factory: makes the environment.
        actor_id: the stream of episodes that this actor is.
        stepping: where plain environments are stepped.
        seed: episodes are seeded from it, the actor and the episode's number; None: not at all.
        limit: how many failures it puts up with.
        running: the episode that it continues; None: it begins one.
        feed: where its own copy of the policy comes from; None: it has none, and asks the session's ``act``.
        on_step: awaited after each step that was accepted.
        gate: asked before each step.
    """

    is_starting = False

    def __init__(
        self,
        session: TrainingSession,
        factory: EnvFactory,
        actor_id: ActorId,
        *,
        stepping: Stepping = "auto",
        seed: int | None = None,
        limit: FailureLimit | None = None,
        running: RunningEpisode | None = None,
        feed: PolicyFeed | None = None,
        on_step: OnStep | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.report = ActorReport(actor_id)
        self._session = session
        self._factory = factory
        self._actor_id = actor_id
        self._stepping: Stepping = stepping
        self._seed = seed
        self._failures = FailureCount(actor_id, limit or FailureLimit())
        self._running = running
        self._feed = feed
        self._own: OwnPolicy | None = None
        self._policy_extras: Any = None
        self._teller = None if on_step is None else StepTeller(session, actor_id, on_step)
        self._gate = gate
        self._is_shut_out = False  # by the gate
        self._turns: RoundRobin | None = None
        self._place = 0
        self.in_env_since: float | None = None
        """When its environment was last asked for something that has not come, in monotonic seconds."""
        self._life = anyio.CancelScope()  # of the present environment
        self._stuck: Stalled | None = None

    async def run(self, turns: RoundRobin | None = None, place: int = 0) -> None:
        """Play episode after episode.

        Args:
            turns: steps are done only in turn, if given.
            place: this actor's place among those who take turns.

        Raises:
            ActorFailed: The environment failed too often.
            ConfigError: It is not an environment that can be played.
            SessionError: The session does not run.
        """
        self._turns, self._place = turns, place
        self._episode = self._session.actor_episodes(self._actor_id)
        if self._feed is not None:
            self._own = self._feed.fork(self._seed, self._actor_id, self._episode)
        self.report.begin()
        try:
            await self._run()
        finally:
            self.report.end()
            if turns is not None:
                turns.leave(place)

    def give_up(self) -> None:
        """Let go of what it plays: nobody waits for it any more."""
        self._life.cancel()

    def restart(self, stuck: Stalled) -> None:
        """Give up on the environment, which is stuck: it counts as a failure, and another one is made."""
        self._stuck = stuck
        self._life.cancel()

    async def _run(self) -> None:
        name = f"env of actor {self._actor_id}"
        while await self._plays_on():
            env: PlayedEnv | None = None
            self.in_env_since = time.monotonic()
            try:
                with anyio.CancelScope() as self._life:
                    env = await open_played(self._factory, self._stepping, name)
                    await self._play(env)
                self._raise_if_stuck()
            except EnvironmentFailed as failure:
                self._pass_on()
                if not self._session.is_done:  # else nobody needs another one
                    await self._recover(failure.__cause__ or failure)
            finally:
                self.in_env_since = None
                if env is not None:
                    await close_played(env, name)

    def _raise_if_stuck(self) -> None:
        if self._stuck is not None:
            stuck, self._stuck = self._stuck, None
            raise EnvironmentFailed from stuck

    async def goes_on(self) -> bool:
        """Whether to do a step; with turns, when it is this actor's turn."""
        if self._gate is not None and await self._plays_on() and not await self._gate.enter(self._actor_id):
            self._is_shut_out = True
        return await self._plays_on()

    async def act(self, observation: Any, /) -> Any:
        """Ask its own policy, or the session."""
        begun = time.perf_counter()
        if self._own is None:
            action = await self._session.act(observation, actor_id=self._actor_id)
            self.report.act_s += time.perf_counter() - begun
        else:
            action = await self._act_with(self._own, observation, begun)
        self.in_env_since = time.monotonic()
        return action

    async def observe(
        self, observation: Any, action: Any, reward: float, next_observation: Any, status: EpisodeStatus, /
    ) -> None:
        """Tell the session."""
        self.in_env_since = None
        begun = time.perf_counter()
        if self._own is None:
            step = Experience(observation, action, reward, next_observation, status, self._actor_id)
        else:
            step = Experience(
                observation,
                action,
                reward,
                next_observation,
                status,
                self._actor_id,
                self._policy_extras,
                self._own.version,
            )
        is_accepted = not self._session.is_done
        await self._session.observe(step)
        self.report.wait_s += time.perf_counter() - begun
        self.report.steps += 1
        if self._teller is not None and is_accepted:
            await self._teller.tell(reward, status)
        if status.is_done:
            self.in_env_since = time.monotonic()  # it is asked what it has to say of the episode
        else:
            self._pass_on()

    async def _plays_on(self) -> bool:
        """Whether the actor is to go on at all; with turns, when it is its turn."""
        self.in_env_since = None
        if self._turns is not None:
            await self._turns.take(self._place)
        return not (self._session.is_done or self._is_shut_out)

    async def _act_with(self, own: OwnPolicy, observation: Any, begun: float) -> Any:
        """Act on its own copy, brought up to date if that is due, once the pace allows it."""
        session, feed, pace = self._session, self._feed, self._session.pacing
        assert feed is not None  # noqa: S101 - it made the copy
        await checkpoint()  # the actors' steps mix, and none of them holds the event loop
        if (fresh := feed.newer(own.version)) is not None:
            own.load(fresh)
        while not await pace.begin(self._actor_id, own.version):
            own.load(feed.newest())
        self.report.syncs = own.syncs
        waited_until = time.perf_counter()
        self.report.wait_s += waited_until - begun
        try:
            action, self._policy_extras = own.act(observation)
        except InvalidExperience:
            raise
        except Exception as error:
            raise blame_policy(session, observation, error) from error
        self.report.act_s += time.perf_counter() - waited_until
        return action

    def _pass_on(self) -> None:
        if self._turns is not None:
            self._turns.pass_on(self._place)

    async def _play(self, env: PlayedEnv) -> None:
        session, report = self._session, self.report
        earlier_s = report.env_s
        while await self._plays_on():
            running, self._running = self._running, None
            number, self._episode = self._episode, self._episode + 1
            if running is None:
                seed = None if self._seed is None else episode_seed(self._seed, self._actor_id, number)
                await session.on_episode_start(self._actor_id, seed)
                running = RunningEpisode(seed, ())
            if self._teller is not None:
                self._teller.begin(number, len(running.steps), sum(step.reward for step in running.steps))
            self.in_env_since = time.monotonic()
            try:
                record = await play_episode(env, self, running.seed, running.steps)
            finally:
                self.in_env_since = None
                report.env_s = earlier_s + env.busy_s
            if record is not None:
                report.episodes += 1
                await session.on_episode(
                    record.total_reward, record.length, record.status, record.extras, self._actor_id
                )
                self._pass_on()

    async def _recover(self, cause: BaseException) -> None:
        self._session.pacing.end(self._actor_id)  # nobody waits for what it had begun
        if self._gate is not None:
            self._gate.give_back(self._actor_id)
        await recover(self.report, self._failures, cause)


def blame_policy(session: TrainingSession, observation: Any, error: BaseException) -> Exception:
    """What to raise when an actor's own copy of the policy has raised.

    An observation that the agent refuses is the environment's fault, as it is where the session acts. What
    else a policy raises ends the session, as it does there, too.
    """
    agent = session.agent
    if isinstance(agent, ChecksInput):
        try:
            agent.check_observation(observation)
        except InvalidExperience as refused:
            return refused
    session.fail("policy", error)
    return SessionFailed("policy", error)
