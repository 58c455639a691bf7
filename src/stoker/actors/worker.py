"""The loop of an actor that plays elsewhere: on a thread, in a process or on another machine.

A worker has its own environment and its own copy of the policy, and sends what it played in batches. It plays
ahead as far as its credit goes, so a training that cannot keep up makes it wait; or it has no credit, and
asks before each step. It ends when its environment fails; the training decides whether to start another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

import stoker.actors.messages as messages
from stoker.actors.episodes import (
    Choice,
    EnvCalls,
    EnvFactory,
    EnvironmentFailed,
    EpisodeTally,
    PolicyFailed,
    opened_env,
    play_episode,
)
from stoker.actors.messages import Mailbox, PlayedEvent, Weights, WorkerCommand, WorkerMessage
from stoker.actors.timing import ACTING, ACTOR_STATES, OBSERVING, RESETTING, STEPPING, times_of
from stoker.agents.protocol import ActsForActors, PortablePolicy
from stoker.envs import PlayedEnv
from stoker.envs.rounds import Round
from stoker.envs.seeding import next_seed
from stoker.envs.vector import Moves, in_rounds
from stoker.errors import ConfigError, InvalidExperience
from stoker.exits import Contained
from stoker.journal import EpisodeEnded, EpisodeStarted
from stoker.plain import finite_float
from stoker.raising import described
from stoker.telemetry import StateClock
from stoker.types import ActMode, ActorId, Experience

_ACTING, _LOADING = Contained("policy.act"), Contained("policy.load_weights")


class OwnPolicy:
    """A copy that one actor acts on, or those of one vector environment.

    Args:
        policy: the copy.
        version: the agent's optimization steps when its weights were published.
    """

    def __init__(self, policy: PortablePolicy, version: int) -> None:
        self.policy = policy
        self._for_actors = policy if isinstance(policy, ActsForActors) else None
        self.version: int = version
        self.syncs: int = 0
        """How often it was updated."""
        self.agent_spaces: tuple[Any, Any] | None = None
        """Those that the agent was made for; None: it does not know them."""

    def act(self, observation: Any, actor_id: ActorId) -> tuple[Any, Any, int]:
        """An exploring action of an actor, its policy extras and the version.

        Raises:
            InvalidExperience: The policy refuses the observation.
            PolicyFailed: The policy raised anything else.
        """
        actions, extras, version = self.act_many([observation], [actor_id])
        return actions[0], None if extras is None else extras[0], version

    def act_many(
        self, observations: Sequence[Any], actor_ids: Sequence[ActorId]
    ) -> tuple[Sequence[Any], Sequence[Any] | None, int]:
        """The same for the observation of each of several actors, in one pass.

        Raises:
            InvalidExperience, PolicyFailed: As for ``act``; the observation is the first that fails alone.
        """
        try:
            with _ACTING:
                if self._for_actors is None:
                    return *self.policy.act(observations, ActMode.EXPLORE), self.version
                return *self._for_actors.act_for(observations, ActMode.EXPLORE, actor_ids), self.version
        except InvalidExperience:
            raise
        except Exception as error:
            if len(observations) > 1:
                for observation, actor_id in zip(observations, actor_ids, strict=True):
                    self.act(observation, actor_id)
            raise PolicyFailed(observations[0]) from error

    def end_episode(self, actor_id: ActorId) -> None:
        """An actor's episode has ended."""
        if self._for_actors is not None:
            self._for_actors.end_episode(actor_id)

    def load(self, fresh: Weights) -> None:
        """Act with these weights from now on.

        Raises:
            ConfigError: The policy cannot load them.
        """
        try:
            with _LOADING:
                self.policy.load_weights(fresh.weights)
        except Exception as error:
            raise ConfigError(f"the policy cannot load its weights ({described(error)})") from error
        self.version = fresh.version
        self.syncs += 1


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker plays, and when it sends messages.

    Attributes:
        actor_id: the actor; the first one of a vector environment.
        seed: seeds its episodes; None: no seeds.
        episode: the number of its first episode.
        actor_ids: those of the sub-environments of a vector environment; empty: it is a single environment.
        episodes: the number of the first episode of each of them.
        asks: whether it asks for credit before each step; of a vector environment, before each round.
        window_steps: its credit at the start, which is the most steps in flight; at least ``batch_steps``.
        batch_steps: the most events in one message.
        max_delay_s: the longest time between two messages, checked at the end of each step.
    """

    actor_id: ActorId
    seed: int | None
    episode: int
    actor_ids: tuple[ActorId, ...] = ()
    episodes: tuple[int, ...] = ()
    asks: bool = False
    window_steps: int = 64
    batch_steps: int = 16
    max_delay_s: float = 0.02


class Worker:
    """Plays one environment, or a vector environment, until it fails or the worker gets ``Stop``.

    Of a vector environment the transitions of a round are one ``ExperienceBatch``, if they are arrays.

    Args:
        assignment: what it plays.
        factory: makes the environment.
        policy: chooses the actions.
        commands: from the training.
        post: takes its messages; may be slow, must not wait for a command.
        on_played: called with the number of steps right after the environment did them, before anything of
            them is sent; None: nobody counts.
    """

    def __init__(
        self,
        assignment: Assignment,
        factory: EnvFactory,
        policy: OwnPolicy,
        commands: Mailbox[WorkerCommand],
        post: Callable[[WorkerMessage], None],
        on_played: Callable[[int], None] | None = None,
    ) -> None:
        self._on_played = on_played
        self._assignment = assignment
        self._factory = factory
        self._policy = policy
        self._commands = commands
        self._post = post
        self._episode = assignment.episode
        self._episodes = list(assignment.episodes)
        self._events: list[PlayedEvent] = []  # not sent yet
        self._sent_at = time.monotonic()
        self._credit = 0 if assignment.asks else assignment.window_steps
        self._is_stopped = False
        self._clock = StateClock(ACTOR_STATES)

    async def run(self) -> None:
        """Play until stopped or until something fails; failures are sent as messages, not raised."""
        mine, factory, play = self._assignment, self._factory, self._play
        if mine.actor_ids:
            factory, play = partial(in_rounds, factory, mine.actor_ids), self._play_rounds
        name = f"env of actor {mine.actor_id}"
        self._post(messages.Ready())
        try:
            try:
                async with opened_env(factory, "inline", name, spaces=self._policy.agent_spaces) as env:
                    try:
                        while self._may_continue():
                            await play(env)
                    finally:
                        self._flush()
            except (EnvironmentFailed, PolicyFailed) as failure:
                self._post(messages.Failed(failure.__cause__ or failure, *failure.args))
        except ConfigError as error:  # of the setup, or of a message that cannot be sent
            self._post(messages.Failed(error))

    async def _play(self, env: PlayedEnv) -> None:
        mine = self._assignment
        number, self._episode = self._episode, self._episode + 1
        seed = next_seed(mine.seed, mine.actor_id, number)
        self._add(EpisodeStarted(mine.actor_id, seed))
        if number == mine.episode:
            self._flush()  # if this episode kills the worker, the next worker begins the next episode
        self._clock.enter(RESETTING)
        record = await play_episode(env, self, mine.actor_id, seed)
        if record is not None:
            self._policy.end_episode(mine.actor_id)
            self._add(EpisodeEnded(record, mine.actor_id))
            self._flush()

    # A vector environment -----------------------------------------------------------------------------

    async def _play_rounds(self, env: PlayedEnv) -> None:
        call = EnvCalls()
        seed_of: Any = self._seed_of
        tally = EpisodeTally(len(self._episodes))
        n_unsent = 0
        clock = self._clock
        clock.enter(RESETTING)
        try:
            now, _ = await call(env.reset(seed_of))
            clock.enter(OBSERVING)
            self._begin_episodes(now, tally)
            self._flush()
            while await self.may_step():
                clock.enter(ACTING)
                seen: Any = now.shown.of(now.acting, now.where)
                actions, extras, version = (
                    self._policy.act_many(seen, now.actor_ids) if now.acting else ((), None, 0)
                )
                clock.enter(STEPPING)
                now, *_, info = await call(env.step(Moves(now.spread(actions), seed_of)))
                clock.enter(OBSERVING)
                n_steps = self._add_round(now, extras, version)
                for index, record in tally.add(now, info):
                    actor_id = self._assignment.actor_ids[index]
                    self._policy.end_episode(actor_id)
                    self._events.append(EpisodeEnded(record, actor_id))
                self._begin_episodes(now, tally)
                self._credit -= 1 if self._assignment.asks else n_steps
                n_unsent += n_steps
                if self._is_late() or n_unsent >= self._assignment.batch_steps:
                    self._flush()
                    n_unsent = 0
        except InvalidExperience as error:
            raise EnvironmentFailed from error

    def _seed_of(self, index: int) -> int | None:
        mine = self._assignment
        return next_seed(mine.seed, mine.actor_ids[index], self._episodes[index])

    def _begin_episodes(self, now: Round, tally: EpisodeTally) -> None:
        for index, seed in now.begun:
            tally.begin(index)
            self._episodes[index] += 1
            self._events.append(EpisodeStarted(self._assignment.actor_ids[index], seed))

    def _add_round(self, now: Round, extras: Sequence[Any] | None, version: int) -> int:
        """Add the transitions of a round to the next message, and return how many they are.

        Raises:
            InvalidExperience: A reward is not finite.
        """
        done: Any = now.outcome
        n_steps = len(done.acted)
        if not np.isfinite(done.rewards).all():
            for reward in done.rewards.tolist():
                finite_float("reward", reward)
        if self._on_played is not None:
            self._on_played(n_steps)
        batch = done.batch() if extras is None or getattr(extras, "ndim", 0) == 2 else None
        if not n_steps:
            return 0
        if batch is not None:
            versions = np.full(n_steps, version)
            self._events.append(replace(batch, policy_extras=extras, policy_versions=versions))
            return n_steps
        for row, step in enumerate(now.transitions):
            own = None if extras is None else extras[row]
            self._events.append(replace(step, policy_extras=own, policy_version=version))
        return n_steps

    # The listener of an episode -----------------------------------------------------------------------

    async def may_step(self) -> bool:
        """Wait for credit; False once the worker is stopped."""
        if self._may_continue() and self._credit <= 0:
            self._flush(asks=self._assignment.asks)
            while self._may_continue() and self._credit <= 0:
                self._take(await self._commands.take())
        return not self._is_stopped

    async def act(self, observation: Any, /) -> Choice:
        """Ask its own policy."""
        self._clock.enter(ACTING)
        choice = self._policy.act(observation, self._assignment.actor_id)
        self._clock.enter(STEPPING)
        return choice

    async def observe(self, step: Experience, /) -> None:
        """Add the step to the next message.

        Raises:
            InvalidExperience: The reward is not finite.
        """
        self._clock.enter(OBSERVING)
        finite_float("reward", step.reward)  # here, so that such an environment does not do another step
        if self._on_played is not None:
            self._on_played(1)
        self._credit -= 1
        self._add(step)

    # Messages -----------------------------------------------------------------------------------------

    def _add(self, event: PlayedEvent) -> None:
        self._events.append(event)
        if self._is_late() or len(self._events) >= self._assignment.batch_steps:
            self._flush()

    def _is_late(self) -> bool:
        return time.monotonic() - self._sent_at >= self._assignment.max_delay_s

    def _flush(self, *, asks: bool = False) -> None:
        if self._events or asks:
            self._sent_at = time.monotonic()
            events, self._events = tuple(self._events), []
            syncs, version = self._policy.syncs, self._policy.version
            self._post(messages.Played(events, times_of(self._clock), syncs, version, asks))

    # Commands -----------------------------------------------------------------------------------------

    def _may_continue(self) -> bool:
        """Take all commands that are there; False once the worker is stopped."""
        while (command := self._commands.take_now()) is not None:
            self._take(command)
        return not self._is_stopped

    def _take(self, command: WorkerCommand) -> None:
        match command:
            case messages.Credit(n_steps):
                self._credit += n_steps
            case Weights(version):
                if version >= self._policy.version:
                    self._policy.load(command)
            case messages.Stop():
                self._is_stopped = True
