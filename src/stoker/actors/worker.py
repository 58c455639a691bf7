"""The loop of an actor that plays elsewhere: on a thread, in a process or on another machine.

A worker has its own environment and its own copy of the policy, and sends what it played in batches. It plays
ahead as far as its credit goes, so a training that cannot keep up makes it wait; or it has no credit, and
asks before each step. It ends when its environment fails; the training decides whether to start another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

import stoker.actors.messages as messages
from stoker.actors.episodes import (
    Choice,
    EnvFactory,
    EnvironmentFailed,
    PolicyFailed,
    opened_env,
    play_episode,
)
from stoker.actors.messages import Mailbox, Weights, WorkerCommand, WorkerMessage, described
from stoker.agents.protocol import PortablePolicy
from stoker.envs import PlayedEnv
from stoker.envs.seeding import next_seed
from stoker.errors import ConfigError, InvalidExperience
from stoker.exits import Contained
from stoker.journal import EpisodeEnded, EpisodeStarted, JournalEvent
from stoker.plain import finite_float
from stoker.types import ActMode, ActorId, Experience

__all__ = ["Assignment", "OwnPolicy", "Worker"]

_ACTING, _LOADING = Contained("policy.act"), Contained("policy.load_weights")


class OwnPolicy:
    """A copy that one actor acts on.

    Args:
        policy: the copy.
        version: the agent's optimization steps when its weights were published.
    """

    def __init__(self, policy: PortablePolicy, version: int) -> None:
        self.policy = policy
        self.version = version
        self.syncs = 0
        """How often it was updated."""

    def act(self, observation: Any) -> tuple[Any, Any, int]:
        """An exploring action, its policy extras and the version.

        Raises:
            InvalidExperience: The policy refuses the observation.
            PolicyFailed: The policy raised anything else.
        """
        try:
            with _ACTING:
                actions, extras = self.policy.act([observation], ActMode.EXPLORE)
        except InvalidExperience:
            raise
        except Exception as error:
            raise PolicyFailed(observation) from error
        return actions[0], None if extras is None else extras[0], self.version

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
        actor_id: the actor.
        seed: seeds its episodes; None: no seeds.
        episode: the number of its first episode.
        asks: whether it asks for credit before each step.
        window_steps: its credit at the start, which is the most steps in flight; at least ``batch_steps``.
        batch_steps: the most events in one message.
        max_delay_s: the longest time between two messages, checked at the end of each step.
    """

    actor_id: ActorId
    seed: int | None
    episode: int
    asks: bool = False
    window_steps: int = 64
    batch_steps: int = 16
    max_delay_s: float = 0.02


class Worker:
    """Plays one environment until it fails or the worker gets ``Stop``.

    Args:
        assignment: what it plays.
        factory: makes the environment.
        policy: chooses the actions.
        commands: from the training.
        post: takes its messages; may be slow, must not wait for a command.
    """

    def __init__(
        self,
        assignment: Assignment,
        factory: EnvFactory,
        policy: OwnPolicy,
        commands: Mailbox[WorkerCommand],
        post: Callable[[WorkerMessage], None],
    ) -> None:
        self._assignment = assignment
        self._factory = factory
        self._policy = policy
        self._commands = commands
        self._post = post
        self._episode = assignment.episode
        self._events: list[JournalEvent] = []  # not sent yet
        self._sent_at = time.monotonic()
        self._credit = 0 if assignment.asks else assignment.window_steps
        self._is_stopped = False
        self._env: PlayedEnv | None = None
        self._act_s = self._wait_s = 0.0

    async def run(self) -> None:
        """Play until stopped or until something fails; failures are sent as messages, not raised."""
        name = f"env of actor {self._assignment.actor_id}"
        self._post(messages.Ready())
        try:
            try:
                async with opened_env(self._factory, "inline", name) as self._env:
                    try:
                        while self._may_continue():
                            await self._play(self._env)
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
        record = await play_episode(env, self, mine.actor_id, seed)
        if record is not None:
            self._add(EpisodeEnded(record, mine.actor_id))
            self._flush()

    # The listener of an episode -----------------------------------------------------------------------

    async def may_step(self) -> bool:
        """Wait for credit; False once the worker is stopped."""
        if self._may_continue() and self._credit <= 0:
            self._flush(asks=self._assignment.asks)
            begun = time.perf_counter()
            while self._may_continue() and self._credit <= 0:
                self._take(await self._commands.take())
            self._wait_s += time.perf_counter() - begun
        return not self._is_stopped

    async def act(self, observation: Any, /) -> Choice:
        """Ask its own policy."""
        begun = time.perf_counter()
        choice = self._policy.act(observation)
        self._act_s += time.perf_counter() - begun
        return choice

    async def observe(self, step: Experience, /) -> None:
        """Add the step to the next message.

        Raises:
            InvalidExperience: The reward is not finite.
        """
        finite_float("reward", step.reward)  # here, so that such an environment does not do another step
        self._credit -= 1
        self._add(step)

    # Messages -----------------------------------------------------------------------------------------

    def _add(self, event: JournalEvent) -> None:
        self._events.append(event)
        is_due = time.monotonic() - self._sent_at >= self._assignment.max_delay_s
        if is_due or len(self._events) >= self._assignment.batch_steps:
            self._flush()

    def _flush(self, *, asks: bool = False) -> None:
        if self._events or asks:
            self._sent_at = time.monotonic()
            events, self._events = tuple(self._events), []
            env_s = 0.0 if self._env is None else self._env.busy_s
            syncs, version = self._policy.syncs, self._policy.version
            self._post(messages.Played(events, env_s, self._act_s, self._wait_s, syncs, version, asks))

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
