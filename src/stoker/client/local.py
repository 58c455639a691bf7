"""A copy of the server's policy, which chooses actions here, without a round trip."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import gymnasium
import numpy as np
from anyio import to_thread
from gymnasium import spaces

from stoker.errors import ConfigError, RunBroken
from stoker.policies.exported import LoadedPolicy, policy_from_bytes
from stoker.types import ActMode

_logger = logging.getLogger("stoker.client")


class LocalPolicy:
    """The newest policy that the server has given.

    It acts greedily; to explore, some of its actions are random.

    Args:
        fetch: waits for a policy newer than a version, and returns its version and its file.
        action_space: of the random actions.
        epsilon: the probability of a random action where the mode is to explore.
    """

    def __init__(
        self,
        fetch: Callable[[int], Awaitable[tuple[int, bytes]]],
        action_space: gymnasium.Space[Any],
        epsilon: float,
    ) -> None:
        if not 0.0 <= epsilon <= 1.0:
            raise ConfigError(f"epsilon={epsilon!r}: give a probability, 0 to 1")
        self.version: int = -1
        """The version of the policy."""
        self._fetch = fetch
        self._space = action_space
        self._epsilon = epsilon
        self._random = np.random.default_rng()
        self._policy: LoadedPolicy | None = None

    async def update(self) -> None:
        """Wait for a newer policy, and act with that from then on.

        Raises:
            ConfigError: It is none that this stoker can compute.
        """
        version, content = await self._fetch(self.version)
        try:
            self._policy = await to_thread.run_sync(
                policy_from_bytes, content, "numpy", "the server's policy"
            )
        except RunBroken as error:
            raise ConfigError(f"{error}: use the server's version of stoker") from error
        self.version = version
        _logger.debug("acting with policy %d", version)

    def act(self, observation: Any, mode: ActMode) -> Any:
        """The greedy action, or a random one of those that the observation's mask allows."""
        if self._policy is None:
            raise ConfigError("the server has given no policy yet: wait for update()")
        if mode is ActMode.EXPLORE and self._random.random() < self._epsilon:
            mask = self._mask(observation)
            return self._space.sample(mask) if mask is not None else self._space.sample()
        return self._policy.act(observation)

    def _mask(self, observation: Any) -> Any:
        is_masked = isinstance(observation, Mapping) and isinstance(self._space, spaces.Discrete)
        mask = cast("Mapping[str, Any]", observation).get("action_mask") if is_masked else None
        return None if mask is None else np.asarray(mask, np.int8)
