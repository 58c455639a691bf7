"""Adam on packed weights, with the norm of all gradients together limited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch

from stoker.agents.packing import PackedAdam, PackedWeights

__all__ = ["ClippingAdam"]


class ClippingAdam:
    """Adam (Kingma & Ba 2015) on the gradient of a loss.

    Args:
        weights: to be optimized, with gradients.
        eps: added to the root of the mean square.
        max_grad_norm: gradients of a larger norm are scaled down to it (Pascanu et al. 2013); None: none are.
    """

    def __init__(self, weights: PackedWeights, eps: float, max_grad_norm: float | None) -> None:
        self._weights = weights
        self._max_grad_norm = max_grad_norm
        self._adam = PackedAdam(weights, eps)

    def step(self, loss: torch.Tensor, learning_rate: float) -> torch.Tensor:
        """Take one step down the gradient of ``loss``; return its norm ``[]``, before it was limited."""
        gradients = self._weights.gradients
        gradients.zero_()  # autograd adds to them, and they stay where they are
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        norm = cast("torch.Tensor", torch.linalg.vector_norm(gradients))  # pyright: ignore[reportUnknownMemberType]
        if self._max_grad_norm is not None:
            # What torch.nn.utils.clip_grad_norm_ does; the norm stays on its device: nothing waits for it.
            gradients.mul_(torch.clamp(self._max_grad_norm / (norm + 1e-6), max=1.0))
        self._adam.step(learning_rate)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """The moments of each parameter, laid out as ``torch.optim.Adam`` does; they share memory."""
        return self._adam.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what ``state_dict``, or that of a ``torch.optim.Adam``, described."""
        self._adam.load_state_dict(state)
