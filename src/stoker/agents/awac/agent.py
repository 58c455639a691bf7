"""AWAC (Nair et al. 2020, "AWAC: Accelerating Online Reinforcement Learning with Offline Datasets").

The critics learn the values of the actor's own actions. The actor imitates the data's actions, with
weights that grow with their advantage over its own.
"""

from __future__ import annotations

from functools import partial

import torch

from stoker.agents.advantage_weighted import AdvantageWeightedAgent
from stoker.agents.awac.config import AWACConfig
from stoker.agents.twin_critics import Proposal, SeenBatch


class AWAC(AdvantageWeightedAgent[AWACConfig]):
    """AWAC (Nair et al. 2020): an actor, twin critics with targets, an optimizer each, and a replay.

    See ``TwinCriticAgent`` for arguments, attributes and errors.
    """

    name = "AWAC"
    _config_type = AWACConfig

    def _propose(self, seen: torch.Tensor, following: torch.Tensor) -> Proposal:
        """``min_k Q_k(s', a')`` of the targets, with a drawn ``a'`` (Algorithm 1), and drawn actions."""
        means, next_means = self._actor_outputs(seen, following).tanh().chunk(2)
        values = self._least_target(following, self._drawn(next_means))
        own = self._drawn(means.repeat(self.config.n_action_samples, 1))
        return Proposal(values, own, partial(self._improve, means))

    def _improve(self, means: torch.Tensor, seen: SeenBatch) -> dict[str, float]:
        """The actor's loss (eq. 13), its weights normalized over the batch as the authors' are."""
        config, n_rows = self.config, len(seen.values)
        worth = seen.own_values.amin(1).view(config.n_action_samples, n_rows).mean(0)
        advantages = seen.values.amin(1).sub_(worth)
        weights = advantages.mul_(config.inverse_temperature).softmax(0).mul_(n_rows)
        return {"weight_max": float(weights.max()), **self._imitate(seen, means, weights)}
