"""TD3 (Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods").

A deterministic actor that explores by noise, and learns from the first of two critics, less often than they.
"""

from __future__ import annotations

import torch

from stoker.agents.base import AgentSeeds
from stoker.agents.encoded import Features
from stoker.agents.off_policy import TargetNetwork
from stoker.agents.passes import StackedPasses
from stoker.agents.td3.config import TD3Config
from stoker.agents.td3.policy import TD3Policy
from stoker.agents.twin_critics import Proposal, SeenBatch, TwinCriticAgent


class TD3(TwinCriticAgent[TD3Config, TD3Policy]):
    """TD3 (Fujimoto et al. 2018): an actor and twin critics, each with a target network, and a replay.

    See ``TwinCriticAgent`` for arguments, attributes and errors.
    """

    name = "TD3"
    _policy_type = TD3Policy
    _config_type = TD3Config
    _outputs_per_number = 1

    def _complete(self, seeds: AgentSeeds) -> None:
        config, actor = self.config, self._network
        self._target_actor = TargetNetwork(actor, self._weights, config.tau, config.target_update_interval)
        target_actor = self._target_actor.network
        self._target_actor_passes = StackedPasses((target_actor.mlp,), self._target_actor.weights)
        self._target_actor_features = Features(target_actor.encoder)
        self._first_critic_passes = self._critics.passes(self._critic_weights, 1)
        self._parts["target_actor"] = self._target_actor.network

    @property
    def _published(self) -> dict[str, float]:
        return {**super()._published, "exploration_noise": self.config.exploration_noise}

    @property
    def _is_actor_due(self) -> bool:
        return self._gradient_steps % self.config.policy_delay == 0

    def _propose(self, seen: torch.Tensor, following: torch.Tensor) -> Proposal:
        """``min_k Q_k(s', pi'(s') + noise)``, the noise limited (Algorithm 1, and eq. 14)."""
        config = self.config
        noise = self._standard_normal(len(following)).mul_(config.target_noise)
        noise.clamp_(-config.target_noise_limit, config.target_noise_limit)
        outputs = self._target_actor_passes.forward(self._target_actor_features.of(following))[0]
        values = self._least_target(following, outputs.tanh().add_(noise).clamp_(-1.0, 1.0))
        return Proposal(values, None, self._improve)

    def _improve(self, seen: SeenBatch) -> dict[str, float]:
        """Of ``-Q_1(s, pi(s))``, at every ``policy_delay``-th gradient step (Algorithm 1)."""
        if not self._is_actor_due:
            return {}
        features, n_rows = seen.features, len(seen.actions)
        actions = self._actor_passes.forward(self._actor_features.tracked(seen.inputs))[0].tanh()
        [values] = self._first_critic_passes.forward(torch.cat([features, actions], dim=1))
        first = torch.zeros(n_rows, dtype=torch.int64, device=self._device)
        by_actions = self._first_critic_passes.chosen_input_gradient(
            first, -1 / n_rows, slice(features.shape[1], None)
        )
        self._actor_backward(torch.addcmul(by_actions, by_actions, actions * actions, value=-1))
        return {"actor_loss": -float(values.mean())}

    def _follow(self) -> None:
        if self._is_actor_due:
            n_delayed = self._gradient_steps // self.config.policy_delay
            self._target.follow(n_delayed)
            self._target_actor.follow(n_delayed)
