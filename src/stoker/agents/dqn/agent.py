"""DQN (Mnih et al. 2015) and its improvements, each of them a setting.

Double targets (van Hasselt et al. 2016), a dueling network (Wang et al. 2016), prioritized replay (Schaul et
al. 2016) and n-step targets, as Hessel et al. (2018, "Rainbow") put them together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from stoker.agents.actions import DiscreteActions
from stoker.agents.base import AgentSeeds
from stoker.agents.dqn.base import QLearningAgent
from stoker.agents.dqn.config import DQNConfig
from stoker.agents.dqn.network import QNetwork, q_network
from stoker.agents.dqn.policy import DQNPolicy
from stoker.agents.off_policy import Update
from stoker.agents.spaces import AgentSpaces
from stoker.replay import Batch


class DQN(QLearningAgent[DQNConfig, QNetwork]):
    """DQN (Mnih et al. 2015): a Q-network, its target network, Adam and a replay.

    See ``QLearningAgent`` for the arguments.
    """

    name = "DQN"
    _config_type = DQNConfig
    _policy_type = DQNPolicy

    def _network_for(
        self, spaces: AgentSpaces[DiscreteActions], config: DQNConfig, seeds: AgentSeeds
    ) -> QNetwork:
        return q_network(spaces.observations, spaces.actions.n, config, seeds.for_weights())

    def _write_gradients(self, batch: Batch, weights: torch.Tensor | None) -> Update:
        """Of the weighted mean loss of TD errors; metrics ``loss`` and ``q_mean``, of the actions taken."""
        config, network = self.config, self._network
        slow: Any = self._target.network
        targets = td_targets(network.of_allowed, slow.of_allowed, batch, config.gamma, double=config.double)
        activations = network.activations(batch.observations)
        found = td_loss(activations[-1], self._indices(batch), targets, weights, config.huber_delta)
        network.backward(activations, found.gradient)
        return Update(found.errors, {"loss": found.loss.item(), "q_mean": found.q_mean.item()})


QFunction = Callable[[torch.Tensor], torch.Tensor]
"""Observations ``[B, *observation_shape]`` -> values float32 ``[B, n_actions]``."""


def td_targets(
    online: QFunction, target: QFunction, batch: Batch, gamma: float, *, double: bool
) -> torch.Tensor:
    """The target of each transition: ``r + gamma * mask * Q_target(s', a')``, float32 ``[B]``.

    ``a'`` is the best next action by the target network (Mnih et al. 2015, Algorithm 1) or, when double,
    by the online network (van Hasselt et al. 2016, eq. 4). Only termination masks: a truncated episode
    would have gone on. The functions give -inf for actions that an action mask forbids.
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
    delta: float | None = 1.0,
) -> TDLoss:
    """The Huber loss (Huber 1964; mean over the batch) of the taken actions' values.

    Args:
        values: of all actions, float32 ``[B, n_actions]``, without gradient.
        action_indices: the actions taken, counted from zero, int64 ``[B]``.
        targets: what to regress to, float32 ``[B]``.
        weights: what each transition's loss is multiplied with, float32 ``[B]``, such as the importance of a
            prioritized draw (Schaul et al. 2016, section 3.4); None: one.
        delta: the error from which on the loss grows linearly; None: it is half the squared error.
    """
    indices = action_indices.unsqueeze(1)
    taken = values.gather(1, indices).squeeze(1)
    errors = taken - targets
    slopes = errors.clone() if delta is None else errors.clamp(-delta, delta)
    # Within delta e * (e - e/2) = e^2 / 2; beyond it delta * (|e| - delta/2).
    halves = torch.sub(errors, slopes, alpha=0.5)
    if weights is not None:
        slopes *= weights
    n_rows = values.shape[0]
    loss = slopes.dot(halves) / n_rows
    gradient = torch.zeros_like(values).scatter_(1, indices, slopes.div_(n_rows).unsqueeze(1))
    return TDLoss(loss, gradient, errors, taken.mean())
