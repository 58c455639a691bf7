"""Generalised advantage estimation: how much better an action turned out than its state had promised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["generalized_advantages"]


def generalized_advantages(
    rewards: NDArray[np.float64],
    values: NDArray[np.float64],
    next_values: NDArray[np.float64],
    goes_on: NDArray[np.bool_],
    gamma: float,
    gae_lambda: float,
) -> NDArray[np.float64]:
    """The advantage of each transition (Schulman et al. 2016, eq. 16), by recursion from the end.

    With ``delta[t] = rewards[t] + gamma * next_values[t] - values[t]`` it is ``delta[t]`` where a trace ends,
    and before that ``advantages[t] = delta[t] + gamma * gae_lambda * advantages[t + 1]``. Fragments of
    several episodes and actors may stand one behind the other: a trace never leaves its own.

    Args:
        rewards: of the transitions, ``[T]``.
        values: of the states that they began in, ``[T]``.
        next_values: of the states that they led to, ``[T]``; 0 where the episode terminated.
        goes_on: whether the row behind is the next transition of the same episode, bool ``[T]``. Where it is
            not, the trace ends: at termination, at truncation, and where no more is known of the episode.
        gamma: the discount per step.
        gae_lambda: the share of the trace that is kept per step.

    Returns:
        float64 ``[T]``; ``advantages + values`` are the returns to regress values to (TD(lambda)).
    """
    deltas = rewards + gamma * next_values - values
    decays = np.where(goes_on, gamma * gae_lambda, 0.0)
    advantages: list[float] = []
    advantage = 0.0
    # Plain numbers: each depends on the one behind it, and numpy takes longer for one than Python does.
    for delta, decay in zip(reversed(deltas.tolist()), reversed(decays.tolist()), strict=True):
        # Not multiplied with 0 where a trace ends: what is not finite would get past it.
        advantage = delta + decay * advantage if decay else delta
        advantages.append(advantage)
    advantages.reverse()
    return np.array(advantages, np.float64)
