"""The acting side of DQN: greedy, or exploring as its settings say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.agents.dqn.acting import SmallPass
from stoker.agents.dqn.build import make_network
from stoker.agents.dqn.config import DQNConfig
from stoker.agents.dqn.exploring import epsilon_greedy, softmax_actions
from stoker.agents.dqn.network import QNetwork, frozen_copy
from stoker.agents.dqn.perceptron import Perceptron
from stoker.agents.dqn.spaces import DQNSpaces
from stoker.agents.packing import PackedWeights
from stoker.agents.seeds import seeded_generator
from stoker.errors import ConfigError
from stoker.types import ActMode

__all__ = ["DQNPolicy"]


class DQNPolicy:
    """Chooses actions with its own weights; one forward pass for all observations.

    EXPLOIT takes the action of the highest value and draws no random number. EXPLORE is epsilon-greedy, or
    takes actions by the softmax of their values (``stoker.agents.dqn.exploring``).

    Those that an agent makes share its generator, so that a checkpoint holds it: act from one thread at a
    time. A ``fork`` has its own generator and may act anywhere; it can be pickled.

    Args:
        config: the settings of its agent.
        spaces: what observations and actions look like.
        network: this policy's own, on the device to compute on.
        explore: the generator that exploring draws from.
        exploration_rate: how much to explore at first.

    Attributes:
        network: what it acts with.
        exploration_rate: the share of random actions when exploring, or the temperature of the softmax.
    """

    def __init__(
        self,
        config: DQNConfig,
        spaces: DQNSpaces,
        network: QNetwork,
        explore: np.random.Generator,
        exploration_rate: float,
    ) -> None:
        self.network = network
        self.exploration_rate = exploration_rate
        self._packed = PackedWeights(network)
        self._device = self._packed.values.device
        self._small: SmallPass | None = None
        if isinstance(network, Perceptron) and self._device.type == "cpu":
            self._small = SmallPass(network)
        self._config = config
        self._spaces = spaces
        self._explore = explore
        self._explored = epsilon_greedy if config.exploration == "epsilon" else softmax_actions

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[list[int], None]:
        """One action per observation, in the same order, as plain ints; nothing to remember about them.

        Args:
            observations: each ``[*observation_shape]``, checked.
            mode: whether to explore.
        """
        values = self._values(self._spaces.stack(observations))
        actions: list[int]
        if mode is ActMode.EXPLORE:
            actions = self._explored(values, self.exploration_rate, self._explore)
        else:
            actions = values.argmax(axis=1).tolist()
        if first := self._spaces.first_action:
            actions = [action + first for action in actions]
        return actions, None

    def follow(self, weights: PackedWeights, exploration_rate: float) -> None:
        """Act from now on with a copy of these weights, of an equal network, and explore so much."""
        self._packed.copy_from(weights)
        self.exploration_rate = exploration_rate

    def fork(self, seed: int) -> DQNPolicy:
        """An independent copy on the CPU that explores by its own generator.

        Raises:
            ConfigError: The seed is no whole number of at least 0.
        """
        network = frozen_copy(self.network).to("cpu")
        return DQNPolicy(self._config, self._spaces, network, seeded_generator(seed), self.exploration_rate)

    def weights(self) -> dict[str, Any]:
        """The network's weights, its moments if it normalizes, and ``epsilon`` or ``temperature``."""
        return {**self._packed.named_copy(), self._config.exploration_rate_name: self.exploration_rate}

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Act as the policy did that gave these.

        Raises:
            ConfigError: They are not of such a policy; nothing was changed.
        """
        name = self._config.exploration_rate_name
        rate = weights.get(name)
        if not isinstance(rate, int | float):
            raise ConfigError(
                f"these weights lack {name}: they are of a policy that explores differently; load what an "
                "agent with the same settings gave"
            )
        self._packed.load_named(weights)
        self.exploration_rate = float(rate)

    def __reduce__(self) -> tuple[Any, ...]:
        # By value, as numpy's arrays: torch's tensors would go to another process as memory shared with it.
        values = {name: tensor.numpy() for name, tensor in self._packed.named_copy().items()}
        return _revived, (self._config, self._spaces, values, self._explore, self.exploration_rate)

    def _values(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        if self._small is not None and len(rows) <= self._small.most_rows:
            return self._small(rows)
        with torch.inference_mode():
            return self.network(torch.as_tensor(rows).to(self._device)).cpu().numpy()


def _revived(
    config: DQNConfig,
    spaces: DQNSpaces,
    values: Mapping[str, NDArray[Any]],
    explore: np.random.Generator,
    exploration_rate: float,
) -> DQNPolicy:
    """A policy in the process that it was pickled for."""
    network = frozen_copy(make_network(config, spaces, torch.Generator()))
    policy = DQNPolicy(config, spaces, network, explore, exploration_rate)
    weights = {name: torch.as_tensor(array) for name, array in values.items()}
    policy.load_weights({**weights, config.exploration_rate_name: exploration_rate})
    return policy
