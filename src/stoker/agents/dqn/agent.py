"""DQN (Mnih et al. 2015) and its improvements, each of them a setting.

Double targets (van Hasselt et al. 2016), a dueling network (Wang et al. 2016), prioritized replay (Schaul et
al. 2016) and n-step targets, as Hessel et al. (2018, "Rainbow") put them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import gymnasium
import torch

from stoker.agents.actions import DiscreteActions
from stoker.agents.base import AgentSeeds, resolve_device
from stoker.agents.dqn.config import DQNConfig
from stoker.agents.dqn.network import ConvolutionalQ, PerceptronQ, QNetwork
from stoker.agents.dqn.policy import DQNPolicy
from stoker.agents.networks import chosen_network
from stoker.agents.off_policy import OffPolicyAgent, TargetNetwork, Update
from stoker.agents.spaces import AgentSpaces
from stoker.replay import Batch
from stoker.types import ActorId

__all__ = ["DQN", "TDLoss", "td_loss", "td_targets"]


class DQN(OffPolicyAgent[DQNConfig, QNetwork, DQNPolicy]):
    """A Q-network, its target network, Adam and a replay.

    The target network starts as an equal copy. Epsilon is a function of ``total_steps`` alone.

    Args:
        observation_space: a Box of any shape; an image for the convolutional network.
        action_space: a Discrete space, of any ``start``.
        config: the settings; the defaults when left out.
        seed: at least 0; all generators of the agent derive from it.
        device: where to compute and to keep the replay, as torch names it: ``"cpu"``, ``"cuda:1"``, ...

    Attributes: those of ``BaseAgent``.

    Raises:
        ConfigError: A space, the seed or the device cannot be used.
    """

    name = "DQN"
    action_kinds = (DiscreteActions,)
    _policy_type = DQNPolicy
    _kept_settings = ("network", "dueling", "normalize_observations")

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        config: DQNConfig | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        spaces = AgentSpaces("DQN", observation_space, action_space, self.action_kinds)
        shape, dtype = spaces.observations.shape, spaces.observations.dtype.name
        config = chosen_network("DQN", config or DQNConfig(), shape, dtype)
        self._actions = spaces.actions
        seeds = AgentSeeds.of(seed)
        kind = ConvolutionalQ if config.network == "nature_cnn" else PerceptronQ
        network = kind(shape, self._actions.n, config, seeds.for_weights()).to(resolve_device(device))
        super().__init__(spaces, config, seeds, network)
        self._env_spaces = observation_space, action_space
        self._target = TargetNetwork(network, self._weights, config.tau, config.target_update_interval)
        self._parts["target"] = self._target.network

    @property
    def exploration_rate(self) -> float:
        """Epsilon, or the temperature of the softmax, as of ``total_steps``."""
        return self.config.exploration_rate_at(self.total_steps)

    def _made_with(self, config: DQNConfig) -> Self | None:
        kind = type(self)
        is_ours = kind.__init__ is DQN.__init__
        return kind(*self._env_spaces, config, device=self._device) if is_ours else None

    @property
    def _published(self) -> dict[str, float]:
        return {self.config.exploration_rate_name: self.exploration_rate}

    def _update(self, batch: Batch, weights: torch.Tensor | None) -> Update:
        """Learn from a batch; metrics ``loss`` (Huber, weighted mean) and ``q_mean`` (of its actions)."""
        config, network = self.config, self._network
        actions = batch.actions - self._actions.first if self._actions.first else batch.actions
        with torch.no_grad():
            targets = td_targets(
                network.forward, self._target.network.forward, batch, config.gamma, double=config.double
            )
            activations = network.activations(batch.observations)
            found = td_loss(activations[-1], actions, targets, weights)
            network.backward(activations, found.gradient)
            loss = found.loss.item()
            norm = 0.0 if config.max_grad_norm is None else float(self._optimizer.clip())
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise self._diverged(loss, norm or float(self._optimizer.clip()))
            self._optimizer.step(config.learning_rate_at(self.total_steps))
            self.opt_steps += 1
            self._target.follow(self.opt_steps)
        return Update(found.errors, {"loss": loss, "q_mean": found.q_mean.item()})

    def episode_extras(self, actor_id: ActorId) -> dict[str, float]:
        """``epsilon`` or ``temperature``, and ``loss_mean``, ``loss_std``, ``loss_max`` over the episode.

        Reading them clears the actor's losses: a second call gives the exploration rate alone. Without a
        loss in the episode the loss keys are absent; ``loss_std`` needs two.
        """
        return {**self._published, **super().episode_extras(actor_id)}


QFunction = Callable[[torch.Tensor], torch.Tensor]
"""Observations ``[B, *observation_shape]`` -> values float32 ``[B, n_actions]``."""


def td_targets(
    online: QFunction, target: QFunction, batch: Batch, gamma: float, *, double: bool
) -> torch.Tensor:
    """The target of each transition: ``r + gamma * mask * Q_target(s', a')``, float32 ``[B]``.

    ``a'`` is the best next action by the target network (Mnih et al. 2015, Algorithm 1) or, when double,
    by the online network (van Hasselt et al. 2016, eq. 4). Only termination masks: a truncated episode
    would have gone on.
    """
    next_values = target(batch.next_observations)
    if double:
        next_actions = online(batch.next_observations).argmax(dim=1, keepdim=True)
        best = next_values.gather(1, next_actions).squeeze(1)
    else:
        best = next_values.amax(dim=1)
    return torch.addcmul(batch.rewards, batch.bootstrap_masks, best, value=gamma)


class TDLoss(NamedTuple):
    """The loss of a batch.

    Attributes:
        loss: to be minimized, ``[]``.
        gradient: of the loss with respect to the values, float32 ``[B, n_actions]``.
        errors: of the taken actions' values, float32 ``[B]``: value minus target.
        q_mean: the mean of the taken actions' values, ``[]``.
    """

    loss: torch.Tensor
    gradient: torch.Tensor
    errors: torch.Tensor
    q_mean: torch.Tensor


def td_loss(
    values: torch.Tensor,
    action_indices: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> TDLoss:
    """The Huber loss (delta 1, mean over the batch) of the taken actions' values.

    Args:
        values: of all actions, float32 ``[B, n_actions]``, without gradient.
        action_indices: the actions taken, counted from zero, int64 ``[B]``.
        targets: what to regress to, float32 ``[B]``.
        weights: what each transition's loss is multiplied with, float32 ``[B]``, such as the importance of a
            prioritized draw (Schaul et al. 2016, section 3.4); None: one.
    """
    indices = action_indices.unsqueeze(1)
    taken = values.gather(1, indices).squeeze(1)
    errors = taken - targets
    slopes = errors.clamp(-1.0, 1.0)
    # Within delta e * (e - e/2) = e^2 / 2; beyond it 1 * (|e| - 1/2).
    halves = torch.sub(errors, slopes, alpha=0.5)
    if weights is not None:
        slopes *= weights
    n_rows = values.shape[0]
    loss = slopes.dot(halves) / n_rows
    gradient = torch.zeros_like(values).scatter_(1, indices, slopes.div_(n_rows).unsqueeze(1))
    return TDLoss(loss, gradient, errors, taken.mean())
