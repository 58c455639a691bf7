"""The acting side of DQN: greedy, or exploring by random actions or by the softmax of the values.

Each way of exploring draws a fixed count of random numbers per row, so that the grouping of rows into calls
does not change any action.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stoker.agents.base import NetworkPolicy
from stoker.agents.dqn.network import QNetwork, ValueNetwork
from stoker.agents.networks import predict
from stoker.types import ActMode

NetworkT = TypeVar("NetworkT", bound=ValueNetwork)

_FEW = 16
"""Up to this many rows, plain Python is faster than numpy."""


class QPolicy(NetworkPolicy[NetworkT]):
    """Takes the action of the highest value in EXPLOIT, drawing no random number, and explores in EXPLORE.

    The agent publishes ``epsilon``, the share of random actions, or ``temperature``, that of the softmax. See
    ``NetworkPolicy``.
    """

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[Any, None]:
        """One action per checked observation, in the same order; without extras.

        A list of ints, or int64 ``[B]`` for observations in an array.
        """
        rows = self._spaces.observations.stack(observations)
        values, mask, allowed = self._values(rows), self._spaces.mask, None
        if mask is not None:
            allowed = mask.allowed(rows)
            values = np.where(allowed, values, -np.inf)
        if mode is ActMode.EXPLOIT:
            actions = values.argmax(axis=1)
        elif "epsilon" in self.published:
            actions = epsilon_greedy(values, self.published["epsilon"], self._explore, allowed)
        else:
            actions = softmax_actions(values, self.published["temperature"], self._explore)
        if first := self._spaces.actions.first:
            actions += first
        return (actions if isinstance(observations, np.ndarray) else actions.tolist()), None

    @abstractmethod
    def _values(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """The value of each action ``[B, n_actions]`` for observations ``[B, *observation_shape]``."""


class DQNPolicy(QPolicy[QNetwork]):
    """Acts by the values of a ``QNetwork``; see ``QPolicy``."""

    def _values(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        if self._small is None or len(rows) > self._small.most_rows:
            return predict(self.network, rows, self._device)[0]
        values = self._small.outputs(self._small.inputs(rows))
        return self.network.joined(values) if self.network.dueling else values


def epsilon_greedy(
    values: NDArray[Any],
    epsilon: float,
    generator: np.random.Generator,
    allowed: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """The best action of each row ``[B, n_actions]``, or with probability epsilon any that is allowed.

    Sutton & Barto 2018, section 2.2; two draws per row. The values of forbidden actions are -inf.
    """
    actions = values.argmax(axis=1)
    draws = generator.random((len(actions), 2))
    if allowed is not None:
        explored = draws[:, 0] < epsilon
        n_before = allowed[explored].cumsum(axis=1)  # of each action: the allowed ones up to it
        nth = (draws[explored, 1:] * n_before[:, -1:]).astype(np.int64)
        actions[explored] = (n_before <= nth).sum(axis=1)
        return actions
    if len(actions) > _FEW:
        explored = draws[:, 0] < epsilon
        actions[explored] = draws[explored, 1] * values.shape[1]
        return actions
    for row, (chance, choice) in enumerate(draws.tolist()):
        if chance < epsilon:
            actions[row] = int(choice * values.shape[1])
    return actions


def softmax_actions(
    values: NDArray[Any], temperature: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """One action per row ``[B, n_actions]``, with ``action_probabilities``; one draw per row.

    The values of forbidden actions are -inf.
    """
    up_to = action_probabilities(values, temperature).cumsum(axis=1)
    draws = generator.random((len(values), 1)) * up_to[:, -1:]  # sums of floats end near 1, not at it
    return (up_to <= draws).sum(axis=1)


def action_probabilities(values: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    """``exp(Q(a) / temperature)`` as a share of its sum over the actions (Sutton & Barto 2018, eq. 2.11).

    Near temperature 0 the best action takes all; far above all differences each takes as much.
    """
    exact = values.astype(np.float64)
    weights = np.exp((exact - exact.max(axis=1, keepdims=True)) / temperature)
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares
