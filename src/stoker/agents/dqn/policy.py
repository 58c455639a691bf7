"""The acting side of DQN: greedy, or epsilon-greedy to explore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stoker.agents.dqn.network import QNetwork
from stoker.agents.dqn.spaces import DQNSpaces
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
        explore: the CPU generator that random actions are drawn from.
        epsilon: the share of random actions.
        device: where the network is.

    Attributes:
        network: the weights that it acts with.
        epsilon: the share of random actions when exploring.
    """

    def __init__(
        self,
        network: QNetwork,
        spaces: DQNSpaces,
        explore: torch.Generator,
        epsilon: float,
        device: torch.device,
    ) -> None:
        self.network = network
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
            draws = torch.rand((len(actions), 2), generator=self._explore, dtype=torch.float64).numpy()
            for row, (chance, choice) in enumerate(draws.tolist()):
                if chance < self.epsilon:
                    actions[row] = int(choice * self._spaces.n_actions)
        if first := self._spaces.first_action:
            actions = [action + first for action in actions]
        return actions, None

    def _greedy(self, observations: Sequence[Any]) -> list[int]:
        with torch.inference_mode():
            batch = self._spaces.stack(observations).to(self._device)
            return self.network(batch).argmax(dim=1).tolist()
