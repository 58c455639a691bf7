"""All weights of a network in one tensor, and Adam on it: one kernel where there would be one per weight.

The networks that reinforcement learning trains are small: what an update costs is mostly the number of
kernels that are started. In one tensor all weights are copied, blended, clipped and optimised together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.optim.adam import adam

from stoker.errors import ConfigError

__all__ = ["PackedAdam", "PackedWeights"]


class PackedWeights:
    """The parameters of a network, which from now on lie in one tensor, one behind the other.

    The network stays as it is: its parameters are views. It must not be moved or cast afterwards.

    Args:
        network: with parameters of one dtype on one device.

    Attributes:
        values: ``[number of weights]``.
    """

    def __init__(self, network: nn.Module) -> None:
        self._parameters = list(network.parameters())
        self._named_buffers = dict(network.named_buffers())
        self._buffers = list(self._named_buffers.values())
        self.values = torch.cat([parameter.detach().reshape(-1) for parameter in self._parameters])
        for parameter, view in zip(self._parameters, self.views(self.values), strict=True):
            parameter.data = view

    def allocate_gradients(self) -> torch.Tensor:
        """Make the gradients of the parameters views of one tensor of zeros, and return it."""
        gradients = torch.zeros_like(self.values)
        for parameter, view in zip(self._parameters, self.views(gradients), strict=True):
            parameter.grad = view
        return gradients

    def views(self, packed: torch.Tensor) -> list[torch.Tensor]:
        """A tensor like ``values`` as one tensor for each parameter, in the parameters' shapes."""
        sizes = [parameter.numel() for parameter in self._parameters]
        parts = cast("tuple[torch.Tensor, ...]", packed.split(sizes))  # pyright: ignore[reportUnknownMemberType]
        return [part.view(parameter.shape) for part, parameter in zip(parts, self._parameters, strict=True)]

    def named_copy(self) -> dict[str, torch.Tensor]:
        """``weights``, all in one tensor, and each buffer by its name: in host memory, which is new."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in self._named().items()}

    def load_named(self, named: Mapping[str, Any]) -> None:
        """Take over what ``named_copy`` of an equal network gave; other names are left alone.

        Raises:
            ConfigError: A tensor is missing or of another shape; nothing was changed.
        """
        own = self._named()
        for name, tensor in own.items():
            given = named.get(name)
            if not isinstance(given, torch.Tensor) or given.shape != tensor.shape:
                found = list(given.shape) if isinstance(given, torch.Tensor) else given
                raise ConfigError(
                    f"{name} must be a tensor of shape {list(tensor.shape)}, got {found}: these are the "
                    "weights of another network"
                )
        for name, tensor in own.items():
            tensor.copy_(named[name])

    def copy_from(self, source: PackedWeights) -> None:
        """Take over the weights and buffers of an equal network."""
        self.values.copy_(source.values)
        for own, other in zip(self._buffers, source._buffers, strict=True):
            own.copy_(other)

    def blend_from(self, source: PackedWeights, tau: float) -> None:
        """Move weights and buffers by the fraction ``tau`` towards those of an equal network."""
        self.values.lerp_(source.values, tau)
        for own, other in zip(self._buffers, source._buffers, strict=True):
            own.lerp_(other, tau)

    def _named(self) -> dict[str, torch.Tensor]:
        return {"weights": self.values, **self._named_buffers}


class PackedAdam:
    """Adam (Kingma & Ba 2015) over packed weights, by torch's fused kernel.

    Args:
        weights: to be optimised.
        gradients: of them, as ``allocate_gradients`` gave it.
        learning_rate: its step size.

    Attributes:
        learning_rate: the step size of the next step.
    """

    def __init__(self, weights: PackedWeights, gradients: torch.Tensor, learning_rate: float) -> None:
        self._weights = weights
        self._gradients = gradients
        self.learning_rate = learning_rate
        self._mean = torch.zeros_like(weights.values)
        self._square = torch.zeros_like(weights.values)
        self._step = torch.zeros((), device=weights.values.device)

    def step(self) -> None:
        """Take one step along the gradients."""
        adam(
            [self._weights.values],
            [self._gradients],
            [self._mean],
            [self._square],
            [],
            [self._step],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """The moments of each parameter, laid out as ``torch.optim.Adam`` does; they share memory."""
        moments = zip(self._weights.views(self._mean), self._weights.views(self._square), strict=True)
        return {
            "state": {
                index: {"step": self._step, "exp_avg": mean, "exp_avg_sq": square}
                for index, (mean, square) in enumerate(moments)
            }
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what ``state_dict``, or that of a ``torch.optim.Adam``, described."""
        saved = state["state"]
        if not saved:  # an Adam that has not stepped
            for tensor in (self._mean, self._square, self._step):
                tensor.zero_()
            return
        for name, packed in (("exp_avg", self._mean), ("exp_avg_sq", self._square)):
            for index, view in enumerate(self._weights.views(packed)):
                view.copy_(saved[index][name])
        self._step.copy_(saved[0]["step"])
