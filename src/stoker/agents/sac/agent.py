"""SAC: soft actor-critic (Haarnoja et al. 2018b, "Soft Actor-Critic Algorithms and Applications").

An actor that is as random as its values allow, two critics with target networks, and a temperature that is
fixed or learned.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from stoker.agents.base import AgentSeeds
from stoker.agents.packing import PackedAdam, PackedWeights
from stoker.agents.sac.config import SACConfig
from stoker.agents.sac.policy import SACPolicy
from stoker.agents.squashing import SquashedSample, squashed_sample
from stoker.agents.twin_critics import Proposal, SeenBatch, TwinCriticAgent
from stoker.types import ActorId


class Temperature(nn.Module):
    """The reward that a nat of entropy is worth, as its logarithm."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.log_alpha: nn.Parameter = nn.Parameter(torch.tensor(math.log(initial)))


class SAC(TwinCriticAgent[SACConfig, SACPolicy]):
    """SAC (Haarnoja et al. 2018): an actor that samples, twin critics with targets, and a temperature.

    The temperature is what a nat of entropy is worth in rewards. It is learned so that the policy's entropy
    is ``target_entropy``, or fixed. See ``TwinCriticAgent`` for arguments, attributes and errors.
    """

    name = "SAC"
    _policy_type = SACPolicy
    _config_type = SACConfig
    _outputs_per_number = 2

    def _complete(self, seeds: AgentSeeds) -> None:
        config = self.config
        target = config.target_entropy
        self._target_entropy = float(-self._scale.size) if target is None else target
        self._temperature = Temperature(config.initial_temperature)  # read at each step, so on the CPU
        self._temperature_weights = PackedWeights(self._temperature, has_gradients=True)
        self._temperature_optimizer = PackedAdam(self._temperature_weights)
        self._parts |= {
            "temperature": self._temperature,
            "temperature_optimizer": self._temperature_optimizer,
        }

    @property
    def exploration_rate(self) -> float:
        """The temperature."""
        fixed = self.config.temperature
        return math.exp(self._temperature_weights.values.item()) if fixed is None else fixed

    def _propose(self, seen: torch.Tensor, following: torch.Tensor) -> Proposal:
        """``min_k Q_k(s', a') - alpha log pi(a'|s')`` with a drawn ``a'`` (eq. 3), and a drawn action."""
        outputs, n_rows = self._actor_outputs(seen, following), len(seen)
        own, next_ones = squashed_sample(outputs, self._standard_normal(len(outputs))).split(n_rows)
        values = self._least_target(following, next_ones.actions)
        values.sub_(next_ones.log_probs, alpha=self.exploration_rate)
        return Proposal(values, own.actions, partial(self._improve, own))

    def _improve(self, drawn: SquashedSample, seen: SeenBatch) -> dict[str, float]:
        """The gradient of ``alpha log pi(a|s) - min_k Q_k(s, a)`` (eq. 7), and the temperature's (eq. 18).

        The temperature's loss has its logarithm where the equation has the temperature, as the authors'
        implementation does.
        """
        n_rows, alpha = len(seen.actions), self.exploration_rate
        least, chosen = seen.own_values.min(dim=1)
        by_actions = self._critic_passes.chosen_input_gradient(
            chosen, -1 / n_rows, slice(seen.features.shape[1], None)
        )
        self._actor_backward(drawn.gradient(by_actions, alpha / n_rows))
        entropy = -float(drawn.log_probs.mean())
        self._temperature_weights.gradients.fill_(entropy - self._target_entropy)
        return {
            "actor_loss": -alpha * entropy - float(least.mean()),
            "entropy": entropy,
            "temperature": alpha,
        }

    def _step_actor(self, learning_rate: float) -> None:
        super()._step_actor(learning_rate)
        if self.config.temperature is None:
            self._temperature_optimizer.step(learning_rate)

    def episode_extras(self, actor_id: ActorId) -> dict[str, float]:
        """``temperature``, and ``loss_mean``, ``loss_std``, ``loss_max`` over the episode.

        Reading them clears the actor's losses: a second call gives the temperature alone.
        """
        return {"temperature": self.exploration_rate, **super().episode_extras(actor_id)}
