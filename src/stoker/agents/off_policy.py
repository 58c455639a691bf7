"""The base of agents that learn from a replay: everything but their networks, their loss and their settings.

An agent makes its networks and implements ``_update``: one optimization step on one batch.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Generic, NamedTuple, Self, TypeVar

import msgspec
import torch
from torch import nn

from stoker.agents.base import AgentSeeds, BaseAgent, NetworkT, PolicyT
from stoker.agents.config import OffPolicyConfig
from stoker.agents.packing import PackedWeights
from stoker.agents.prior import PriorReplay, checked, rows_of_share, seed_of_draws
from stoker.agents.protocol import PriorData
from stoker.agents.spaces import AgentSpaces
from stoker.errors import ConfigError
from stoker.processing import StepProcessor
from stoker.replay import Batch, PrioritizedReplay, TransitionSpec, UniformReplay
from stoker.replay.ring import Ring
from stoker.stats.aggregators import Std
from stoker.types import ActorId, Experience, ExperienceBatch

_REPLAY_SETTINGS = ("n_step", "normalize_rewards", "clip_rewards", "prioritized")
"""The settings that decide what a replay holds; with some of them ``gamma`` does, too."""

_STORING_SETTINGS = (
    "buffer_size",
    *(name for name in OffPolicyConfig.__struct_fields__ if "priorit" in name),
)
"""The settings that a replay is made with."""

ConfigT = TypeVar("ConfigT", bound=OffPolicyConfig)
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Update(NamedTuple):
    """The outcome of one optimization step: ``loss`` and other metrics, and errors float32 ``[B]``.

    The absolute error of a transition is its priority: a TD error, or its loss.
    """

    errors: torch.Tensor
    metrics: dict[str, float]


class TargetNetwork(Generic[ModuleT]):
    """A copy of a network that follows it slowly, so that targets change slowly (Mnih et al. 2015).

    At each step it moves by the fraction ``tau`` towards the weights; without ``tau`` it copies them at every
    ``interval``-th step.
    """

    def __init__(self, network: ModuleT, weights: PackedWeights, tau: float | None, interval: int) -> None:
        self.network = copy.deepcopy(network).requires_grad_(requires_grad=False)
        self.weights: PackedWeights = PackedWeights(self.network)
        self._source = weights
        self._tau = tau
        self._interval = interval

    def follow(self, opt_steps: int) -> None:
        """Move or copy the weights if that is due after this many optimization steps."""
        if self._tau is not None:
            self.weights.blend_from(self._source, self._tau)
        elif opt_steps % self._interval == 0:
            self.weights.copy_from(self._source)


class OffPolicyAgent(BaseAgent[ConfigT, NetworkT, PolicyT]):
    """An agent that learns from batches of a replay, which is saved apart from it (``HasReplay``).

    Learning begins when the replay holds ``learning_starts`` transitions and at least one batch, or with
    prior data its share of one. Rewards are clipped or scaled only for the replay. A loss counts towards the
    running episode of the actor whose transition was observed last.

    The arguments are those of ``BaseAgent``.

    Raises:
        ConfigError: The replay cannot be kept.
    """

    total_steps: int

    def __init__(
        self, spaces: AgentSpaces[Any], config: ConfigT, seeds: AgentSeeds, network: NetworkT
    ) -> None:
        super().__init__(spaces, config, seeds, network)
        self._replay = make_replay(config, spaces, self._device, seeds.learning)
        self._prior: PriorReplay | None = None
        self._prior_seed = seed_of_draws(seeds.learning)
        self._n_played = config.batch_size  # rows of a batch that are not prior data
        self._steps = _step_processor(config)
        self._losses = EpisodeLosses()
        self._parts |= {"steps": self._steps, "losses": self._losses}

    @property
    def replay(self) -> UniformReplay | PrioritizedReplay:
        """The replay memory, which ``state_dict`` leaves out."""
        return self._replay

    @property
    def steps_to_learn(self) -> int:
        """0, as ``learn`` may do something at any time: one transition may add several to the replay.

        It says that ``observe`` is quick, so that transitions between two learning steps need no hand-over.
        """
        return 0

    @abstractmethod
    def _update(self, batch: Batch, weights: torch.Tensor | None) -> Update:
        """Do one optimization step, with a weight for each transition's loss, float32 ``[B]``; None: one.

        Raises:
            TrainingDiverged: The loss or its gradient is not finite; no weight was changed.
        """

    def observe(self, experiences: Sequence[Experience]) -> None:
        """Copy transitions, checked by ``check_experience``, into the replay, in order."""
        if not experiences:
            return
        self._store(self._replay, self._steps, experiences)
        self.total_steps += len(experiences)
        self._losses.observed(experiences[-1].actor_id)

    def observe_batch(self, batch: ExperienceBatch) -> None:
        """Copy a batch, checked by ``check_batch``, into the replay, as ``observe`` does its experiences."""
        if self._steps.changes_steps:
            self.observe(batch.experiences())
            return
        self._store_columns(self._replay, batch)
        self.total_steps += len(batch)
        self._losses.observed(batch.actor_ids[-1])

    @property
    def prior(self) -> PriorData | None:
        """The prior data that batches have a share of; None: there are none."""
        return None if self._prior is None else self._prior.data

    def use_prior(
        self, batches: Iterable[ExperienceBatch | Sequence[Experience]], n_transitions: int, share: float
    ) -> None:
        """Let each batch have ``round(share * batch_size)`` rows of prior data; see ``UsesPriorData``.

        The data are drawn uniformly, with ``prioritized``, too: their share is fixed, and priorities are of
        what is played. They go through ``n_step`` and ``clip_rewards`` as that does, and count towards the
        statistics of ``normalize_observations``.
        """
        config, steps = self.config, _step_processor(self.config)
        rows_of_share(share, config.batch_size)
        if self._prior is not None:
            raise ConfigError(f"this {self.name} has prior data already: make a new agent for others")
        if config.normalize_rewards:
            raise ConfigError(
                "normalize_rewards=True: rewards are divided by a scale that follows from what is played, "
                "which prior data do not have: leave it out, and scale rewards in the environment"
            )
        placed: dict[str, Any] = {"device": self._device, "memory_map": config.memory_map}
        replay = UniformReplay(max(n_transitions, 1), _spec_of(self._spaces), seed=self._prior_seed, **placed)
        for batch in checked(self, batches):
            if isinstance(batch, ExperienceBatch) and not steps.changes_steps:
                self._store_columns(replay, batch)
            else:
                rows = batch.experiences() if isinstance(batch, ExperienceBatch) else batch
                self._store(replay, steps, rows)
        for transition, mask in steps.give_up_all():
            replay.add(transition, mask)
        if not 0 < replay.n_added <= max(n_transitions, 1):
            raise ConfigError(
                f"of {n_transitions:,} prior transitions {replay.n_added:,} came"
                if replay.n_added
                else "the prior data are empty: give at least one transition"
            )
        self._draw_from(PriorReplay(replay, share))

    def _draw_from(self, prior: PriorReplay | None) -> None:
        """Draw a share of each batch from prior data."""
        if prior is None:
            return
        n_rows = rows_of_share(prior.data.share, self.config.batch_size)
        if prior.data.size < n_rows:
            raise ConfigError(
                f"{prior.data.size} prior transitions are fewer than the {n_rows} that each batch draws: "
                "give more, or lower mix or batch_size"
            )
        self._n_played = self.config.batch_size - n_rows
        self._prior = self._parts["prior"] = prior

    def learn(self) -> dict[str, float] | None:
        """Do one optimization step; return its metrics, or None before learning starts.

        With a prioritized replay the TD errors become the new priorities.

        Raises:
            TrainingDiverged: The loss or its gradient is not finite. The weights stay as they were.
        """
        replay, prior, n_played = self._replay, self._prior, self._n_played
        batch_size = self.config.batch_size
        if len(replay) < max(self.config.learning_starts, n_played):
            return None
        if isinstance(replay, PrioritizedReplay):
            drawn = replay.sample(n_played)
            batch, weights = drawn.transitions, drawn.weights
            if prior is not None:
                batch = prior.fill_up(batch, batch_size)
                weights = torch.cat([weights, weights.new_ones(batch_size - n_played)])
            errors, metrics = self._update(batch, weights)
            replay.update_priorities(drawn.indices, errors[:n_played].abs())
        else:
            batch = replay.sample(n_played)
            _, metrics = self._update(batch if prior is None else prior.fill_up(batch, batch_size), None)
        self._losses.add(metrics["loss"])
        return metrics

    def episode_extras(self, actor_id: ActorId) -> dict[str, float]:
        """``loss_mean``, ``loss_std`` and ``loss_max`` over the episode; reading them clears them."""
        return self._losses.take(actor_id)

    def on_episode_start(self, actor_id: ActorId) -> None:
        """End the actor's unfinished episode, if any; its transitions count, its losses do not."""
        self._losses.drop(actor_id)
        for transition, mask in self._steps.give_up(actor_id):
            self._replay.add(transition, mask)

    def rebuild_point(self) -> dict[str, Any]:
        """The number of transitions added so far, and the state of step processing."""
        return {"n_added": self._replay.n_added, **self._steps.state_dict()}

    def replay_reference(self) -> dict[str, Any]:
        """Where the replay stands, without its transitions."""
        settings = {name: getattr(self.config, name) for name in (*_REPLAY_SETTINGS, "gamma")}
        return {**self._replay.reference(), **settings}

    def begin_rebuild(self, point: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
        """Restore the state of that point; the replay then expects the transitions after it.

        Raises:
            ConfigError: A setting that decides what the replay holds, for example ``n_step``, has changed.
        """
        self._check_replay_settings(reference)
        self._steps.load_state_dict(point)
        self._replay.begin_rebuild(reference, int(point["n_added"]))

    def end_rebuild(self, reference: Mapping[str, Any]) -> None:
        """Finish a rebuild: every transition up to where ``reference`` stands was observed again.

        Raises:
            ConfigError: The number of transitions differs.
        """
        self._replay.end_rebuild(reference)

    def with_settings(self, settings: Mapping[str, Any]) -> Self | None:
        """As ``BaseAgent.with_settings``; what decides the content of a replay must be the same, too."""
        self._check_replay_settings(settings)
        return super().with_settings(settings)

    def _made_again(self, config: ConfigT) -> Self | None:
        # Where both would keep the same, they share the replay: memory may not suffice for a second one.
        is_shared = all(getattr(config, name) == getattr(self.config, name) for name in _STORING_SETTINGS)
        n_few = max(config.batch_size, config.learning_starts)
        small = msgspec.structs.replace(config, buffer_size=n_few, memory_map=None)
        made = self._made_with(small if is_shared else config)
        if made is not None:
            if is_shared:
                made.config, made._replay = config, self._replay  # noqa: SLF001 - the same class
            made._draw_from(self._prior)  # noqa: SLF001
        return made

    def _made_with(self, config: ConfigT) -> Self | None:
        kind: Any = type(self)
        is_ours = kind.__init__.__module__.startswith("stoker.agents.")
        return kind(*self.env_spaces, config, device=self._device) if is_ours else None

    def _check_replay_settings(self, saved: Mapping[str, Any]) -> None:
        config = self.config
        has_discount = config.n_step > 1 or config.normalize_rewards
        for name in (*_REPLAY_SETTINGS, *(["gamma"] if has_discount else [])):
            if saved[name] != (own := getattr(config, name)):
                raise ConfigError(
                    f"{name}={own}: this run's replay was made with {saved[name]} and is rebuilt from its "
                    "journal: resume with that, or fork the run without its replay"
                )

    def _adapted(self, config: ConfigT) -> ConfigT:
        return msgspec.structs.replace(config, memory_map=self.config.memory_map)

    def _identity(self, state: Mapping[str, Any]) -> dict[str, Any]:
        named = {} if self._prior is None else {"prior data": state["prior"]["digest"]}
        return {**super()._identity(state), **named}

    def _store(self, replay: Ring, steps: StepProcessor, experiences: Sequence[Experience]) -> None:
        """Copy checked transitions into a replay, in order."""
        experiences = self._spaces.packed(experiences)
        if self.config.normalize_observations:
            self._take_in([experience.observation for experience in experiences])
        if steps.changes_steps:
            for experience in experiences:
                for transition, mask in steps.process(experience):
                    replay.add(transition, mask)
        else:
            replay.extend(experiences)

    def _store_columns(self, replay: Ring, batch: ExperienceBatch) -> None:
        """Copy a checked batch into a replay as it is."""
        batch = self._spaces.packed_batch(batch)
        if self.config.normalize_observations:
            self._take_in(batch.observations)
        replay.extend_columns(
            batch.observations,
            batch.actions,
            batch.rewards,
            batch.next_observations,
            1.0 - batch.terminated,
        )


def _spec_of(spaces: AgentSpaces[Any]) -> TransitionSpec:
    return TransitionSpec(spaces.observations.spec, spaces.actions.spec)


def _step_processor(config: OffPolicyConfig) -> StepProcessor:
    return StepProcessor(
        config.n_step,
        config.gamma,
        normalize_rewards=config.normalize_rewards,
        clip_rewards=config.clip_rewards,
    )


def make_replay(
    config: OffPolicyConfig, spaces: AgentSpaces[Any], device: torch.device, seed: int
) -> UniformReplay | PrioritizedReplay:
    """An empty replay for transitions of these spaces; ``ConfigError`` if it cannot be kept."""
    spec = _spec_of(spaces)
    shared: dict[str, Any] = {"device": device, "seed": seed, "memory_map": config.memory_map}
    if not config.prioritized:
        return UniformReplay(config.buffer_size, spec, **shared)
    return PrioritizedReplay(
        config.buffer_size,
        spec,
        alpha=config.priority_alpha,
        beta=config.priority_beta,
        final_beta=config.priority_final_beta,
        beta_steps=config.priority_beta_steps,
        epsilon=config.priority_epsilon,
        **shared,
    )


@dataclass(eq=False)
class _Losses(Std):
    most: float = -math.inf

    def update(self, value: float) -> None:
        super().update(value)
        self.most = max(self.most, value)


class EpisodeLosses:
    """The losses of each actor's running episode, as mean, standard deviation and maximum.

    Its memory is bounded by the actors at work: ``drop`` and ``take`` forget an actor.
    """

    def __init__(self) -> None:
        self._running: dict[ActorId, _Losses] = {}
        self._last_actor: ActorId | None = None

    def observed(self, actor_id: ActorId) -> None:
        """Count the next losses to this actor's running episode."""
        self._last_actor = actor_id

    def add(self, loss: float) -> None:
        """Count a finite loss."""
        if self._last_actor is not None:
            self._running.setdefault(self._last_actor, _Losses()).update(loss)

    def take(self, actor_id: ActorId) -> dict[str, float]:
        """``loss_mean``, ``loss_max`` and, from two losses on, ``loss_std`` (population); then drop them."""
        losses = self._running.pop(actor_id, None)
        if losses is None:
            return {}
        taken = {"loss_mean": losses.mean, "loss_max": losses.most}
        return {**taken, "loss_std": losses.value()} if losses.count > 1 else taken

    def drop(self, actor_id: ActorId) -> None:
        """Forget the losses of an actor whose next episode begins."""
        self._running.pop(actor_id, None)
        if actor_id == self._last_actor:
            self._last_actor = None  # the next losses belong to no episode of this actor

    def state_dict(self) -> dict[str, Any]:
        """The losses per actor, and the actor observed last."""
        running = {actor_id: astuple(losses) for actor_id, losses in self._running.items()}
        return {"running": running, "last_actor": self._last_actor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._running = {actor_id: _Losses(*kept) for actor_id, kept in state["running"].items()}
        self._last_actor = state["last_actor"]
