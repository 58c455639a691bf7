"""AWAC (Nair et al. 2020, "AWAC: Accelerating Online Reinforcement Learning with Offline Datasets").

The critics learn the values of the actor's own actions. The actor imitates the data's actions, with
weights that grow with their advantage over its own.
"""

from __future__ import annotations

import torch

from stoker.agents.advantage_weighted import AdvantageWeightedAgent
from stoker.agents.awac.config import AWACConfig
from stoker.agents.twin_critics import SeenBatch

__all__ = ["AWAC"]


class AWAC(AdvantageWeightedAgent[AWACConfig]):
    """AWAC (Nair et al. 2020): an actor, twin critics with targets, an optimizer each, and a replay.

    See ``TwinCriticAgent`` for arguments, attributes and errors.
    """

    name = "AWAC"
    _config_type = AWACConfig

    def _next_values(self, following: torch.Tensor) -> torch.Tensor:
        """``min_k Q_k(s', a')`` of the targets, with a drawn ``a'`` (Algorithm 1)."""
        return self._least_target(following, self._drawn(self._means(self._actor_features.of(following))))

    def _improve(self, seen: SeenBatch) -> dict[str, float]:
        """The actor's loss (eq. 13), its weights normalized over the batch as the authors' are."""
        config, n_rows = self.config, len(seen.values)
        means = self._means(self._actor_features.tracked(seen.inputs))
        count = config.n_action_samples
        actions = self._drawn(means.repeat(count, 1))
        first, second = self._critic_passes.forward(
            torch.cat([seen.features.repeat(count, 1), actions], dim=1)
        )
        worth = torch.minimum(first, second).view(count, n_rows).mean(0)
        advantages = seen.values.amin(1).sub_(worth)
        weights = advantages.mul_(config.inverse_temperature).softmax(0).mul_(n_rows)
        return {"weight_max": float(weights.max()), **self._imitate(seen, means, weights)}
