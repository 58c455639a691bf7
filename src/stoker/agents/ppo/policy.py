"""The acting side of PPO: draws from the policy's distribution, and records what it drew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker.agents.base import NetworkPolicy
from stoker.agents.networks import predict
from stoker.agents.ppo.network import ActorCritic
from stoker.types import ActMode

__all__ = ["ACTION", "LOG_PROB", "VALUE", "VERSION", "PPOPolicy"]

LOG_PROB, VALUE, VERSION, ACTION = range(4)
"""The places in the policy extras of an action; the action itself takes the rest."""


class PPOPolicy(NetworkPolicy[ActorCritic]):
    """Draws from the policy's distribution in EXPLORE, and takes the likeliest action in EXPLOIT.

    EXPLORE gives extras for each action: float64 ``[log-probability, value, version, *action]``, the action
    being the indices of a discrete one, or a continuous one before it was clipped to its bounds, of which the
    log-probability is. EXPLOIT draws no random number and gives no extras. The agent publishes the
    ``version``: the updates behind the weights. See ``NetworkPolicy``.
    """

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[Any, Any]:
        """One action per checked observation, in the same order, and extras for each, or None with EXPLOIT.

        Actions are plain ints for a Discrete space, else arrays ``[*action_shape]``; for observations in
        an array they are one, too.
        """
        actions, distribution = self._spaces.actions, self.network.distribution
        sent = actions.column if isinstance(observations, np.ndarray) else actions.for_env
        rows = self._spaces.observations.stack(observations)
        if mode is ActMode.EXPLOIT:
            parameters, _ = self._forward(rows, with_values=False)
            return sent(distribution.mode(parameters)), None
        parameters, values = self._forward(rows)
        chosen, log_probs = distribution.draw(parameters, self._explore)
        extras = np.empty((len(rows), ACTION + distribution.action_size))
        extras[:, LOG_PROB] = log_probs
        extras[:, VALUE] = values
        extras[:, VERSION] = self.published["version"]
        extras[:, ACTION:] = chosen
        return sent(chosen), extras

    def _forward(
        self, rows: NDArray[Any], *, with_values: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Parameters ``[B, n_parameters]`` and, if asked for, values ``[B]``."""
        if self._small is None or len(rows) > self._small.most_rows:
            parameters, values = predict(self.network, rows, self._device)
            return parameters, values
        inputs = self._small.inputs(rows)
        values = self._small.outputs(inputs, 1)[:, 0] if with_values else None
        return self._small.outputs(inputs), values
