"""CQL(H) for discrete actions (Kumar et al. 2020, "Conservative Q-Learning for Offline RL").

Learning from fixed data, DQN overestimates actions that the data do not have: nothing corrects it. CQL
lowers the values of all actions and raises those of the data.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from stoker.agents.actions import DiscreteActions
from stoker.agents.base import AgentSeeds
from stoker.agents.cql.config import DiscreteCQLConfig
from stoker.agents.dqn.agent import td_loss, td_targets
from stoker.agents.dqn.base import QLearningAgent
from stoker.agents.dqn.network import QNetwork, q_network
from stoker.agents.dqn.policy import DQNPolicy
from stoker.agents.off_policy import Update
from stoker.agents.spaces import AgentSpaces
from stoker.replay import Batch


class DiscreteCQL(QLearningAgent[DiscreteCQLConfig, QNetwork]):
    """Discrete CQL (Kumar et al. 2020): DQN whose loss has a conservative part, for learning from data.

    See ``QLearningAgent`` for the arguments. The priorities of a prioritized replay are TD errors alone.
    """

    name = "CQL"
    _config_type = DiscreteCQLConfig
    _policy_type = DQNPolicy

    def _network_for(
        self, spaces: AgentSpaces[DiscreteActions], config: DiscreteCQLConfig, seeds: AgentSeeds
    ) -> QNetwork:
        return q_network(spaces.observations, spaces.actions.n, config, seeds.for_weights())

    def _write_gradients(self, batch: Batch, weights: torch.Tensor | None) -> Update:
        """Of ``alpha`` times the conservative loss and that of TD errors (eq. 4), as weighted means.

        Metrics: ``loss``, its parts ``td_loss`` and ``conservative_loss``, and ``q_mean`` of actions taken.
        """
        config, network = self.config, self._network
        slow: Any = self._target.network
        targets = td_targets(network.of_allowed, slow.of_allowed, batch, config.gamma, double=config.double)
        activations = network.activations(batch.observations)
        values, indices = activations[-1], self._indices(batch)
        td = td_loss(values, indices, targets, weights, config.huber_delta)
        cql = conservative_loss(network.limited(values, batch.observations), indices, weights)
        network.backward(activations, td.gradient.add_(cql.gradient, alpha=config.alpha))
        td_part, conservative = td.loss.item(), cql.loss.item()
        metrics = {
            "loss": td_part + config.alpha * conservative,
            "td_loss": td_part,
            "conservative_loss": conservative,
            "q_mean": td.q_mean.item(),
        }
        return Update(td.errors, metrics)


class ConservativeLoss(NamedTuple):
    """The conservative loss of a batch.

    Attributes:
        loss: ``[]``.
        gradient: of the loss by the values, float32 ``[B, n_actions]``.
    """

    loss: torch.Tensor
    gradient: torch.Tensor


def conservative_loss(
    values: torch.Tensor, action_indices: torch.Tensor, weights: torch.Tensor | None = None
) -> ConservativeLoss:
    """The mean of ``log sum_a exp Q(s, a) - Q(s, a_data)`` (Kumar et al. 2020, eq. 4, without alpha).

    Args:
        values: of all actions, float32 ``[B, n_actions]``, without gradient; -inf for forbidden ones.
        action_indices: the actions of the data, counted from zero, int64 ``[B]``.
        weights: what each transition's loss is multiplied with, float32 ``[B]``; None: one.
    """
    n_rows, indices = len(values), action_indices.unsqueeze(1)
    log_shares = values.log_softmax(dim=1)
    of_rows = log_shares.gather(1, indices).squeeze(1)
    shares = torch.full_like(of_rows, 1 / n_rows) if weights is None else weights / n_rows
    gradient = log_shares.exp_().mul_(shares.unsqueeze(1))
    gradient.scatter_add_(1, indices, shares.neg().unsqueeze(1))
    return ConservativeLoss(-of_rows.dot(shares), gradient)
