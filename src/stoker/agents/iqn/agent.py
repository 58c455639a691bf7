"""Implicit quantile networks (Dabney et al. 2018): the distribution of the return instead of its mean.

The improvements of DQN are settings here, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stoker.agents.actions import DiscreteActions
from stoker.agents.base import AgentSeeds, seeded_generator
from stoker.agents.dqn.base import QLearningAgent
from stoker.agents.iqn.config import IQNConfig
from stoker.agents.iqn.loss import quantile_huber_loss
from stoker.agents.iqn.network import ConvolutionalQuantiles, PerceptronQuantiles, QuantileNetwork
from stoker.agents.iqn.policy import IQNPolicy
from stoker.agents.off_policy import Update
from stoker.agents.spaces import AgentSpaces
from stoker.replay import Batch

if TYPE_CHECKING:
    import gymnasium


class IQN(QLearningAgent[IQNConfig, QuantileNetwork]):
    """IQN (Dabney et al. 2018): a network of quantiles, its target network, Adam and a replay.

    See ``QLearningAgent`` for the arguments. The fractions that an update learns at are drawn by a generator
    of the agent, which ``state_dict`` holds. The priorities of a prioritized replay are the losses of the
    transitions.
    """

    name = "IQN"
    _config_type = IQNConfig
    _policy_type = IQNPolicy
    _kept_settings = (*QLearningAgent._kept_settings, "n_cosines")  # noqa: SLF001 - its base

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        config: IQNConfig | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(observation_space, action_space, config, seed, device)
        self._fractions = seeded_generator(AgentSeeds.of(seed).learning)
        self._generators["fraction_generator"] = self._fractions

    def _network_for(
        self, spaces: AgentSpaces[DiscreteActions], config: IQNConfig, seeds: AgentSeeds
    ) -> QuantileNetwork:
        kind = ConvolutionalQuantiles if config.network == "cnn" else PerceptronQuantiles
        return kind(spaces.observations, spaces.actions.n, config, seeds.for_weights())

    def _write_gradients(self, batch: Batch, weights: torch.Tensor | None) -> Update:
        """Of the quantile loss, its weighted mean; metrics ``loss`` and ``q_mean``, of the actions taken."""
        config, network, n_rows = self.config, self._network, len(batch.rewards)
        n, n_targets = config.n_quantiles, config.n_target_quantiles
        drawn = torch.empty((n + n_targets, n_rows))  # numpy's own memory is not aligned for torch
        self._fractions.random(dtype=np.float32, out=drawn.numpy())
        drawn = drawn.to(self._device)
        fractions, target_fractions = drawn[:n], drawn[n:]
        targets = quantile_targets(
            network, self._target.network, batch, target_fractions, config.gamma, double=config.double
        )
        made = network.run(batch.observations, fractions)
        chosen = self._indices(batch).expand(n, n_rows).unsqueeze(2)
        quantiles = made.quantiles.gather(2, chosen).squeeze(2)
        kappa = config.huber_delta or 1.0  # IQNConfig refuses None
        found = quantile_huber_loss(quantiles, fractions, targets, weights, kappa)
        gradient = torch.zeros_like(made.quantiles).scatter_(2, chosen, found.gradient.unsqueeze(2))
        network.backward(made, gradient)
        metrics = {"loss": found.loss.item(), "q_mean": quantiles.mean().item()}
        return Update(found.of_rows, metrics)


def quantile_targets(
    online: QuantileNetwork,
    target: QuantileNetwork,
    batch: Batch,
    fractions: torch.Tensor,
    gamma: float,
    *,
    double: bool,
) -> torch.Tensor:
    """Samples of the return of each transition: ``r + gamma * mask * Z_target(s', a')``, float32 ``[N', B]``.

    For fractions ``[N', B]`` (Dabney et al. 2018, Algorithm 1). ``a'`` has the highest mean by the target
    network or, when double, by the online network (van Hasselt et al. 2016), of the actions that an action
    mask allows. Only termination masks a value: a truncated episode would have gone on.
    """
    features = target.encoded(batch.next_observations)[-1]
    values = online(batch.next_observations) if double else target.values_of(features)
    allowed = target.limited(values, batch.next_observations)
    best = allowed.argmax(dim=1).expand(fractions.shape).unsqueeze(2)
    quantiles = target.quantiles_of(target.head.run(features, fractions), fractions)
    following = quantiles.gather(2, best).squeeze(2)
    return torch.addcmul(batch.rewards, batch.bootstrap_masks, following, value=gamma)
