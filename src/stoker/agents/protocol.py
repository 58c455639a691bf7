"""The protocols of agents and policies, as a session sees them.

A session owns its agent: it calls ``observe`` and ``learn`` from one thread, in the order in which
transitions were accepted, and acts on copies made by ``policy``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import msgspec

from stoker.errors import ConfigError
from stoker.types import ActMode, ActorId, Experience, ExperienceBatch

if TYPE_CHECKING:
    from torch import nn


class Policy(Protocol):
    """The acting side of an agent: one forward pass for all pending observations.

    Calls never overlap, neither with each other nor with ``LearningAgent.publish``.
    """

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[Sequence[Any], Sequence[Any] | None]:
        """One action per observation, in the same order, and extras for each action, or None.

        Observations may be a list, or one array ``[B, *observation_shape]`` if they came as one.
        Extras (log-probability, value, ...) come back as ``policy_extras`` of that actor's next transition.
        """
        ...


@runtime_checkable
class ActsForActors(Policy, Protocol):
    """A policy whose exploration depends on the actor: it keeps the same noise for several steps, say.

    It is asked by ``act_for`` wherever the actors are known. The copies that a session acts with share what
    they keep of the actors, and learn from ``LearningAgent.observe`` that an episode has ended; a fork of a
    ``PortablePolicy`` keeps its own.
    """

    def act_for(
        self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId]
    ) -> tuple[Sequence[Any], Sequence[Any] | None]:
        """As ``act``, for the actor of each observation, whatever other actors are in the call."""
        ...

    def end_episode(self, actor_id: ActorId) -> None:
        """An actor's episode has ended; called on forks."""
        ...


@runtime_checkable
class PortablePolicy(Policy, Protocol):
    """A policy that actors can copy to other threads and processes.

    ``multiprocessing`` pickles it when a process starts; from then on only ``weights`` travel.
    """

    def fork(self, seed: int) -> PortablePolicy:
        """An independent copy that draws from its own generator, made from that seed."""
        ...

    def weights(self) -> dict[str, Any]:
        """All that ``publish`` changes: tensors with their own memory, numbers and strings, by name."""
        ...

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Act like the policy whose ``weights()`` these are."""
        ...


class LearningAgent(Protocol):
    """A policy and its learner. Called by the session only, never from two threads at once.

    The loop that it serves::

        for experience in accepted_order:
            agent.observe([experience])             # or longer slices, cut at learning steps
            if session.total_steps % opt_interval == 0:
                metrics = agent.learn()
        agent.publish(policy)
    """

    total_steps: int
    """Transitions observed, ever; also those from before a resume."""

    needs_policy_extras: bool
    """Whether the session must refuse experiences whose action the agent's own policy did not choose."""

    def policy(self) -> Policy:
        """A new, independent acting copy; an agent without parameters may return itself."""
        ...

    def publish(self, policy: Policy) -> None:
        """Bring a copy that ``policy()`` made up to date."""
        ...

    def observe(self, experiences: Sequence[Experience]) -> None:
        """Add transitions, in order, and count them in ``total_steps``. Their arrays are not written to."""
        ...

    def learn(self) -> Mapping[str, float] | None:
        """Do one optimization step; return its metrics, or None if it was skipped."""
        ...

    def episode_extras(self, actor_id: ActorId) -> Mapping[str, float]:
        """Numbers to log with the episode that this actor just ended, for example its mean loss."""
        ...

    def on_episode_start(self, actor_id: ActorId) -> None:
        """Begin an episode of this actor; abandon its unfinished one, if any."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs except the replay, in types that ``torch.load(weights_only=True)`` accepts.

        Tensors may share the agent's memory: the session copies them at once.
        """
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            ConfigError: The state is of another kind of agent or of other shapes.
        """
        ...


class Stateful(Protocol):
    """A part of an agent, for example its replay memory, that can be saved and restored."""

    def state_dict(self) -> Mapping[str, Any]:
        """The state as ``LearningAgent.state_dict`` describes it."""
        ...

    def load_state_dict(self, state: Any, /) -> object:
        """Restore what ``state_dict`` returned."""
        ...


@runtime_checkable
class HasReplay(Protocol):
    """An agent whose replay is saved apart from its weights.

    Step checkpoints hold both; ``best`` holds the weights alone.
    """

    @property
    def replay(self) -> Stateful:
        """The replay memory."""
        ...


@runtime_checkable
class RebuildsReplay(HasReplay, LearningAgent, Protocol):
    """An agent that can rebuild its replay by observing the same events again.

    Checkpoints of a run with a journal then hold no copy of the replay, only where the journal stood. The
    rebuild that it serves, on an agent just made::

        agent.begin_rebuild(point, reference)
        for event in journal[point : checkpoint]:
            agent.observe([experience])  # or agent.on_episode_start(actor_id); learn is not called
        agent.load_state_dict(checkpoint["agent"])
        agent.end_rebuild(reference)
    """

    def rebuild_point(self) -> dict[str, Any]:
        """A point where a rebuild can begin: the state between transitions, in few bytes.

        Tensors, arrays, numbers, strings and containers of these; ``n_added`` is the count of transitions
        ever added.
        """
        ...

    def replay_reference(self) -> dict[str, Any]:
        """The replay's position, without its transitions; with ``n_added`` and ``size``."""
        ...

    def begin_rebuild(self, point: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
        """Restore the state of that point; the transitions after it follow."""
        ...

    def end_rebuild(self, reference: Mapping[str, Any]) -> None:
        """Finish a rebuild.

        Raises:
            ConfigError: The number of transitions observed again differs.
        """
        ...


class PriorData(msgspec.Struct, frozen=True):
    """What names the prior data of a training: all of its attempts have the same.

    Attributes:
        digest: the SHA-256 of the transitions as the agent keeps them.
        size: how many they are.
        share: of a batch, above 0 and below 1.
    """

    digest: str
    size: int
    share: float


@runtime_checkable
class HasSpaces(Protocol):
    """An agent that knows its spaces. An environment of others that fails ends the session at once."""

    @property
    def env_spaces(self) -> tuple[Any, Any]:
        """The spaces of observations and actions that it was made for."""
        ...


@runtime_checkable
class UsesPriorData(LearningAgent, HasSpaces, Protocol):
    """An agent that learns from prior data besides the transitions that it observes.

    Prior data are not counted in ``total_steps``, not saved and not journaled: a resume or a replay makes the
    agent again and gives it the same data before it loads the state.
    """

    @property
    def prior(self) -> PriorData | None:
        """The data that it uses."""
        ...

    def use_prior(
        self, batches: Iterable[ExperienceBatch | Sequence[Experience]], n_transitions: int, share: float
    ) -> None:
        """Let each batch have a fixed share of prior data. Blocks while they are copied.

        Args:
            batches: the transitions in order, not checked yet; episodes may go on in the next batch, and
                where the last one breaks off, it leads to its last observation.
            n_transitions: how many come at most.
            share: of each batch, above 0 and below 1.

        Raises:
            ConfigError: The share leaves nothing of one of the two, the settings do not go with prior data,
                or there are none.
            InvalidExperience: A transition is not of the agent's spaces.
        """
        ...


@runtime_checkable
class ChecksInput(Protocol):
    """An agent that checks its input before a session accepts it: in a microsecond or two, without copies."""

    def check_experience(self, experience: Experience) -> None:
        """Raise ``InvalidExperience``, naming the value, for a transition that ``observe`` cannot take."""
        ...

    def check_observation(self, observation: Any) -> None:
        """Raise ``InvalidExperience`` for an observation that the policy cannot act on."""
        ...


@runtime_checkable
class ChecksBatches(ChecksInput, Protocol):
    """An agent that checks columns at once, in a few microseconds.

    A check returns whether every row passes the check of a single one. False: rows are to be checked one by
    one, which finds the error.
    """

    def check_batch(self, batch: ExperienceBatch) -> bool:
        """Whether ``check_experience`` passes each of the batch's experiences."""
        ...

    def check_observations(self, observations: Any) -> bool:
        """Whether ``check_observation`` passes each row of an array."""
        ...


@runtime_checkable
class ObservesBatches(Protocol):
    """An agent that takes batches of columns; for others a session takes them apart."""

    def observe_batch(self, batch: ExperienceBatch) -> None:
        """Take a batch in: to the bit what ``observe(batch.experiences())`` does.

        Its arrays are not written to: the journal compares the next batch with them.
        """
        ...


@runtime_checkable
class LearnsSeldom(Protocol):
    """An agent whose ``learn`` does nothing until it has observed enough: it is not called before.

    Its ``observe`` is quick: until then the session may call it on the event loop, where a hand-over to the
    learner's thread would cost more.
    """

    @property
    def steps_to_learn(self) -> int:
        """Transitions that are missing until ``learn`` does something; at most 0: none."""
        ...


@runtime_checkable
class CountsOptSteps(Protocol):
    """An agent that counts its optimization steps. A session without a checkpoint begins its count there."""

    opt_steps: int
    """Optimization steps done, ever."""


@runtime_checkable
class HasConfig(Protocol):
    """An agent that is made from a config, which recorders log and ``config.json`` keeps."""

    config: msgspec.Struct
    """The settings that it was made with."""


@runtime_checkable
class ChangesSettings(HasConfig, LearningAgent, Protocol):
    """An agent that can be made again with other settings.

    Each attempt of a run may have its own. What a journal holds of an attempt is learned again with the
    settings of that attempt; then the next agent loads the state of this one, and of its replay, unless both
    have the same replay. Only one of them is used at a time.
    """

    def with_settings(self, settings: Mapping[str, Any]) -> LearningAgent | None:
        """A new agent of the same kind, spaces and device with these settings, as ``settings_of`` gives them.

        The agent itself if it learns the same with them, and None if it cannot be made.

        Raises:
            ConfigError: The state of such an agent has no meaning for this one, or the other way round.
        """
        ...


@runtime_checkable
class HasPolicyModule(Protocol):
    """An agent whose greedy policy can be exported: see ``stoker.export_policy``."""

    def policy_module(self) -> nn.Module:
        """The greedy policy, whole: a module on the CPU with its own weights.

        Its ``forward`` takes one tensor ``[B, *shape]`` for each part of an observation, just as the
        environment gives it: the observation itself, or the members of a Dict or Tuple, nested ones in place,
        in the order of the space. It returns the actions ``[B, *action_shape]`` as the environment takes
        them. Scaling, normalization, masks and the bounds of actions are inside. It draws no random numbers.

        If it has a method ``distribution`` of the same arguments, which returns tensors ``[B, ...]`` by name,
        such as ``{"logits": ...}`` or ``{"mean": ..., "std": ...}``, these can be exported, too; ``"values"``
        and ``"logits"`` rank discrete actions.
        """
        ...


@runtime_checkable
class ReportsExploration(Protocol):
    """An agent whose amount of exploration is one number, which is recorded and passed on with each step."""

    exploration_rate: float
    """How much it explores now: the share of random actions, or a temperature."""


@runtime_checkable
class ChangesByActing(Protocol):
    """An agent whose state changes when its policy acts: a generator of exploration, say.

    ``stoker replay`` trains again without acting, and does not compare these entries.
    """

    acting_state: frozenset[str]
    """The entries of ``state_dict`` that acting changes."""


def check_agent(agent: object, source: str = "") -> None:
    """Raise ``ConfigError``, which begins with the source, for an object that is not a ``LearningAgent``."""
    parts = [*LearningAgent.__annotations__, *vars(LearningAgent)]
    if missing := [part for part in parts if not part.startswith("_") and not hasattr(agent, part)]:
        kind = type(agent).__name__
        raise ConfigError(f"{source}{kind} is not a LearningAgent: it lacks {', '.join(missing)}")


def config_of(agent: LearningAgent) -> msgspec.Struct | None:
    """The agent's config, if it is a struct."""
    config: object = agent.config if isinstance(agent, HasConfig) else None
    return config if isinstance(config, msgspec.Struct) else None


def settings_of(agent: LearningAgent) -> dict[str, Any] | None:
    """The agent's config as plain values by name, if it is a struct."""
    config = config_of(agent)
    return None if config is None else cast("dict[str, Any]", msgspec.to_builtins(config))


def prior_of(agent: LearningAgent) -> PriorData | None:
    """The prior data that the agent uses, if any."""
    return agent.prior if isinstance(agent, UsesPriorData) else None
