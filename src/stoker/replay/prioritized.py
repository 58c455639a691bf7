"""Proportional prioritized replay (Schaul et al. 2016, "Prioritized Experience Replay", section 3.3, Alg. 1).

A transition is drawn with the probability ``P(i) = p_i**alpha / sum_k p_k**alpha``, where ``p_i`` is the size
of its TD error when it was last learned from. Weights ``(N P(i))**-beta`` correct the bias that this gives an
update, with a ``beta`` that grows as learning goes on (section 3.4).

Adding costs as much as in any ring. New rows get their priority when priorities are next read; the highest
priority does not change before that, so each row gets the priority that it would have had at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from stoker.errors import ConfigError
from stoker.replay.layout import from_numpy
from stoker.replay.ring import Ring
from stoker.replay.sum_tree import SumTree
from stoker.replay.transition import PrioritizedBatch, TransitionSpec
from stoker.types import AnyPath

_FIRST_PRIORITY = 1.0  # Alg. 1, line 2
_MOST = float(np.finfo(np.float32).max)  # a sum of as many as can be held is then finite


class PrioritizedReplay(Ring):
    """The newest ``capacity`` transitions; those with larger TD errors are drawn more often.

    A new transition has the highest priority ever given, 1.0 before the first, so that each is soon drawn.
    The loop that it serves::

        batch = replay.sample(64)
        errors = td_errors(batch)
        loss = (batch.weights * errors**2).mean()
        replay.update_priorities(batch.indices, errors.abs())

    Args:
        capacity: this, the others up to ``seed``, and ``memory_map`` are those of a ``Ring``; priorities stay
            in the host's memory, 9 bytes per transition.
        alpha: how much priorities count, from 0 (uniform draws) to 1.
        beta: how much of the bias the weights correct at first, from 0 (none) to 1 (all).
        final_beta: the same after ``beta_steps``; in between it is interpolated linearly.
        beta_steps: a number of samples, each of which counts as one optimization step.
        epsilon: added to each priority, above 0, so that transitions without error are drawn at times.

    Raises:
        ConfigError: A setting is out of its range; or as for a ``Ring``.
    """

    def __init__(
        self,
        capacity: int,
        observation_shape: Sequence[int] | TransitionSpec,
        observation_dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        seed: int = 0,
        *,
        alpha: float = 0.6,
        beta: float = 0.4,
        final_beta: float = 1.0,
        beta_steps: int = 500_000,
        epsilon: float = 1e-6,
        memory_map: AnyPath | None = None,
    ) -> None:
        for name, value in {"alpha": alpha, "beta": beta, "final_beta": final_beta}.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} must be from 0 to 1, got {value}")
        if beta_steps < 1:
            raise ConfigError(f"beta_steps must be at least 1, got {beta_steps}")
        if not 0 < epsilon <= 1:
            raise ConfigError(f"epsilon must be above 0 and at most 1, got {epsilon}")
        super().__init__(capacity, observation_shape, observation_dtype, device, seed, memory_map=memory_map)
        self._alpha = alpha
        self._beta, self._final_beta, self._beta_steps = beta, final_beta, beta_steps
        self._epsilon = epsilon
        self._tree = SumTree(capacity)  # of p**alpha, by row
        self._max_priority = _FIRST_PRIORITY
        self._n_samples = 0
        self._n_ranked = 0  # of all that were ever added, how many had their priority entered
        self._uniform = torch.empty(0, dtype=torch.float64)

    @property
    def beta(self) -> float:
        """How much of the bias the weights of the next batch correct."""
        progress = min(self._n_samples / self._beta_steps, 1.0)
        return self._beta + progress * (self._final_beta - self._beta)

    def sample(self, batch_size: int) -> PrioritizedBatch:
        """Draw transitions by priority with replacement, as new tensors on the replay's device.

        The total of all ``p**alpha`` is cut into ``batch_size`` equal stretches, and one transition is drawn
        from each (section 3.3): row i of the batch is one from stretch i. Counts one step towards
        ``final_beta``.

        Raises:
            ConfigError: The batch size is below 1 or above the number of transitions held.
        """
        self._check_batch_size(batch_size)
        self._rank_new()
        if len(self._uniform) != batch_size:
            self._uniform = torch.empty(batch_size, dtype=torch.float64)
        self._uniform.uniform_(generator=self._generator)
        points = np.arange(batch_size, dtype=np.float64) + self._uniform.numpy()
        points *= self._tree.total / batch_size
        rows = self._tree.find(points)
        weighed = self._tree.leaves.take(rows)
        # (N P)**-beta by the largest in the batch: N and the total, which are in both, cancel out
        weights = (weighed.min() / weighed) ** self.beta
        self._n_samples += 1
        indices = self.n_added - 1 - (self._position - 1 - rows) % self.capacity
        return PrioritizedBatch(
            *self._storage.take(rows),
            from_numpy(indices).to(self._device),
            from_numpy(weights.astype(np.float32)).to(self._device),
        )

    def update_priorities(
        self, indices: torch.Tensor | ArrayLike, priorities: torch.Tensor | ArrayLike
    ) -> int:
        """Give transitions new priorities: the sizes of their present TD errors.

        An index names a transition for ever: the priority of one that was replaced since is dropped. Where an
        index comes twice, its last priority counts.

        Args:
            indices: a batch's ``indices``: whole numbers ``[B]``.
            priorities: at least 0 and finite as float32, ``[B]``.

        Returns:
            How many of the transitions are still held.

        Raises:
            ConfigError: A priority is NaN, infinite or negative (the first such one is named), an index is
                of no transition that was ever added, or the two do not fit together; nothing was changed.
        """
        named, given = _checked(indices, priorities)
        ages = self.n_added - named  # 1: the newest
        if len(ages) and (ages.min() < 1 or ages.max() > self.n_added):
            bad = int(np.argmax((ages < 1) | (ages > self.n_added)))
            raise ConfigError(
                f"indices[{bad}] is {named[bad]}, but {self.n_added} transitions were ever added: give the "
                "indices of a batch that this replay has drawn"
            )
        self._rank_new()
        is_held = ages <= self._size
        if not is_held.all():
            ages, given = ages[is_held], given[is_held]
        if len(ages):
            self._tree.set((self._position - ages) % self.capacity, (given + self._epsilon) ** self._alpha)
            self._max_priority = max(self._max_priority, float(given.max()))
        return len(ages)

    def reference(self) -> dict[str, Any]:
        """The state without the rows, with the priorities as ``p**alpha``, float64 ``[size]``, by row."""
        self._rank_new()
        return {
            **super().reference(),
            "priorities": from_numpy(self._tree.leaves[: self._size]).clone(),
            "alpha": self._alpha,
            "max_priority": self._max_priority,
            "n_samples": self._n_samples,
        }

    def _rank_new(self) -> None:
        """Give what was added since the last time the highest priority."""
        count = min(self.n_added - self._n_ranked, self._size)
        if count > 0:
            self._tree.set(self._newest(count), self._first_weight())
        self._n_ranked = self.n_added

    def _newest(self, count: int) -> NDArray[np.int64]:
        """The rows of the newest transitions, oldest first."""
        return np.arange(self._position - count, self._position) % self.capacity

    def _first_weight(self) -> float:
        return (self._max_priority + self._epsilon) ** self._alpha

    def _check_state(self, state: Mapping[str, Any], *names: str) -> None:
        super()._check_state(state, *names)
        saved, size = state["priorities"], int(state["size"])
        if saved.shape != (size,) or not ((saved > 0) & torch.isfinite(saved)).all():
            raise ConfigError(
                f"the saved priorities are not {size} finite numbers above 0: the state is damaged, load "
                "another one"
            )

    def _adopt(self, reference: Mapping[str, Any]) -> None:
        """Take over the priorities too, converted where they were saved with another ``alpha``."""
        super()._adopt(reference)
        self._max_priority = float(reference["max_priority"])
        self._n_samples = int(reference["n_samples"])
        saved, alpha = reference["priorities"].double().cpu().numpy(), float(reference["alpha"])
        if alpha != self._alpha:
            # from p**alpha; with an alpha of 0 nothing of p is left, and all begin at the highest
            saved = saved ** (self._alpha / alpha) if alpha else np.full(len(saved), self._first_weight())
        kept = min(len(saved), self._size)
        # a rebuilt ring of a larger capacity may go further back than the saved one did: as if those were new
        weights = np.full(self._size, self._first_weight())
        weights[self._newest(kept)] = saved[self._newest_saved(reference, kept)]
        self._tree.replace(weights)
        self._n_ranked = self.n_added


def _checked(indices: Any, priorities: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Both as arrays ``[B]``; errors as ``update_priorities`` says."""
    try:
        named, given = _array(indices), _array(priorities)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"indices or priorities cannot be read as arrays: {error}") from error
    if named.ndim != 1 or named.shape != given.shape:
        raise ConfigError(
            f"indices have shape {list(named.shape)} and priorities {list(given.shape)}: give one priority "
            "for each index of a batch"
        )
    for name, array, kinds in (("indices", named, "iu"), ("priorities", given, "iuf")):
        if array.dtype.kind not in kinds and len(array):
            raise ConfigError(
                f"{name} are {array.dtype.name}: give a batch's indices and its TD errors' sizes"
            )
    given = given.astype(np.float64)
    if len(given) and not (given.min() >= 0 and given.max() <= _MOST):  # NaN is in no range
        bad = int(np.argmin((given >= 0) & (given <= _MOST)))
        raise ConfigError(
            f"priorities[{bad}], of transition {named[bad]}, is {given[bad]}: each must be at least 0 and "
            "finite as float32, such as the size of a TD error"
        )
    return named.astype(np.int64), given


def _array(values: Any) -> NDArray[Any]:
    if isinstance(values, torch.Tensor):
        tensor = values.detach().cpu()
        return (tensor.double() if tensor.is_floating_point() else tensor).numpy()  # numpy lacks bfloat16
    return np.asarray(values)
