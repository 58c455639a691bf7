"""The acting side of DQN: greedy, or epsilon-greedy to explore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stoker.agents.dqn.acting import SmallPass
from stoker.agents.dqn.network import QNetwork
from stoker.agents.dqn.spaces import DQNSpaces
from stoker.agents.packing import PackedWeights
from stoker.types import ActMode

__all__ = ["DQNPolicy"]


class DQNPolicy:
    """Chooses actions with weights of its own; one forward pass for all observations.

    EXPLOIT takes the action of the highest value and draws no random number. EXPLORE takes, per row and
    with probability ``epsilon``, a uniformly random one instead; it draws two numbers per row, so that how
    rows are grouped into calls does not change what any of them draws. The generator is the agent's and
    shared by all its policies, so that a checkpoint holds it: act from one thread at a time.

    Args:
        network: this policy's own, on the device to compute on.
        spaces: what observations and actions look like.
        explore: the generator that random actions are drawn from.
        epsilon: the share of random actions.
        device: where the network is.

    Attributes:
        network: what it acts with.
        weights: the network's, in one tensor.
        epsilon: the share of random actions when exploring.
    """

    def __init__(
        self,
        network: QNetwork,
        spaces: DQNSpaces,
        explore: np.random.Generator,
        epsilon: float,
        device: torch.device,
    ) -> None:
        self.network = network
        self.weights = PackedWeights(network)
        self._small = SmallPass(network) if device.type == "cpu" else None
        self.epsilon = epsilon
        self._spaces = spaces
        self._explore = explore
        self._device = device

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[list[int], None]:
        """One action per observation, in the same order, as plain ints; nothing to remember about them.

        Args:
            observations: each ``[*observation_shape]``, checked.
            mode: whether to explore.
        """
        actions = self._greedy(observations)
        if mode is ActMode.EXPLORE:
            draws = self._explore.random((len(actions), 2))
            for row, (chance, choice) in enumerate(draws.tolist()):
                if chance < self.epsilon:
                    actions[row] = int(choice * self._spaces.n_actions)
        if first := self._spaces.first_action:
            actions = [action + first for action in actions]
        return actions, None

    def _greedy(self, observations: Sequence[Any]) -> list[int]:
        rows = self._spaces.stack(observations)
        if self._small is not None and len(rows) <= self._small.most_rows:
            return self._small(rows).argmax(axis=1).tolist()
        with torch.inference_mode():
            return self.network(torch.as_tensor(rows).to(self._device)).argmax(dim=1).tolist()
