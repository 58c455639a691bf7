"""The greedy policy of stoker's agents as one module: observations of the environment in, its actions out.

It is what ``stoker.policies`` exports. A network takes part by two methods, ``greedy`` and ``described``.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from stoker.agents.observations import PackedObservations
from stoker.agents.spaces import AgentSpaces
from stoker.agents.unpacked import read_unpacked


class GreedyNetwork(Protocol):
    """A network that chooses actions, from the observations that its agent stores."""

    def greedy(self, observations: torch.Tensor) -> torch.Tensor:
        """The action of each row as its action space counts it: an index ``[B, 1]``, or ``[B, size]``."""
        ...

    def described(self, observations: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the actions are chosen by, by name: ``values``, ``logits``, or ``mean`` and ``std``."""
        ...


class PolicyModule(nn.Module):
    """A network between an environment's observations and its actions; see ``HasPolicyModule``.

    Args:
        network: an ``nn.Module``, which is copied.
        spaces: of the environment.
    """

    def __init__(self, network: GreedyNetwork, spaces: AgentSpaces[Any]) -> None:
        super().__init__()
        self.network: Any = copy.deepcopy(network)
        self._actions = spaces.actions
        self._dtype = torch.as_tensor(np.empty(0, spaces.observations.dtype)).dtype
        self._layout = None
        if isinstance(spaces.observations, PackedObservations):
            self._layout = read_unpacked(self.network, spaces.observations)
        # With gradients ``tanh_`` stays in torch, where a trace can see it.
        self.cpu().eval().requires_grad_()

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        """The actions ``[B, *action_shape]`` of observations, given as a tensor ``[B, *shape]`` per part."""
        return self._actions.tensor(self.network.greedy(self._rows(parts)))

    def distribution(self, *parts: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the actions are chosen by; see ``GreedyNetwork.described``."""
        return self.network.described(self._rows(parts))

    def _rows(self, parts: tuple[torch.Tensor, ...]) -> Any:
        """What the network gets in place of the observations that its agent stores."""
        if self._layout is not None:
            return self._layout.taken(parts)
        [observations] = parts
        return observations.to(self._dtype)
