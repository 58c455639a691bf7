"""The acting side of PPO: draws from the policy's distribution, and remembers what it drew."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.agents.packing import PackedWeights
from stoker.agents.ppo.acting import small_pass
from stoker.agents.ppo.network import ActorCritic
from stoker.agents.ppo.spaces import PPOSpaces
from stoker.agents.seeds import seeded_generator
from stoker.errors import ConfigError
from stoker.types import ActMode

__all__ = ["ACTION", "LOG_PROB", "VALUE", "VERSION", "PPOPolicy", "extras_size"]

LOG_PROB, VALUE, VERSION, ACTION = range(4)
"""Where in the policy extras of an action they are; the action itself is all the rest."""


def extras_size(spaces: PPOSpaces) -> int:
    """How many numbers there are in the extras of one action."""
    return ACTION + spaces.distribution.action_size


class PPOPolicy:
    """Chooses actions with its own weights; one forward pass for all observations.

    EXPLORE draws from the policy's distribution and gives extras for each action: float64
    ``[log-probability, value, version, *action]``, the action being the index of a discrete one, or a
    continuous one before it was clipped to its bounds, of which the log-probability is. EXPLOIT takes the
    likeliest action, draws nothing and remembers nothing. The number of draws per row is fixed, so that how
    rows are grouped into calls does not change what any of them draws. The generator is the agent's and
    shared by all its policies, so that a checkpoint holds it: act from one thread at a time.

    Args:
        network: this policy's own, on the device to compute on.
        spaces: what observations and actions look like.
        explore: the generator that actions are drawn from.
        version: the updates behind the weights.
        device: where the network is.

    Attributes:
        network: what it acts with.
        packed: the network's weights, in one tensor.
        version: the updates behind the weights.
    """

    def __init__(
        self,
        network: ActorCritic,
        spaces: PPOSpaces,
        explore: np.random.Generator,
        version: int,
        device: torch.device,
    ) -> None:
        self.network = network
        self.packed = PackedWeights(network)
        self.version = version
        self._small = small_pass(network, device)
        self._spaces = spaces
        self._explore = explore
        self._device = device

    def act(
        self, observations: Sequence[Any], mode: ActMode
    ) -> tuple[list[Any], list[NDArray[np.float64]] | None]:
        """One action per observation, in the same order, and the extras of them.

        Args:
            observations: each ``[*observation_shape]``, checked.
            mode: whether to explore.

        Returns:
            Plain ints for a Discrete space, arrays ``[*action_shape]`` for a Box; and extras for each
            action, or None with EXPLOIT.
        """
        actions, distribution = self._spaces.actions, self._spaces.distribution
        rows = self._spaces.stack(observations)
        if mode is ActMode.EXPLOIT:
            parameters, _ = self._forward(rows, with_values=False)
            return actions.for_env(distribution.mode(parameters)), None
        parameters, values = self._forward(rows)
        chosen, log_probs = distribution.draw(parameters, self._log_std(), self._explore)
        extras = np.empty((len(rows), ACTION + distribution.action_size))
        extras[:, LOG_PROB] = log_probs
        extras[:, VALUE] = values
        extras[:, VERSION] = self.version
        extras[:, ACTION:] = chosen
        return actions.for_env(chosen), list(extras)

    def fork(self, seed: int) -> PPOPolicy:
        """An independent copy on the CPU that draws from its own generator, made from that seed.

        Raises:
            ConfigError: The seed is no whole number of at least 0.
        """
        network, device = copy.deepcopy(self.network).to("cpu"), torch.device("cpu")
        return PPOPolicy(network, self._spaces, seeded_generator(seed), self.version, device)

    def weights(self) -> dict[str, Any]:
        """The network's weights, its moments if it normalizes, and ``version``."""
        return {**self.packed.named_copy(), "version": self.version}

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Act as the policy did that gave these.

        Raises:
            ConfigError: They are not of such a policy; nothing was changed.
        """
        if not isinstance(weights.get("version"), int):
            raise ConfigError("these weights lack a version: they are not of a PPO policy")
        self.packed.load_named(weights)
        self.version = weights["version"]

    def __getstate__(self) -> dict[str, Any]:
        # Tensors of their own: multiprocessing moves them to memory that it shares with the other process.
        return {
            "network": copy.deepcopy(self.network).cpu(),
            "spaces": self._spaces,
            "explore": self._explore,
            "version": self.version,
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        # Where it arrives it acts on the CPU: a process for an environment has no need of a device.
        self.__init__(**state, device=torch.device("cpu"))

    def _forward(
        self, rows: NDArray[Any], *, with_values: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Parameters ``[B, n_parameters]`` and, if asked for, values ``[B]``."""
        if self._small is not None and 0 < len(rows) <= self._small.most_rows:
            inputs = self._small.inputs(rows)
            return self._small.parameters(inputs), self._small.values(inputs) if with_values else None
        torch.get_num_threads()  # a new thread keeps to torch's number once asked for it: see PPO.learn
        with torch.inference_mode():
            # Copied to memory that torch aligned: on numpy's, sums may round otherwise from run to run.
            parameters, values = self.network(torch.tensor(rows, device=self._device))
            return parameters.cpu().numpy(), values.cpu().numpy()

    def _log_std(self) -> NDArray[np.float32] | None:
        log_std = self.network.log_std
        return None if log_std is None else log_std.detach().cpu().numpy()
