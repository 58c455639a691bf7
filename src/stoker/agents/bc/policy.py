"""The acting side of BC: the likeliest action, or one drawn from the probabilities of choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker.agents.base import NetworkPolicy
from stoker.agents.bc.network import Imitator
from stoker.agents.networks import predict
from stoker.types import ActMode


class BCPolicy(NetworkPolicy[Imitator]):
    """Takes the likeliest action in EXPLOIT, drawing no random number.

    EXPLORE draws choices from their probabilities, and takes the same numbers within bounds as EXPLOIT does.
    See ``NetworkPolicy``.
    """

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[Any, None]:
        """One action per checked observation, in the same order; without extras.

        Actions are plain ints for a Discrete space, else arrays ``[*action_shape]``; for observations in an
        array they are one, too.
        """
        actions, head = self._spaces.actions, self.network.head
        rows = self._spaces.observations.stack(observations)
        parameters = self._outputs(rows)
        if (mask := self._spaces.mask) is not None:
            parameters = np.where(mask.allowed(rows), parameters, np.float32(-np.inf))
        is_greedy = mode is ActMode.EXPLOIT
        chosen = head.mode(parameters) if is_greedy else head.draw(parameters, self._explore)[0]
        sent = actions.column if isinstance(observations, np.ndarray) else actions.for_env
        return sent(chosen), None

    def _outputs(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        if self._small is None or len(rows) > self._small.most_rows:
            return predict(self.network, rows, self._device)[0]
        return self._small.outputs(self._small.inputs(rows))
