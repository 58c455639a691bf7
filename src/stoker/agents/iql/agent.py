"""IQL (Kostrikov et al. 2021, "Offline Reinforcement Learning with Implicit Q-Learning").

The value of a state is an expectile of the values of the actions that the data have there, so that no action
is valued that the data lack.
"""

from __future__ import annotations

import torch

from stoker.agents.advantage_weighted import AdvantageWeightedAgent
from stoker.agents.base import AgentSeeds
from stoker.agents.encoded import Features
from stoker.agents.iql.config import IQLConfig
from stoker.agents.packing import PackedAdam, PackedWeights
from stoker.agents.passes import StackedPasses
from stoker.agents.twin_critics import Proposal, SeenBatch
from stoker.agents.twin_networks import StateValue


class IQL(AdvantageWeightedAgent[IQLConfig]):
    """IQL (Kostrikov et al. 2021): an actor, twin critics with targets, a value network, and a replay.

    See ``TwinCriticAgent`` for arguments, attributes and errors.
    """

    name = "IQL"
    _config_type = IQLConfig

    def _complete(self, seeds: AgentSeeds) -> None:
        config, generator = self.config, torch.Generator().manual_seed(seeds.learning)
        self._value = StateValue(self._spaces.observations, config, generator).to(self._device)
        self._value_weights = PackedWeights(self._value, has_gradients=True)
        self._value_optimizer = PackedAdam(self._value_weights, max_grad_norm=config.max_grad_norm)
        self._value_passes = StackedPasses((self._value.mlp,), self._value_weights)
        self._value_features = Features(self._value.encoder)
        self._optimizers["value_loss"] = self._value_optimizer
        self._parts |= {"value": self._value, "value_optimizer": self._value_optimizer}

    def _propose(self, seen: torch.Tensor, following: torch.Tensor) -> Proposal:
        """``V(s')`` (eq. 6)."""
        values = self._value_passes.forward(self._value_features.of(following))[0].squeeze(1)
        return Proposal(values, None, self._improve)

    def _improve(self, seen: SeenBatch) -> dict[str, float]:
        """Half the expectile loss of ``V`` (eq. 5), and the actor's loss (eq. 7), of the same advantages."""
        config = self.config
        [values] = self._value_passes.forward(self._value_features.tracked(seen.inputs))
        advantages = self._least_target(seen.inputs, seen.actions).sub_(values.squeeze(1))
        n_rows, weights = len(advantages), (advantages < 0).float().sub_(config.expectile).abs_()
        slopes = (weights * advantages).div_(-n_rows)
        self._value_passes.backward([slopes.unsqueeze(1)])
        self._value_features.backward(self._value_passes)
        metrics = {"value_loss": -0.5 * float(slopes.dot(advantages)), "v_mean": float(values.mean())}
        means = self._means(self._actor_features.tracked(seen.inputs))
        weights = advantages.mul_(config.inverse_temperature).exp_().clamp_(max=config.max_weight)
        return {**metrics, "weight_mean": float(weights.mean()), **self._imitate(seen, means, weights)}

    def _step_actor(self, learning_rate: float) -> None:
        self._value_optimizer.step(learning_rate)
        super()._step_actor(learning_rate)
