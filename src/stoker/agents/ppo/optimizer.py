"""Adam on packed weights, with the norm of all gradients together limited."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch

from stoker.agents.packing import PackedWeights

__all__ = ["ClippingAdam"]


class ClippingAdam:
    """Adam (Kingma & Ba 2015) whose step size is given with each step.

    Args:
        weights: to be optimised.
        eps: what is added to the root of the mean square.
        max_grad_norm: gradients of a larger norm are scaled down to it (Pascanu et al. 2013); None: none are.
    """

    def __init__(self, weights: PackedWeights, eps: float, max_grad_norm: float | None) -> None:
        self._gradients = weights.allocate_gradients()
        self._max_grad_norm = max_grad_norm
        weights.values.grad = self._gradients  # to Adam all weights are one
        self._adam = torch.optim.Adam([weights.values], eps=eps, fused=True)

    def step(self, loss: torch.Tensor, learning_rate: float) -> torch.Tensor:
        """Take one step down the gradient of ``loss``; return its norm ``[]``, before it was limited."""
        self._gradients.zero_()  # autograd adds to them, and they stay where they are
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        norm = cast("torch.Tensor", torch.linalg.vector_norm(self._gradients))  # pyright: ignore[reportUnknownMemberType]
        if self._max_grad_norm is not None:
            # What torch.nn.utils.clip_grad_norm_ does; the norm stays where it is, and nobody waits for it.
            self._gradients.mul_(torch.clamp(self._max_grad_norm / (norm + 1e-6), max=1.0))
        self._adam.param_groups[0]["lr"] = learning_rate
        self._adam.step()  # pyright: ignore[reportUnknownMemberType]
        return norm

    def state_dict(self) -> dict[str, Any]:
        """The moments of all weights, packed, by ``torch.optim.Adam``'s names; they share memory.

        Empty before the first step.
        """
        return dict(self._adam.state_dict()["state"].get(0, {}))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what ``state_dict`` described."""
        own = self._adam.state_dict()
        self._adam.load_state_dict({**own, "state": {0: copy.deepcopy(dict(state))} if state else {}})
