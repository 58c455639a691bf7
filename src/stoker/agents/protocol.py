"""What learns and what acts, as a session sees them.

A session owns its agent: it calls ``observe`` and ``learn`` from one thread, in the order in which
transitions were accepted, and acts on copies made by ``policy``. Neither side knows of queues or disks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from stoker.types import ActMode, ActorId, Experience

__all__ = [
    "ChangesByActing",
    "ChecksInput",
    "CountsOptSteps",
    "HasConfig",
    "HasReplay",
    "LearningAgent",
    "Policy",
    "PortablePolicy",
    "RebuildsReplay",
    "ReplayState",
    "ReportsExploration",
    "config_of",
]


class Policy(Protocol):
    """The acting side: one forward pass for all who wait.

    Never called from two threads at once, nor while ``LearningAgent.publish`` writes to it.
    """

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[Sequence[Any], Sequence[Any] | None]:
        """Choose one action per observation, in the same order.

        Returns:
            The actions, and what to remember about each (log-probability, value, ...) or None. What is
            remembered comes back as ``Experience.policy_extras`` of that actor's next transition.
        """
        ...


@runtime_checkable
class PortablePolicy(Policy, Protocol):
    """A policy of which actors may have copies of their own, in other threads and processes.

    It can be pickled by ``multiprocessing`` when a process is started; from then on only ``weights`` travel.
    """

    def fork(self, seed: int) -> PortablePolicy:
        """An independent copy that draws from its own generator, made from that seed."""
        ...

    def weights(self) -> dict[str, Any]:
        """What ``load_weights`` takes: tensors of their own memory, numbers and strings, by name.

        All that the learner changes when it publishes; not the generator.
        """
        ...

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Act as the policy did that gave these."""
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
    """Whether it learns only from what its policy remembered about an action (a log-probability, say).

    If so, the session refuses experiences whose action its policy did not choose.
    """

    def policy(self) -> Policy:
        """A new, independent acting copy; an agent without parameters may return itself."""
        ...

    def publish(self, policy: Policy) -> None:
        """Bring a copy that ``policy()`` made up to date."""
        ...

    def observe(self, experiences: Sequence[Experience]) -> None:
        """Take transitions in, in order, and add their number to ``total_steps``."""
        ...

    def learn(self) -> Mapping[str, float] | None:
        """Do one optimization step and return its metrics; None when skipped (warm-up, rollout not full)."""
        ...

    def episode_extras(self, actor_id: ActorId) -> Mapping[str, float]:
        """What to log about the episode that this actor has just ended, such as its mean loss."""
        ...

    def on_episode_start(self, actor_id: ActorId) -> None:
        """An actor begins an episode; an unfinished one of that actor, if any, is given up."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, generators and counters: all that a resume needs, in types that
        ``torch.load(weights_only=True)`` accepts. What ``HasReplay.replay`` holds is left out.
        Tensors may share the agent's memory, as torch's do: the session copies them at once.
        """  # noqa: D205
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what ``state_dict`` described.

        Raises:
            ConfigError: The state is of another kind of agent or of other shapes.
        """
        ...


class ReplayState(Protocol):
    """What a session needs of a replay memory: to save it and to bring it back."""

    def state_dict(self) -> dict[str, Any]:
        """The transitions it holds and where it stands."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what ``state_dict`` described."""
        ...


@runtime_checkable
class HasReplay(Protocol):
    """An agent whose replay is saved apart from its weights.

    Step checkpoints hold both. ``best`` holds the weights alone, so that pinning a candidate costs a
    copy of the weights and not one of the replay.
    """

    @property
    def replay(self) -> ReplayState:
        """The replay memory."""
        ...


@runtime_checkable
class RebuildsReplay(HasReplay, LearningAgent, Protocol):
    """An agent whose replay can be filled again by observing what it once observed.

    Checkpoints of a run with a journal then hold no copy of the replay, only where the journal stood. The
    rebuild that it serves, on an agent just made::

        agent.begin_rebuild(point, reference)
        for event in journal[point : checkpoint]:
            agent.observe([experience])  # or agent.on_episode_start(actor_id); learn is not called
        agent.load_state_dict(checkpoint["agent"])
        agent.end_rebuild(reference)
    """

    def rebuild_point(self) -> dict[str, Any]:
        """Where a rebuild may begin: what is under way between transitions, in few bytes.

        Holds tensors, arrays, numbers, strings and containers of these; ``n_added`` among them is the number
        of transitions that were ever added to the replay.
        """
        ...

    def replay_reference(self) -> dict[str, Any]:
        """Where the replay stands, without its transitions; ``n_added`` and ``size`` are among it."""
        ...

    def begin_rebuild(self, point: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
        """Be at that point, with a replay that expects what comes behind it."""
        ...

    def end_rebuild(self, reference: Mapping[str, Any]) -> None:
        """Say that everything up to where ``reference`` stands was observed again.

        Raises:
            ConfigError: It does not fit.
        """
        ...


@runtime_checkable
class CountsOptSteps(Protocol):
    """An agent that counts its optimization steps. A session without a checkpoint begins its count there."""

    @property
    def opt_steps(self) -> int:
        """Optimization steps done, ever."""
        ...


@runtime_checkable
class HasConfig(Protocol):
    """An agent that is made from a config, which recorders log and ``config.json`` keeps."""

    @property
    def config(self) -> msgspec.Struct:
        """The settings that it was made with."""
        ...


@runtime_checkable
class ReportsExploration(Protocol):
    """An agent whose amount of exploration is one number, which is recorded and passed on with each step."""

    @property
    def exploration_rate(self) -> float:
        """How much it explores now: the share of random actions, or a temperature."""
        ...


@runtime_checkable
class ChangesByActing(Protocol):
    """An agent whose state changes when its policy acts, not only when it observes and learns.

    Such as a generator that exploration draws from. ``stoker replay`` trains again without acting, and does
    not compare these entries.
    """

    @property
    def acting_state(self) -> frozenset[str]:
        """The entries of ``state_dict`` that acting changes."""
        ...


@runtime_checkable
class ChecksInput(Protocol):
    """An agent with its own input check, called where the caller still gets the error.

    Both are on the hot path: a microsecond or two, no copies.
    """

    def check_experience(self, experience: Experience) -> None:
        """Refuse a transition that ``observe`` could not take.

        Raises:
            InvalidExperience: A shape, dtype or range is wrong; the message names the value.
        """
        ...

    def check_observation(self, observation: Any) -> None:
        """Refuse an observation that the policy could not act on.

        Raises:
            InvalidExperience: A shape or dtype is wrong, or a value is not finite.
        """
        ...


def config_of(agent: LearningAgent) -> msgspec.Struct | None:
    """The config that an agent was made with; None: it has none, or one of another kind."""
    config: object = agent.config if isinstance(agent, HasConfig) else None
    return config if isinstance(config, msgspec.Struct) else None
