"""The base of agents whose actor imitates the actions of the replay, the better ones more: IQL and AWAC.

The critics value only actions that are in the data or near them, so that these agents learn from data that
nothing is added to. Online they explore by the actor's own standard deviations.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stoker.agents.config import TwinCriticConfig
from stoker.agents.squashing import noisy, squashed
from stoker.agents.twin_critics import SeenBatch, TwinCriticAgent, TwinCriticPolicy
from stoker.agents.twin_networks import Actor
from stoker.types import ActMode

ConfigT = TypeVar("ConfigT", bound=TwinCriticConfig)

_LOG_STD_LIMITS = (-5.0, 2.0)
"""Beyond them a standard deviation has no gradient, as in the authors' implementation of IQL."""

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class NormalActor(Actor):
    """Normal distributions of actions: means squashed by tanh, and deviations that no observation changes.

    Actions themselves are not squashed but limited to -1 and 1.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.log_stds: nn.Parameter = nn.Parameter(torch.zeros(self.scale.size))

    def stds(self) -> torch.Tensor:
        """The standard deviation of each number of an action ``[size]``."""
        return self.log_stds.clamp(*_LOG_STD_LIMITS).exp()

    def described(self, observations: torch.Tensor) -> dict[str, torch.Tensor]:
        """``mean`` and ``std`` ``[B, size]`` of actions scaled to -1..1, before they are limited."""
        means = self(observations).tanh()
        return {"mean": means, "std": self.stds().expand_as(means)}


class NormalPolicy(TwinCriticPolicy):
    """Draws actions in EXPLORE, and takes the mean in EXPLOIT. See ``TwinCriticPolicy``."""

    network: NormalActor

    def _chosen(self, outputs: NDArray[np.float32], mode: ActMode) -> NDArray[np.float64]:
        if mode is ActMode.EXPLOIT:
            return squashed(outputs)
        stds = self.network.stds().detach().cpu().numpy().astype(np.float64)
        return noisy(outputs, stds, self._explore)


class AdvantageWeightedAgent(TwinCriticAgent[ConfigT, NormalPolicy]):
    """An actor that imitates actions by the exponentials of their advantages, twin critics, and a replay.

    See ``TwinCriticAgent`` for arguments, attributes and errors.
    """

    _policy_type = NormalPolicy
    _actor_type = NormalActor
    _outputs_per_number = 1
    _network: NormalActor

    def _means(self, features: torch.Tensor) -> torch.Tensor:
        """The means ``[B, size]`` of the actor's distributions."""
        return self._actor_passes.forward(features)[0].tanh()

    def _drawn(self, means: torch.Tensor) -> torch.Tensor:
        """Actions ``[B, size]`` from the distributions with these means."""
        drawn = torch.addcmul(means, self._network.stds(), self._standard_normal(len(means)))
        return drawn.clamp_(-1.0, 1.0)

    def _imitate(self, seen: SeenBatch, means: torch.Tensor, weights: torch.Tensor) -> dict[str, float]:
        """Write the gradient of ``-mean(weights log pi(a|s))``; return this ``actor_loss`` and the mean std.

        Args:
            seen: the batch.
            means: of the actor, from the last forward pass, on tracked features.
            weights: of the transitions, ``[B]``.
        """
        actor, shares = self._network, weights.div(len(weights)).unsqueeze(1)
        stds = actor.stds()
        deviations = (seen.actions - means).div_(stds)
        weighted = deviations * shares
        total = shares.sum()
        squares = (weighted * deviations).sum(0)
        is_free = actor.log_stds.eq(actor.log_stds.clamp(*_LOG_STD_LIMITS))
        torch.mul(total - squares, is_free, out=cast("torch.Tensor", actor.log_stds.grad))
        by_means = weighted.div_(stds).neg_()
        self._actor_backward(torch.addcmul(by_means, by_means, means * means, value=-1))
        entropies = stds.log().sum().add_(_LOG_SQRT_2PI * len(stds))
        loss = float(torch.addcmul(0.5 * squares.sum(), total, entropies))
        return {"actor_loss": loss, "std": float(stds.mean())}
