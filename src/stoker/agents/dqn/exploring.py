"""Which action is taken to explore: a random one now and then, or each as often as its value suggests.

Each way draws the same count of numbers per row, whatever comes of them, so that how rows are grouped into
calls does not change what any of them draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["action_probabilities", "epsilon_greedy", "softmax_actions"]


def epsilon_greedy(values: NDArray[np.float32], epsilon: float, generator: np.random.Generator) -> list[int]:
    """The best action of each row, or with probability epsilon any (Sutton & Barto 2018, section 2.2).

    Args:
        values: of all actions, ``[B, n_actions]``.
        epsilon: the share of uniformly random actions.
        generator: gives two numbers per row.
    """
    actions: list[int] = values.argmax(axis=1).tolist()
    draws: list[list[float]] = generator.random((len(actions), 2)).tolist()
    for row, (chance, choice) in enumerate(draws):
        if chance < epsilon:
            actions[row] = int(choice * values.shape[1])
    return actions


def softmax_actions(
    values: NDArray[np.float32], temperature: float, generator: np.random.Generator
) -> list[int]:
    """One action per row, as likely as ``action_probabilities`` says.

    Args:
        values: of all actions, ``[B, n_actions]``.
        temperature: above 0.
        generator: gives one number per row.
    """
    up_to = action_probabilities(values, temperature).cumsum(axis=1)
    draws = generator.random((len(values), 1)) * up_to[:, -1:]  # sums of floats end near 1, not at it
    actions: list[int] = (up_to <= draws).sum(axis=1).tolist()
    return actions


def action_probabilities(values: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    """``exp(Q(a) / temperature)`` in shares of its sum over the actions (Sutton & Barto 2018, eq. 2.11).

    Args:
        values: of all actions, ``[B, n_actions]``.
        temperature: above 0; near 0 the best action takes all, far above all differences each takes as much.
    """
    exact = values.astype(np.float64)
    weights = np.exp((exact - exact.max(axis=1, keepdims=True)) / temperature)
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares
