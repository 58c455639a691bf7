"""State-dependent exploration: its distribution of actions, and the noise that each actor keeps for a while.

An actor that keeps its noise explores smoothly: within these steps, the same state gives the same action
(Raffin et al. 2021, "Smooth Exploration for Robotic Reinforcement Learning", section 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stoker.agents.ppo.distributions import LOG_SQRT_2PI, Evaluation
from stoker.envs.seeding import actor_words
from stoker.lru import LRUDict
from stoker.types import ActorId

_LEAST_VARIANCE = 1e-6
"""Added to each variance: features may all be 0, and then there is no noise. As in Stable-Baselines3."""


class StateDependentGaussian:
    """A normal distribution for each of ``size`` numbers, whose noise is a linear function of features.

    Generalized state-dependent exploration (Raffin et al. 2021, sections 2.2 and 3): an action is
    ``mean + features @ matrix``. The entries of the matrix are drawn from normal distributions around 0;
    an actor that keeps its matrix for several steps explores smoothly. The parameters are the means and then
    the features ``z`` that they were computed from. The variance of an action's number ``j`` is
    ``sum_i (sigma_ij z_i)^2``.

    ``log_std``, trained with the network, holds the logarithms of the ``sigma``, ``[n_features, size]``.
    There is no gradient by the features.
    """

    learned_dtype = np.float32

    def __init__(self, size: int, n_features: int, log_std_init: float) -> None:
        self.n_parameters: int = size
        self.action_size: int = size
        self.log_std: nn.Parameter = nn.Parameter(torch.full((n_features, size), float(log_std_init)))

    def draw(
        self, parameters: NDArray[np.float32], generator: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As ``DiagGaussian.draw``, with a separate matrix for each row."""
        means, features, stds = self._read(parameters)
        variances = _products(features**2, stds**2) + _LEAST_VARIANCE
        return _noisy(means, np.sqrt(variances) * generator.standard_normal(means.shape), variances)

    def draw_with(
        self, parameters: NDArray[np.float32], numbers: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The same with the matrices ``sigma * numbers``, for standard normal ``[B, n_features, size]``."""
        means, features, stds = self._read(parameters)
        variances = _products(features**2, stds**2) + _LEAST_VARIANCE
        return _noisy(means, _products(features, stds * numbers), variances)

    def mode(self, parameters: NDArray[np.float32]) -> NDArray[np.float64]:
        """The likeliest actions: the means, ``[B, size]``."""
        return parameters[:, : self.action_size].astype(np.float64)

    def likeliest(self, parameters: torch.Tensor) -> torch.Tensor:
        """The same in torch."""
        return parameters[:, : self.action_size]

    def described(self, parameters: torch.Tensor) -> dict[str, torch.Tensor]:
        """As ``DiagGaussian.described``."""
        squares = parameters[:, self.action_size :].square()
        variances = squares @ (2.0 * self.log_std).exp() + _LEAST_VARIANCE
        return {"mean": parameters[:, : self.action_size], "std": variances.sqrt()}

    def evaluate(self, parameters: torch.Tensor, actions: torch.Tensor) -> Evaluation:
        """As ``DiagGaussian.evaluate``; the gradients are by the means and by ``log_std``."""
        means, squares = parameters[:, : self.action_size], parameters[:, self.action_size :].square()
        weights = (2.0 * self.log_std).exp()
        variances = (squares @ weights).add_(_LEAST_VARIANCE)
        precisions, logs = variances.reciprocal(), variances.log()
        deviations = actions - means
        scaled = deviations.square().mul_(precisions)
        log_probs = (scaled + logs).sum(dim=1).mul_(-0.5).sub_(self.action_size * LOG_SQRT_2PI)
        entropies = logs.sum(dim=1).mul_(0.5).add_(self.action_size * (0.5 + LOG_SQRT_2PI))

        def gradients(by_log_prob: torch.Tensor, by_entropy: float) -> tuple[torch.Tensor, torch.Tensor]:
            by_mean = deviations.mul_(precisions).mul_(by_log_prob[:, None])
            by_log_variance = scaled.sub_(1.0).mul_(by_log_prob[:, None]).add_(by_entropy).mul_(0.5)
            # d variance / d log sigma = 2 sigma^2 z^2.
            by_log_std = (squares.t() @ by_log_variance.mul_(precisions)).mul_(weights).mul_(2.0)
            return by_mean, by_log_std

        return Evaluation(log_probs, entropies, gradients)

    def std_at(self, entropy: float) -> float:
        """The geometric mean of the standard deviations where the mean entropy is this."""
        return math.exp(entropy / self.action_size - 0.5 - LOG_SQRT_2PI)

    def _read(
        self, parameters: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Means ``[B, size]``, features ``[B, n_features]`` and the ``sigma``."""
        exact = parameters.astype(np.float64)
        stds = np.exp(self.log_std.detach().cpu().numpy().astype(np.float64))
        return exact[:, : self.action_size], exact[:, self.action_size :], stds


def _products(rows: NDArray[np.float64], matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row times its matrix, or times the only one; rounded alike whatever other rows there are."""
    return np.matmul(rows[:, None], matrices)[:, 0]


def _noisy(
    means: NDArray[np.float64], noise: NDArray[np.float64], variances: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Actions as float32 numbers, which the learner sees, and the logarithms of their densities."""
    actions = (means + noise).astype(np.float32).astype(np.float64)
    log_probs = -0.5 * ((actions - means) ** 2 / variances + np.log(variances)) - LOG_SQRT_2PI
    return actions, log_probs.sum(axis=1)


class ActorNoise:
    """Standard normal numbers, drawn anew for each actor after ``sample_freq`` steps and at an episode's end.

    The n-th numbers of an actor follow from the seed, the actor and n alone: they come from a generator that
    computes them from a key and a counter (Philox, Salmon et al. 2011). So it does not matter which actors
    act together, or in which order. Actors beyond the ``MAX_ACTORS`` most recent ones are forgotten.

    One thread at a time calls ``of``; the other methods may be called meanwhile.

    Args:
        shape: of an actor's numbers.
        sample_freq: for how many steps they are kept.
        seed: 64 bits.
    """

    def __init__(self, shape: tuple[int, ...], sample_freq: int, seed: int) -> None:
        self._shape: Final = shape
        self._freq: Final = sample_freq
        self._seed = seed
        self._actors: LRUDict[ActorId, _Kept] = LRUDict()
        # One generator whose state is set for each draw: a new one would take three times as long.
        self._generator = np.random.Generator(np.random.Philox(0))

    def of(self, actor_ids: Sequence[ActorId]) -> NDArray[np.float64]:
        """The numbers of these actors for their next step, ``[B, *shape]``."""
        numbers = np.empty((len(actor_ids), *self._shape))
        for row, actor_id in enumerate(actor_ids):
            kept = self._actors.get(actor_id) or _Kept(actor_id, 0, 0)
            self._actors.put(actor_id, kept)
            if kept.n_left <= 0:
                kept.n_drawn, kept.n_left = kept.n_drawn + 1, self._freq
                kept.numbers = None
            if kept.numbers is None:
                kept.numbers = self._drawn(kept.key, kept.n_drawn)
            # If ``end_episode`` is called between these two, it has no effect: the noise is kept for longer.
            kept.n_left -= 1
            numbers[row] = kept.numbers
        return numbers

    def end_episode(self, actor_id: ActorId) -> None:
        """Draw new numbers for the actor's next step."""
        if (kept := self._actors.get(actor_id)) is not None:
            kept.n_left = 0

    def fork(self, seed: int) -> ActorNoise:
        """The noise of a copy of the policy, which serves other actors."""
        return ActorNoise(self._shape, self._freq, seed)

    def state_dict(self) -> dict[str, Any]:
        """The seed, and for each actor how often numbers were drawn and for how many steps they are kept."""
        actors = list(self._actors.items())
        return {
            "seed": self._seed,
            "actor_ids": [actor_id for actor_id, _ in actors],
            "n_drawn": torch.tensor([kept.n_drawn for _, kept in actors], dtype=torch.int64),
            "n_left": torch.tensor([kept.n_left for _, kept in actors], dtype=torch.int64),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._seed = state["seed"]
        self._actors.clear()
        counts = zip(state["n_drawn"].tolist(), state["n_left"].tolist(), strict=True)
        for actor_id, (n_drawn, n_left) in zip(state["actor_ids"], counts, strict=True):
            self._actors.put(actor_id, _Kept(actor_id, n_drawn, min(n_left, self._freq)))

    def _drawn(self, key: int, number: int) -> NDArray[np.float64]:
        state = {
            # The counter has room for 2 ** 128 numbers between two draws.
            "state": {
                "counter": np.array([0, 0, number, 0], np.uint64),
                "key": np.array([self._seed, key], np.uint64),
            },
            "bit_generator": "Philox",
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        self._generator.bit_generator.state = state
        return self._generator.standard_normal(self._shape)


class _Kept:
    """What is kept of an actor; its numbers are None until they are needed."""

    __slots__ = ("key", "n_drawn", "n_left", "numbers")

    def __init__(self, actor_id: ActorId, n_drawn: int, n_left: int) -> None:
        low, high, *_ = actor_words(actor_id)
        self.key = low | high << 32
        self.n_drawn = n_drawn
        self.n_left = n_left
        self.numbers: NDArray[np.float64] | None = None
