"""The loop of an actor that plays somewhere else: on its own thread or in its own process.

It has its environment and its copy of the policy to itself, tells what it played in batches, and asks before
each step where it is to. A bounded number of its steps is on the way: a training that cannot keep up makes it
wait. Failures are reported; the receiver decides whether to play on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from stoker.actors.copies import OwnPolicy, Weights
from stoker.actors.episodes import EnvFactory, close_played, open_played, play_episode
from stoker.actors.failures import EnvironmentFailed, described
from stoker.actors.mailbox import Mailbox
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
    WorkerCommand,
    WorkerMessage,
)
from stoker.envs import PlayedEnv, episode_seed
from stoker.errors import ConfigError, InvalidExperience, UnexpectedExit
from stoker.journal import EpisodeEnded, EpisodeStarted, JournalEvent
from stoker.session.intake import checked_number
from stoker.types import ActorId, EpisodeStatus, Experience

__all__ = ["Assignment", "Worker"]


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to play, and how it tells of it.

    Attributes:
        actor_id: the actor.
        seed: episodes are seeded from it; None: not at all.
        episode: the number of its first episode.
        asks: whether it asks before each step.
        window_steps: how many of its steps may be on the way; at least ``batch_steps``.
        batch_steps: it tells of so many steps together, at most.
        max_delay_s: it tells at the end of a step, at the latest, when the last time is so long ago.
    """

    actor_id: ActorId
    seed: int | None
    episode: int
    asks: bool = False
    window_steps: int = 64
    batch_steps: int = 16
    max_delay_s: float = 0.02


class _GivenUp(Exception):
    """The environment is to be given up."""


class _PolicyFailed(Exception):
    """The policy raised, with that as ``__cause__``, when it was to act on ``observation``."""

    def __init__(self, observation: Any) -> None:
        super().__init__()
        self.observation = observation


class Worker:
    """Plays an environment until it gets ``Stop``.

    Args:
        assignment: what it is to play.
        factory: makes the environment, which is stepped here.
        policy: chooses the actions.
        commands: from the training.
        tell: takes what it has to tell; may be slow, must not wait for an order.
        newer: weights that a policy of that version is to be brought up to date with, or None; where they
            do not come as commands.
    """

    def __init__(
        self,
        assignment: Assignment,
        factory: EnvFactory,
        policy: OwnPolicy,
        commands: Mailbox[WorkerCommand],
        tell: Callable[[WorkerMessage], None],
        newer: Callable[[int], Weights | None] | None = None,
    ) -> None:
        self._assignment = assignment
        self._factory = factory
        self._policy = policy
        self._commands = commands
        self._tell = tell
        self._newer = newer
        self._episode = assignment.episode
        self._events: list[JournalEvent] = []  # not told yet
        self._told_at = time.monotonic()
        self._n_unconfirmed = 0  # steps that are on the way, or not told yet
        self._fresh: Weights | None = None
        self._is_stopped = self._is_granted = self._is_to_give_up = self._may_begin = False
        self._policy_extras: Any = None
        self._env: PlayedEnv | None = None
        self._env_s = 0.0  # in environments before this one
        self._act_s = self._wait_s = 0.0

    async def run(self) -> None:
        """Play; failures are sent as messages, not raised."""
        self._tell(Ready())
        try:
            while not self._is_stopped:
                problem = await self._play_one()
                self._flush()
                if problem is not None:
                    self._tell(problem)
                    await self._wait_to_begin()
        except ConfigError as error:
            self._tell(Failed("setup", error))

    # One environment, until it fails -----------------------------------------------------------------

    async def _play_one(self) -> WorkerMessage | None:
        name = f"env of actor {self._assignment.actor_id}"
        env: PlayedEnv | None = None
        try:
            env = self._env = await open_played(self._factory, "inline", name)
            while self._goes_on_at_once():
                await self._play(env)
        except EnvironmentFailed as failure:
            cause = failure.__cause__ or failure
            return Failed("exit" if isinstance(cause, UnexpectedExit) else "environment", cause)
        except _PolicyFailed as failure:
            return Failed("policy", failure.__cause__ or failure, failure.observation)
        except _GivenUp:
            return EnvDiscarded()
        finally:
            if env is not None:
                self._env, self._env_s = None, self._env_s + env.busy_s
                await close_played(env, name)
        return None

    async def _play(self, env: PlayedEnv) -> None:
        """One episode."""
        mine = self._assignment
        number, self._episode = self._episode, self._episode + 1
        seed = None if mine.seed is None else episode_seed(mine.seed, mine.actor_id, number)
        self._add(EpisodeStarted(mine.actor_id, seed))
        if number == mine.episode:
            self._flush()  # if this episode kills the worker, the next worker begins the next episode
        record = await play_episode(env, self, seed)
        if record is not None:
            self._add(EpisodeEnded(record, mine.actor_id))
            self._flush()

    # What the episode asks ----------------------------------------------------------------------------

    async def goes_on(self) -> bool:
        """Whether to do a step; waits until it may be done."""
        if self._assignment.asks:
            self._bring_up_to_date()
            self._flush(asks=True)
            while self._goes_on_at_once() and not self._is_granted:
                await self._handle()
            self._is_granted = False
        else:
            while self._goes_on_at_once() and self._n_unconfirmed >= self._assignment.window_steps:
                self._flush()
                await self._handle()
        self._bring_up_to_date()
        return self._goes_on_at_once()

    async def act(self, observation: Any, /) -> Any:
        """Ask its own policy."""
        begun = time.perf_counter()
        try:
            action, self._policy_extras = self._policy.act(observation)
        except InvalidExperience:
            raise
        except Exception as error:
            raise _PolicyFailed(observation) from error
        self._act_s += time.perf_counter() - begun
        return action

    async def observe(
        self, observation: Any, action: Any, reward: float, next_observation: Any, status: EpisodeStatus, /
    ) -> None:
        """Note what came of it.

        Raises:
            InvalidExperience: The reward is not finite.
        """
        checked_number(
            "reward", reward
        )  # here, so that not even a step more is played with such an environment
        extras, self._policy_extras = self._policy_extras, None
        self._n_unconfirmed += 1
        self._add(
            Experience(
                observation,
                action,
                reward,
                next_observation,
                status,
                self._assignment.actor_id,
                extras,
                self._policy.version,
            )
        )

    # Telling -------------------------------------------------------------------------------------------

    def _add(self, event: JournalEvent) -> None:
        mine = self._assignment
        self._events.append(event)
        is_due = time.monotonic() - self._told_at >= mine.max_delay_s
        if is_due or len(self._events) >= mine.batch_steps:
            self._flush()

    def _flush(self, *, asks: bool = False) -> None:
        if self._events or asks:
            self._told_at = time.monotonic()
            events, self._events = tuple(self._events), []
            self._tell(
                Played(
                    events=events,
                    env_s=self._env_s + (0.0 if self._env is None else self._env.busy_s),
                    act_s=self._act_s,
                    wait_s=self._wait_s,
                    syncs=self._policy.syncs,
                    version=self._policy.version,
                    asks=asks,
                )
            )

    # Commands ----------------------------------------------------------------------------------------

    def _goes_on_at_once(self) -> bool:
        """Take all waiting commands; whether to play on.

        Raises:
            _GivenUp: Not with this environment.
        """
        while (command := self._commands.take_now()) is not None:
            self._take(command)
        if self._is_to_give_up and not self._is_stopped:
            raise _GivenUp
        return not self._is_stopped

    async def _handle(self) -> None:
        begun = time.perf_counter()
        self._take(await self._commands.take())
        self._wait_s += time.perf_counter() - begun

    async def _wait_to_begin(self) -> None:
        while not (self._may_begin or self._is_stopped):
            await self._handle()
        self._may_begin = self._is_to_give_up = self._is_granted = False

    def _take(self, command: WorkerCommand) -> None:
        match command:
            case Credit(n_steps):
                self._n_unconfirmed -= n_steps
            case Weights():
                self._fresh = command
            case Granted():
                self._is_granted = True
            case DiscardEnv():
                self._is_to_give_up = True
            case RestartEnv():
                self._may_begin = True
            case Stop():
                self._is_stopped = True

    def _bring_up_to_date(self) -> None:
        fresh, self._fresh = self._fresh, None
        if fresh is None and self._newer is not None:
            fresh = self._newer(self._policy.version)
        if fresh is not None and fresh.version >= self._policy.version:
            try:
                self._policy.load(fresh)
            except ConfigError:
                raise
            except Exception as error:
                raise ConfigError(f"the policy cannot load its weights ({described(error)})") from error
