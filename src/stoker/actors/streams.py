"""What goes between one actor and the session: events one way, copies of the policy the other.

The version of a policy is the agent's number of optimization steps when it was published. A copy is updated
when the session publishes a policy that is ``sync_interval`` steps ahead (Horgan et al. 2018, "Distributed
Prioritized Experience Replay", algorithm 1, where actors fetch the learner's weights periodically).
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from typing import Protocol

import msgspec

from stoker.actors.messages import Weights
from stoker.actors.sessions import ActorSession
from stoker.actors.worker import OwnPolicy
from stoker.agents.protocol import PortablePolicy, ReportsExploration
from stoker.envs.seeding import episode_seed, next_seed
from stoker.errors import ConfigError, InvalidExperience
from stoker.exits import Contained
from stoker.journal import ActorEvent, EpisodeEnded, EpisodeStarted
from stoker.session.publishing import PolicyBuffer
from stoker.stats import EpisodeRecord
from stoker.types import ActorId, EpisodeStatus, Experience


class ActorReport(msgspec.Struct):
    """Running totals of one actor in this process, the same for all places.

    Attributes:
        actor_id: the actor.
        steps: environment steps that it played, including those after the session's limit.
        episodes: finished episodes.
        restarts: how often its environment failed and was made again.
        env_s: seconds spent in ``reset`` and ``step`` of its environments.
        last_error: the last failure.
        act_s: seconds spent in choosing actions; with the session's policy, including the wait for it.
        wait_s: seconds spent in waiting for the session: for room, an answer or permission.
        syncs: how often its own copy of the policy was updated.
        begun_at: when it began to play, in monotonic seconds; None: not yet.
        ended_at: when it ended; None: not yet.
    """

    actor_id: ActorId
    steps: int = 0
    episodes: int = 0
    restarts: int = 0
    env_s: float = 0.0
    last_error: str | None = None
    act_s: float = 0.0
    wait_s: float = 0.0
    syncs: int = 0
    begun_at: float | None = None
    ended_at: float | None = None

    @property
    def steps_per_sec(self) -> float:
        """Steps per second since it began; 0.0 before that."""
        if self.begun_at is None:
            return 0.0
        elapsed_s = (time.monotonic() if self.ended_at is None else self.ended_at) - self.begun_at
        return self.steps / elapsed_s if elapsed_s > 0 else 0.0


class StepMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One environment step that the session accepted.

    Attributes:
        actor_id: the actor.
        total_steps: environment steps accepted so far, over all actors and attempts.
        episode: the number of the episode of this actor, from 0.
        episode_step: the number of the step within the episode, from 1.
        reward: the reward of the step.
        episode_reward: the undiscounted sum of the episode's rewards so far.
        exploration: the agent's ``exploration_rate``; None: it has none.
        episode_over: whether the step ended the episode.
        status: the status of the episode.
    """

    actor_id: ActorId
    total_steps: int
    episode: int
    episode_step: int
    reward: float
    episode_reward: float
    exploration: float | None
    episode_over: bool
    status: EpisodeStatus


OnStep = Callable[[StepMetrics], Awaitable[None]]
"""Awaited after each accepted step, before the actor continues."""


class Gate(Protocol):
    """Asked by actors before each step."""

    async def enter(self, actor_id: ActorId) -> bool:
        """Wait until this actor may do a step; False ends the actor."""
        ...

    def give_back(self, actor_id: ActorId) -> None:
        """The actor will not do the step that it was granted: its environment failed, or it ends."""
        ...


class ActorStream:
    """Sends one actor's events to the session in order, and counts them.

    Args:
        session: accepts the events.
        actor_id: the actor.
        on_step: called with the metrics of each accepted step.
    """

    def __init__(self, session: ActorSession, actor_id: ActorId, on_step: OnStep | None = None) -> None:
        self.report: ActorReport = ActorReport(actor_id)
        self.next_episode: int = session.actor_episodes(actor_id)
        """The number of the next episode."""
        self.episode_steps: int = 0
        self.episode_reward: float = 0.0
        self._session = session
        self._actor_id: ActorId = actor_id
        self._on_step = on_step
        self._agent = session.agent if isinstance(session.agent, ReportsExploration) else None

    def begin(self) -> None:
        """Begin to play: with the next episode of this actor, which another group may have played before."""
        self.report.begun_at, self.report.ended_at = time.monotonic(), None
        self._session.supervised_actors.add(self._actor_id)
        self.next_episode = self._session.actor_episodes(self._actor_id)

    def next_seed(self, seed: int | None) -> int | None:
        """The seed of the next episode, from that of the run."""
        return next_seed(seed, self._actor_id, self.next_episode)

    async def start_episode(self, seed: int | None) -> None:
        """Begin the next episode."""
        self.resume_episode(())
        await self._session.on_episode_start(self._actor_id, seed)

    def resume_episode(self, steps: Sequence[Experience]) -> None:
        """Continue an episode that the session knows already, after these steps."""
        self.next_episode += 1
        self.episode_steps, self.episode_reward = len(steps), sum(step.reward for step in steps)

    async def observe(self, step: Experience) -> bool:
        """Send one step; whether the session still wanted it.

        Raises:
            InvalidExperience: The session refused it.
        """
        is_wanted = not self._session.is_done
        await self._session.observe(step)
        self.count(step.reward)
        return is_wanted

    async def publish(self, step: Experience) -> None:
        """Give the metrics of the step that was observed last to ``on_step``."""
        if self._on_step is not None:
            metrics = StepMetrics(
                actor_id=self._actor_id,
                total_steps=self._session.accepted_steps,
                episode=self.next_episode - 1,
                episode_step=self.episode_steps,
                reward=step.reward,
                episode_reward=self.episode_reward,
                exploration=None if self._agent is None else float(self._agent.exploration_rate),
                episode_over=step.status.is_done,
                status=step.status,
            )
            with Contained(f"on_step for actor {self._actor_id!r}"):
                await self._on_step(metrics)

    def count(self, reward: float) -> None:
        """Count a step that the session accepted."""
        self.report.steps += 1
        self.episode_steps += 1
        self.episode_reward += reward

    async def end_episode(self, record: EpisodeRecord) -> None:
        """End the episode."""
        self.report.episodes += 1
        await self._session.on_episode(
            record.total_reward, record.length, record.status, record.extras, self._actor_id
        )

    async def send(self, events: Iterable[ActorEvent]) -> None:
        """Send events in order.

        Raises:
            InvalidExperience: The session refused a step; the events before that step were accepted.
        """
        for kind, group in itertools.groupby(events, type):
            if kind is Experience:
                await self._send_steps([step for step in group if isinstance(step, Experience)])
                continue
            for event in group:
                if isinstance(event, EpisodeStarted):
                    await self.start_episode(event.seed)
                elif isinstance(event, EpisodeEnded):
                    await self.end_episode(event.record)

    async def _send_steps(self, steps: list[Experience]) -> None:
        if self._on_step is None:
            with contextlib.suppress(InvalidExperience):  # none was accepted: send them one by one
                await self._session.observe_many(steps)
                for step in steps:
                    self.count(step.reward)
                return
        for step in steps:
            if await self.observe(step):
                await self.publish(step)


class PolicyFeed:
    """Makes copies of the session's policy, and their new weights. For the session's event loop.

    Args:
        policies: the policies that the session acts with.
        sync_interval: a copy that is this many optimization steps behind is updated.

    Raises:
        ConfigError: The session's policies are not ``PortablePolicy``.
    """

    def __init__(self, policies: PolicyBuffer, sync_interval: int) -> None:
        self._policies = policies
        self._interval = sync_interval
        self._newest: Weights | None = None  # shared by all copies that are due together
        with self._acquired():  # checks it
            pass

    def fork(self, seed: int | None, actor_id: ActorId, episode: int) -> OwnPolicy:
        """A copy of the newest policy, for an actor whose next episode has this number.

        The generator of the copy is determined by ``seed``, the actor and that number; without a seed it is
        random.
        """
        run_seed = secrets.randbits(32) if seed is None else seed
        policy_seed = episode_seed(run_seed, actor_id, episode, stream="policies")
        with self._acquired() as (policy, version):
            return OwnPolicy(policy.fork(policy_seed), version)

    def is_due(self, version: int) -> bool:
        """Whether a copy of that version is due for an update."""
        return self._policies.version - version >= self._interval

    def fresh(self) -> Weights:
        """Published weights that are not due for an update, the same for all copies until they are.

        Copies that are due at different times so come to have the same weights, which are packed and sent
        once for all.
        """
        return self.newest() if self._newest is None or self.is_due(self._newest.version) else self._newest

    def newest(self) -> Weights:
        """The newest published weights."""
        if self._newest is None or self._newest.version != self._policies.version:
            with self._acquired() as (policy, version):
                self._newest = Weights(version, policy.weights())
        return self._newest

    @contextlib.contextmanager
    def _acquired(self) -> Generator[tuple[PortablePolicy, int]]:
        published = self._policies.acquire()
        try:
            if not isinstance(policy := published.policy, PortablePolicy):
                raise ConfigError(
                    f"{type(policy).__name__} is not a PortablePolicy (fork, weights and load_weights): "
                    "actors can have no copies of it; use place='tasks' without sync_interval"
                )
            yield policy, published.opt_steps
        finally:
            self._policies.release(published)
