"""Check episodes against the spaces of their data set; errors name the episode and the step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker.data.dataset import DatasetInfo
from stoker.data.episodes import Episode
from stoker.data.leaves import Leaf, arrays_of, leaves_of
from stoker.errors import InvalidDataset
from stoker.types import EpisodeStatus

_WAY_OUT = "correct the data, or read them as they are with check=False"


class EpisodeChecker:
    """Refuses episodes whose arrays do not fit together, or do not fit the spaces.

    Args:
        info: of the data set.
        values: also check that all values are finite and inside of the spaces; else lengths, shapes and
            dtypes alone.

    Raises:
        ConfigError: A space is of a kind that data sets cannot hold.
    """

    def __init__(self, info: DatasetInfo, *, values: bool = True) -> None:
        self._source = info.source
        self._values = values
        self._columns = (
            ("observations", leaves_of(info.observation_space, "observations"), 1),
            ("actions", leaves_of(info.action_space, "actions"), 0),
        )

    def check(self, episode: Episode, at: int) -> None:
        """Look at episode number ``at``.

        Raises:
            InvalidDataset: It is invalid; the message names the column, and the step if it is one.
        """
        n = len(episode)
        if n == 0:
            raise InvalidDataset(self._source, "it has no transition: leave it out", episode=at)
        for name, leaves, more in self._columns:
            try:
                arrays = arrays_of(leaves, getattr(episode, name))
            except (KeyError, IndexError, TypeError) as error:
                problem = f"its {name} are not nested as the space is ({type(error).__name__}: {error})"
                raise InvalidDataset(self._source, f"{problem}: correct the data", episode=at) from error
            for leaf, array in zip(leaves, arrays, strict=True):
                self._check_array(leaf, array, n + more, n, at)
        self._check_rewards(episode, n, at)

    def _check_array(self, leaf: Leaf, array: Any, length: int, n: int, at: int) -> None:
        shape, dtype = leaf.low.shape, np.dtype(leaf.space.dtype)
        if type(array) is not np.ndarray or array.shape != (length, *shape):
            given = getattr(array, "shape", type(array).__name__)
            problem = f"{leaf.name} is {given} for {n} rewards and the space {leaf.space}"
            way_out = f"give an array {(length, *shape)}"
            raise InvalidDataset(self._source, f"{problem}: {way_out}", episode=at)
        if array.dtype != dtype and not np.can_cast(array.dtype, dtype, "same_kind"):
            problem = f"{leaf.name} has {array.dtype} for the space {leaf.space}"
            raise InvalidDataset(self._source, f"{problem}: convert it to {dtype}", episode=at)
        if self._values and not _fits(leaf, array):
            step = int(np.argmax(faults_of(leaf, array)))
            problem = f"{leaf.name}={_short(array[step])} is outside of {leaf.space}"
            raise InvalidDataset(self._source, f"{problem}: {_WAY_OUT}", episode=at, step=step)

    def _check_rewards(self, episode: Episode, n: int, at: int) -> None:
        rewards, versions = episode.rewards, episode.policy_versions
        if rewards.dtype != np.float64 or rewards.ndim != 1:
            problem = f"rewards are {rewards.dtype}{list(rewards.shape)}: give float64 [{n}]"
            raise InvalidDataset(self._source, problem, episode=at)
        if self._values and not np.isfinite(rewards).all():
            step = int(np.argmin(np.isfinite(rewards)))
            raise InvalidDataset(
                self._source, f"reward={rewards[step]} is not finite: {_WAY_OUT}", episode=at, step=step
            )
        if versions is not None and (versions.dtype != np.int64 or versions.shape != (n,)):
            problem = f"policy_versions are {versions.dtype}{list(versions.shape)} for {n} rewards"
            raise InvalidDataset(self._source, f"{problem}: give int64 [{n}]", episode=at)
        if not isinstance(episode.status, EpisodeStatus):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidDataset(
                self._source, f"status={episode.status!r}: give an EpisodeStatus", episode=at
            )


def _fits(leaf: Leaf, array: NDArray[Any]) -> bool:
    """Whether all values are finite and inside of the space; NaN spreads to the least and the greatest."""
    if array.size == 0:
        return True
    # `astype`: 0.7 in float64 is above the float32 bound that stands for 0.7
    least, greatest = (each.astype(leaf.space.dtype, copy=False) for each in (array.min(0), array.max(0)))
    return bool(
        (least >= leaf.low).all()
        and (greatest <= leaf.high).all()
        and np.isfinite(least).all()
        and np.isfinite(greatest).all()
    )


def faults_of(leaf: Leaf, array: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows of ``[N, *shape]`` hold a value that is not finite or is outside of the space, ``[N]``."""
    values = array.astype(leaf.space.dtype, copy=False)
    fits: NDArray[np.bool_] = (values >= leaf.low) & (values <= leaf.high) & np.isfinite(values)
    return np.logical_not(fits.reshape(len(array), -1).all(1))


def _short(value: Any) -> str:
    text = " ".join(np.array2string(np.asarray(value), threshold=8).split())
    return text if len(text) <= 80 else text[:77] + "..."
