"""The open rollout: transitions of all actors in arrival order, until an update takes them.

A fragment is the consecutive transitions of one actor within one episode. It ends when the episode
terminates, is truncated or is given up, or when the rollout ends. A fragment that does not end by termination
bootstraps from the value of its last observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.types import ActorId, EpisodeStatus, Experience, ExperienceBatch


class Rollout:
    """Transitions in arrival order, and their fragments; it grows beyond ``capacity`` where it must."""

    def __init__(
        self, observation_shape: tuple[int, ...], observation_dtype: Any, extras_size: int, capacity: int
    ) -> None:
        self._size = 0
        self._n_fragments = 0
        # An entry per transition:
        self._rows: dict[str, NDArray[Any]] = {
            "observations": np.empty((capacity, *observation_shape), observation_dtype),
            "policy_extras": np.empty((capacity, extras_size)),
            "rewards": np.empty(capacity),
            "fragments": np.empty(capacity, np.int64),
        }
        # An entry per fragment, in the order in which they began:
        self._ends: dict[str, NDArray[Any]] = {
            "successors": np.empty((16, *observation_shape), observation_dtype),
            "has_future": np.empty(16, np.bool_),
        }
        self._running: dict[ActorId, int] = {}  # the fragments that the next transition of an actor continues
        # The same for the actors of the last batch, as long as nothing else has changed; -1: none.
        self._batch_ids: tuple[ActorId, ...] = ()
        self._batch_fragments: NDArray[np.int64] = np.empty(0, np.int64)

    def __len__(self) -> int:
        return self._size

    @property
    def observations(self) -> NDArray[Any]:
        """``[T, *observation_shape]``, in arrival order."""
        return self._rows["observations"][: self._size]

    @property
    def policy_extras(self) -> NDArray[np.float64]:
        """The policy extras of each action, float64 ``[T, extras_size]``, in arrival order."""
        return self._rows["policy_extras"][: self._size]

    def add(self, experience: Experience, reward: float) -> None:
        """Copy a transition in, with the reward to learn from and policy extras ``[extras_size]``."""
        self._batch_ids = ()
        row = self._size
        rows = self._rows = _grown(self._rows, row + 1)
        fragment = self._running.get(experience.actor_id)
        if fragment is None:
            fragment = self._running[experience.actor_id] = self._n_fragments
            self._n_fragments += 1
        ends = self._ends = _grown(self._ends, self._n_fragments)
        rows["observations"][row] = experience.observation
        rows["policy_extras"][row] = experience.policy_extras
        rows["rewards"][row] = reward
        rows["fragments"][row] = fragment
        ends["has_future"][fragment] = experience.status is not EpisodeStatus.TERMINATED
        ends["successors"][fragment] = experience.next_observation  # always: a checkpoint holds all of them
        if experience.status is not EpisodeStatus.CONTINUING:
            del self._running[experience.actor_id]
        self._size += 1

    def add_batch(self, batch: ExperienceBatch, rewards: NDArray[np.float64]) -> None:
        """Copy transitions in, as ``add`` does one by one."""
        ids = batch.actor_ids
        if ids is not self._batch_ids:
            if len({*ids}) < len(ids):
                for experience, reward in zip(batch.experiences(), rewards.tolist(), strict=True):
                    self.add(experience, reward)
                return
            self._batch_ids = ids
            self._batch_fragments = np.array([*map(self._running.get, ids, repeat(-1))], np.int64)
        fragments = self._batch_fragments
        begun = np.flatnonzero(fragments < 0)
        if len(begun):
            fragments[begun] = self._n_fragments + np.arange(len(begun))
            self._running.update((ids[row], int(fragments[row])) for row in begun.tolist())
            self._n_fragments += len(begun)
        ends = self._ends = _grown(self._ends, self._n_fragments)
        start, stop = self._size, self._size + len(ids)
        rows = self._rows = _grown(self._rows, stop)
        rows["observations"][start:stop] = batch.observations
        rows["policy_extras"][start:stop] = batch.policy_extras
        rows["rewards"][start:stop] = rewards
        rows["fragments"][start:stop] = fragments
        ends["has_future"][fragments] = ~batch.terminated
        ends["successors"][fragments] = batch.next_observations
        ended = np.flatnonzero(batch.terminated | batch.truncated)
        if len(ended):
            for row in ended.tolist():
                del self._running[ids[row]]
            fragments[ended] = -1
        self._size = stop

    def give_up(self, actor_id: ActorId) -> None:
        """End the actor's unfinished episode, if any; it bootstraps from its last observation."""
        if self._running.pop(actor_id, None) is not None:
            self._batch_ids = ()

    def successors(self) -> NDArray[Any]:
        """The last observation of each fragment that has a future, ``[F, *observation_shape]``."""
        n = self._n_fragments
        return self._ends["successors"][:n][self._ends["has_future"][:n]]

    def advantages(
        self, values: NDArray[np.float64], successor_values: NDArray[Any], gamma: float, gae_lambda: float
    ) -> NDArray[np.float64]:
        """The advantage of each transition, float64 ``[T]``, in arrival order.

        ``values`` are those in the policy extras, ``[T]``; ``successor_values`` those of ``successors()``,
        ``[F]``.
        """
        fragments = self._rows["fragments"][: self._size]
        order = np.argsort(fragments, kind="stable")  # fragment by fragment, each in its own order
        fragments = fragments[order]
        goes_on = np.append(fragments[1:] == fragments[:-1], np.zeros(min(self._size, 1), np.bool_))
        ends = np.zeros(self._n_fragments)
        ends[self._ends["has_future"][: self._n_fragments]] = successor_values
        ordered = values[order]
        next_values = np.where(goes_on, np.roll(ordered, -1), ends[fragments])
        found = generalized_advantages(
            self._rows["rewards"][: self._size][order], ordered, next_values, goes_on, gamma, gae_lambda
        )
        advantages = np.empty_like(found)
        advantages[order] = found
        return advantages

    def clear(self) -> None:
        """Begin the next rollout; running episodes continue in new fragments."""
        self._size = self._n_fragments = 0
        self._running.clear()
        self._batch_ids = ()

    def state_dict(self) -> dict[str, Any]:
        """The transitions and the fragments; tensors share the rollout's memory."""
        return {
            **{name: torch.as_tensor(column[: self._size]) for name, column in self._rows.items()},
            **{name: torch.as_tensor(column[: self._n_fragments]) for name, column in self._ends.items()},
            "actor_ids": list(self._running),
            "running": list(self._running.values()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._rows = {name: state[name].cpu().numpy().copy() for name in self._rows}
        self._ends = {name: state[name].cpu().numpy().copy() for name in self._ends}
        self._size, self._n_fragments = len(self._rows["rewards"]), len(self._ends["has_future"])
        self._running = dict(zip(state["actor_ids"], state["running"], strict=True))
        self._batch_ids = ()


def _grown(columns: dict[str, NDArray[Any]], size: int) -> dict[str, NDArray[Any]]:
    """The columns with room for ``size`` entries, and for as many again if there was too little."""
    if size <= len(next(iter(columns.values()))):
        return columns
    return {
        name: np.concatenate([column, np.empty((2 * size - len(column), *column.shape[1:]), column.dtype)])
        for name, column in columns.items()
    }


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
    several episodes and actors may follow each other: a trace never leaves its own.

    Args:
        rewards: of the transitions, ``[T]``.
        values: of the states that they began in, ``[T]``.
        next_values: of the states that they led to, ``[T]``; 0 where the episode terminated.
        goes_on: whether the next row is the next transition of the same episode, bool ``[T]``. If not, the
            trace ends: at termination, at truncation, and at the end of a fragment.
        gamma: the discount per step.
        gae_lambda: the share of the trace that is kept per step.

    Returns:
        float64 ``[T]``; ``advantages + values`` are the returns to regress values to (TD(lambda)).
    """
    deltas = rewards + gamma * next_values - values
    decays = np.where(goes_on, gamma * gae_lambda, 0.0)
    advantages: list[float] = []
    advantage = 0.0
    # Plain numbers: each depends on the next one, and numpy is slower than Python for single numbers.
    for delta, decay in zip(reversed(deltas.tolist()), reversed(decays.tolist()), strict=True):
        # No product with 0 where a trace ends: 0 * inf is NaN, which would reach the rows before it.
        advantage = delta + decay * advantage if decay else delta
        advantages.append(advantage)
    advantages.reverse()
    return np.array(advantages, np.float64)
