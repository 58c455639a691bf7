"""All weights of a network in one tensor, and Adam on it: one kernel where there would be one per weight.

The networks that reinforcement learning trains are small: what an update costs is mostly the number of
kernels that are started. In one tensor all weights are copied, blended, clipped and optimized together.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.optim.adam import adam

from stoker.errors import ConfigError

_LEAST_MOMENT = 1e-30
"""A moment below it adds less to a step than float32 tells apart."""

_STEPS_TO_SUBNORMAL = 128
"""Steps without a gradient after which a moment of ``_LEAST_MOMENT`` is still a normal number."""


class PackedWeights:
    """The parameters of a network as views of one tensor, in which they lie one behind the other.

    The network stays usable as it is: what is written to a parameter is written to ``values``, and the other
    way round. A copy or a pickle of packed weights packs the network that was copied with it, so that the two
    share memory there too. ``network.to``, ``network.double`` and the like give the parameters other memory:
    ``check_bound`` finds that.

    Args:
        network: with parameters of one dtype on one device.
        has_gradients: whether the gradients of the parameters are packed too, at first zeros.

    Attributes:
        values: ``[number of weights]``.
        gradients: ``[number of weights]``, of which each parameter's ``grad`` is a view; empty without them.
    """

    def __init__(self, network: nn.Module, *, has_gradients: bool = False) -> None:
        self._network = network
        self._parameters = list(network.parameters())
        # Where the network holds each of them: a parameter may be replaced, not only moved.
        self._holders = [
            (module, name)
            for module in network.modules()
            for name, _ in module.named_parameters(recurse=False)
        ]
        self._buffers = dict(network.named_buffers())
        self._has_gradients = has_gradients
        self.values: torch.Tensor = torch.cat(
            [parameter.detach().reshape(-1) for parameter in self._parameters]
        )
        for parameter, view in zip(self._parameters, self.views(self.values), strict=True):
            parameter.data = view
        self.gradients: torch.Tensor = torch.zeros_like(self.values if has_gradients else self.values[:0])
        if has_gradients:
            for parameter, view in zip(self._parameters, self.views(self.gradients), strict=True):
                parameter.grad = view
        self._addresses = self._found()

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(PackedWeights, has_gradients=self._has_gradients), (self._network,)

    def check_bound(self) -> None:
        """Raise ``ConfigError`` if the network's parameters or gradients were moved, cast or replaced."""
        if self._found() != self._addresses:
            raise ConfigError(
                f"the weights of this {type(self._network).__name__} were moved or replaced (by to(), "
                "double(), zero_grad(), load_state_dict(assign=True) or another agent): make a new agent, "
                "with device=... or another network, and load this one's state_dict into it"
            )

    def views(self, packed: torch.Tensor) -> list[torch.Tensor]:
        """A tensor like ``values`` as one tensor for each parameter, in the parameters' shapes."""
        sizes = [parameter.numel() for parameter in self._parameters]
        parts = cast("tuple[torch.Tensor, ...]", packed.split(sizes))  # pyright: ignore[reportUnknownMemberType]
        return [part.view(parameter.shape) for part, parameter in zip(parts, self._parameters, strict=True)]

    def named_copy(self) -> dict[str, torch.Tensor]:
        """``weights``, all in one tensor, and each buffer by its name: in host memory, which is new."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in self._named().items()}

    def load_named(self, named: Mapping[str, Any]) -> None:
        """Copy in the ``named_copy`` of an equal network; other names are ignored.

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
        """Copy in the weights and buffers of an equal network."""
        # To look at all parameters takes longer than the copy; a cast or a move changes the first one, too.
        holder, name = self._holders[0]
        if getattr(holder, name).data_ptr() != self._addresses[0]:
            self.check_bound()
        self.values.copy_(source.values)
        for own, other in zip(self._buffers.values(), source._buffers.values(), strict=True):
            own.copy_(other)

    def blend_from(self, source: PackedWeights, tau: float) -> None:
        """Move weights and buffers by the fraction ``tau`` towards those of an equal network."""
        self.values.lerp_(source.values, tau)
        for own, other in zip(self._buffers.values(), source._buffers.values(), strict=True):
            own.lerp_(other, tau)

    def _named(self) -> dict[str, torch.Tensor]:
        return {"weights": self.values, **self._buffers}

    def _found(self) -> list[int | None]:
        """The addresses of the parameters, and of their gradients, now."""
        now: list[torch.Tensor | None] = [getattr(holder, name) for holder, name in self._holders]
        if self._has_gradients:
            now += [None if each is None else each.grad for each in now]
        return [None if each is None else each.data_ptr() for each in now]


class PackedAdam:
    """Adam (Kingma & Ba 2015) over packed weights, by torch's fused kernel.

    Args:
        weights: to be optimized, with gradients.
        eps: added to the root of the mean square.
        max_grad_norm: ``clip`` scales gradients of a larger norm down to it (Pascanu et al. 2013).
    """

    def __init__(
        self, weights: PackedWeights, *, eps: float = 1e-8, max_grad_norm: float | None = None
    ) -> None:
        self._weights = weights
        self._eps = eps
        self._max_grad_norm = max_grad_norm
        self._state = {
            "mean": torch.zeros_like(weights.values),
            "square": torch.zeros_like(weights.values),
            "step": torch.zeros((), device=weights.values.device),
        }

    def clip(self) -> torch.Tensor:
        """Limit the norm of all gradients together; return the norm ``[]`` that they had before."""
        gradients = self._weights.gradients
        norm = cast("torch.Tensor", torch.linalg.vector_norm(gradients))  # pyright: ignore[reportUnknownMemberType]
        most = self._max_grad_norm
        if most is not None and not (norm.is_cpu and norm.item() <= most):
            # As torch.nn.utils.clip_grad_norm_ does. The norm stays on a GPU: nothing waits for it.
            gradients.mul_(torch.clamp(most / (norm + 1e-6), max=1.0))
        return norm

    def step(self, learning_rate: float) -> None:
        """Take one step of this size down the gradients."""
        adam(
            [self._weights.values],
            [self._weights.gradients],
            [self._state["mean"]],
            [self._state["square"]],
            [],
            [self._state["step"]],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=self._eps,
            maximize=False,
        )
        number = self._state["step"]
        if number.is_cpu and number.item() % _STEPS_TO_SUBNORMAL == 0:
            # The moments of a dead unit's weights shrink to subnormal numbers, where rounding keeps them from
            # zero for ever, and a CPU computes with those many times slower.
            for moments in (self._state["mean"], self._state["square"]):
                torch.ops.aten.hardshrink.out(moments, _LEAST_MOMENT, out=moments)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The moments, packed as the weights are, and the number of steps; they share memory."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what ``state_dict`` returned."""
        for name, tensor in self._state.items():
            tensor.copy_(state[name])
