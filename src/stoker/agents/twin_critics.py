"""The base of agents with an actor for continuous actions and two critics: SAC, TD3, IQL and AWAC.

The smaller of two critics' values does not overestimate as one critic's would (Fujimoto et al. 2018, section
4.2). A subclass says what the next actions are worth, and how the actor learns. All gradients of a step are
of the weights before it, so that a step that diverges changes none of them.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.agents.actions import BoxActions
from stoker.agents.base import AgentSeeds, NetworkPolicy, resolve_device, seeded_generator
from stoker.agents.config import TwinCriticConfig
from stoker.agents.encoded import Features
from stoker.agents.encoders import chosen_network
from stoker.agents.networks import predict
from stoker.agents.off_policy import OffPolicyAgent, TargetNetwork, Update
from stoker.agents.packing import PackedAdam, PackedWeights
from stoker.agents.passes import StackedPasses
from stoker.agents.spaces import AgentSpaces
from stoker.agents.squashing import ActionScale
from stoker.agents.twin_networks import Actor, TwinCritics
from stoker.replay import Batch
from stoker.replay.layout import from_numpy
from stoker.types import ActMode

if TYPE_CHECKING:
    import gymnasium

ConfigT = TypeVar("ConfigT", bound=TwinCriticConfig)
PolicyT = TypeVar("PolicyT", bound="TwinCriticPolicy")

_RANDOM = "random_actions"


class SeenBatch(NamedTuple):
    """A batch as the networks see it.

    Attributes:
        inputs: observations, as ``Actor.inputs`` gives them.
        features: what the critics' perceptrons take of them.
        actions: squashed, float32 ``[B, size]``.
        values: of these actions by both critics, ``[B, 2]``.
        own_values: of the actor's own actions that it asked for, ``[n, 2]``.
    """

    inputs: torch.Tensor
    features: torch.Tensor
    actions: torch.Tensor
    values: torch.Tensor
    own_values: torch.Tensor


class Proposal(NamedTuple):
    """What an agent makes of a batch before its critics value the actions in it.

    Attributes:
        next_values: what the next observations are worth, float32 ``[B]``.
        own_actions: those that the critics are to value in the same pass, squashed, float32 ``[n, size]``;
            ``n`` is a multiple of ``B``, and the observations repeat themselves; None: no others.
        improve: writes the actor's gradient; metrics, of which ``actor_loss`` is one, or none.
    """

    next_values: torch.Tensor
    own_actions: torch.Tensor | None
    improve: Callable[[SeenBatch], dict[str, float]]


class TwinCriticPolicy(NetworkPolicy[Actor]):
    """Takes the actor's best action in EXPLOIT, drawing no random number, and explores in EXPLORE.

    The agent publishes ``random_actions``: 1.0 while explored actions are uniformly random, then 0.0. See
    ``NetworkPolicy``.
    """

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[Any, None]:
        """One action per checked observation, in the same order; without extras.

        A list of arrays ``[*action_shape]``, or one array for observations in an array.
        """
        actions = self._spaces.actions
        rows = self._spaces.observations.stack(observations)
        if mode is ActMode.EXPLORE and self.published[_RANDOM]:
            chosen = self._explore.uniform(-1.0, 1.0, (len(rows), actions.size))
        else:
            chosen = self._chosen(self._outputs(rows), mode)
        sent = actions.column if isinstance(observations, np.ndarray) else actions.for_env
        return sent(self.network.scale.to_env(chosen)), None

    @abstractmethod
    def _chosen(self, outputs: NDArray[np.float32], mode: ActMode) -> NDArray[np.float64]:
        """The squashed actions ``[B, size]`` that follow from the actor's outputs."""

    def _outputs(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        if self._small is None or len(rows) > self._small.most_rows:
            return predict(self.network, rows, self._device)[0]
        return self._small.outputs(self._small.inputs(rows))


class TwinCriticAgent(OffPolicyAgent[ConfigT, Actor, PolicyT]):
    """An actor, two critics with targets, an optimizer for each, and a replay.

    Until the replay holds ``learning_starts`` transitions, actions are uniformly random. An optimization step
    is ``gradient_steps`` batches. The target critics start as equal copies.

    Args:
        observation_space: any of a fixed size, see ``AgentSpaces``.
        action_space: a Box of floats with finite bounds.
        config: the settings; the defaults when left out.
        seed: at least 0; all generators of the agent derive from it.
        device: where to compute and to keep the replay, as torch names it: ``"cpu"``, ``"cuda:1"``, ...

    Attributes: those of ``BaseAgent``.

    Raises:
        ConfigError: A space, the seed or the device cannot be used.
    """

    opt_steps: int
    action_kinds: tuple[type[BoxActions]] = (BoxActions,)
    """The kinds of action space that it acts in."""

    _outputs_per_number: int
    """The actor's outputs for each number of an action."""

    _config_type: type[ConfigT]
    _actor_type: type[Actor] = Actor

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        config: ConfigT | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        config = config or self._config_type()
        spaces = AgentSpaces(self.name, observation_space, action_space, self.action_kinds)
        observations = spaces.observations
        config = chosen_network(self.name, config, observations)
        scale = ActionScale(self.name, spaces.actions)
        seeds, resolved = AgentSeeds.of(seed), resolve_device(device)
        generator = seeds.for_weights()
        n_outputs = scale.size * self._outputs_per_number
        actor = self._actor_type(observations, n_outputs, scale, config, generator).to(resolved)
        super().__init__(spaces, config, seeds, actor)
        self._scale = scale
        self._critics = critics = TwinCritics(observations, scale.size, config, generator).to(resolved)
        self._critic_weights = PackedWeights(critics, has_gradients=True)
        self._critic_optimizer = PackedAdam(self._critic_weights, max_grad_norm=config.max_grad_norm)
        self._target = TargetNetwork(critics, self._critic_weights, config.tau, config.target_update_interval)
        self._actor_passes = StackedPasses((actor.mlp,), self._weights)
        self._critic_passes = critics.passes(self._critic_weights)
        self._target_passes = self._target.network.passes(self._target.weights)
        self._actor_features, self._critic_features = Features(actor.encoder), Features(critics.encoder)
        self._target_features = Features(self._target.network.encoder)
        # By the losses that their gradients are of.
        self._optimizers = {"loss": self._critic_optimizer, "actor_loss": self._optimizer}
        self._noise = seeded_generator(seeds.learning)
        self._gradient_steps = 0
        self._generators["noise_generator"] = self._noise
        self._parts |= {
            "critics": critics,
            "critic_optimizer": self._critic_optimizer,
            "target": self._target.network,
        }
        self._complete(seeds)

    def _complete(self, seeds: AgentSeeds) -> None:
        """Make what an algorithm has besides; the end of the construction."""

    @property
    def _published(self) -> dict[str, float]:
        return {_RANDOM: float(self.total_steps < self.config.learning_starts)}

    def learn(self) -> dict[str, float] | None:
        """Do one optimization step; return the metrics of its last batch, or None before learning starts.

        With a prioritized replay the TD errors, averaged over the critics, become the new priorities.

        Raises:
            TrainingDiverged: A loss or a gradient is not finite; this batch changed no weight.
        """
        metrics = None
        steps = self.config.gradient_steps
        for number in range(1, steps + 1):
            self._gradient_steps = self.opt_steps * steps + number
            metrics = super().learn()
            if metrics is None:
                return None
        self.opt_steps += 1
        return metrics

    @abstractmethod
    def _propose(self, seen: torch.Tensor, following: torch.Tensor) -> Proposal:
        """What follows from observations and the next ones, as ``Actor.inputs`` gives them."""

    def _step_actor(self, learning_rate: float) -> None:
        """Take the actor's step down the gradient that the proposal wrote, and what goes with it."""
        self._optimizer.step(learning_rate)

    def _update(self, batch: Batch, weights: torch.Tensor | None) -> Update:
        """Learn from a batch; metrics ``loss`` (of the critics), ``q_mean`` and those of the actor."""
        config, actor = self.config, self._network
        with torch.no_grad():
            seen, following = actor.inputs(batch.observations), actor.inputs(batch.next_observations)
            proposal = self._propose(seen, following)
            targets = torch.addcmul(
                batch.rewards, batch.bootstrap_masks, proposal.next_values, value=config.gamma
            )
            features, actions = self._critic_features.tracked(seen), self._scale.from_env(batch.actions)
            n_rows, valued, judged = len(actions), features, actions
            if (own := proposal.own_actions) is not None:
                judged = torch.cat([actions, own])
                valued = features.repeat(len(judged) // n_rows, 1)
            all_values = torch.cat(self._critic_passes.forward(torch.cat([valued, judged], dim=1)), dim=1)
            values = all_values[:n_rows]
            errors = values - targets.unsqueeze(1)
            # The sum over the critics of half the mean square (Haarnoja et al. 2018b, eq. 5).
            slopes = errors / len(errors) if weights is None else errors * (weights / len(errors))[:, None]
            loss = 0.5 * float(torch.vdot(slopes.view(-1), errors.view(-1)))
            self._critic_passes.backward([slopes[:, :1], slopes[:, 1:]])
            self._critic_features.backward(self._critic_passes)
            improved = proposal.improve(SeenBatch(seen, features, actions, values, all_values[n_rows:]))
            metrics = {"loss": loss, "q_mean": float(values.mean()), **improved}
            self._check_finite(metrics)
            rate = config.learning_rate_at(self._scheduled_steps)
            self._critic_optimizer.step(rate)
            if "actor_loss" in metrics:
                self._step_actor(rate)
            self._follow()
        return Update(errors.abs().mean(dim=1), metrics)

    def _least_target(self, following: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """The smaller value of the two target critics, ``[B]``."""
        features = self._target_features.of(following)
        first, second = self._target_passes.forward(torch.cat([features, actions], dim=1))
        return torch.minimum(first, second).squeeze(1)

    def _actor_outputs(self, seen: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        """The actor's outputs ``[2 * B, n]``, of which the first half is tracked."""
        features = self._actor_features
        return self._actor_passes.forward(torch.cat([features.tracked(seen), features.of(following)]))[0]

    def _actor_backward(self, by_outputs: torch.Tensor) -> None:
        """Write the actor's gradient, given that by its first outputs."""
        self._actor_passes.backward([by_outputs])
        self._actor_features.backward(self._actor_passes)

    def _follow(self) -> None:
        """Move the target networks."""
        self._target.follow(self._gradient_steps)

    def _check_finite(self, metrics: dict[str, float]) -> None:
        """Limit the gradients; raise ``TrainingDiverged`` if a loss or a gradient is not finite."""
        for name, optimizer in self._optimizers.items():
            if name in metrics:
                loss = metrics[name]
                norm = 0.0 if self.config.max_grad_norm is None else float(optimizer.clip())
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    raise self._diverged(loss, norm or float(optimizer.clip()))

    def _standard_normal(self, n_rows: int) -> torch.Tensor:
        """Noise float32 ``[n_rows, action_size]`` from the agent's own generator."""
        noise = self._noise.standard_normal((n_rows, self._scale.size), np.float32)
        return from_numpy(noise).to(self._device)
