"""What is in a data set: counts, returns, ends, values that do not belong, and how varied it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from stoker.data.dataset import Dataset
from stoker.data.episodes import Episode
from stoker.data.leaves import Leaf, arrays_of, leaves_of
from stoker.data.tallies import ActionUse, ColumnReport, ColumnTally, DistinctTally, action_tallies
from stoker.types import EpisodeStatus

_ROWS = 8192
"""Transitions that are looked at together."""
_WATCH_EVERY = 10_000
_BINS = 10


class Spread(msgspec.Struct, frozen=True):
    """How numbers are spread."""

    mean: float
    min: float
    q25: float
    median: float
    q75: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of these, of which there is at least one."""
        low, q25, median, q75, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()
        return cls(float(np.mean(values)), low, q25, median, q75, high)


class DatasetReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``describe`` found.

    Attributes:
        source, format, env_id: as in ``DatasetInfo``.
        observation_space: in words.
        action_space: likewise.
        spaces_are_inferred: whether they were made of the values.
        n_episodes: the number of episodes.
        n_steps: the number of transitions.
        n_dropped: transitions without a next observation, which reading left out.
        ends: how many episodes ended in which way.
        returns: the total reward of each episode.
        lengths: the transitions of each.
        columns: each array.
        actions: the use of actions, where they can be counted.
        distinct: the share of transitions whose observation and action occur for the first time; beyond a
            million it is estimated from that many.
        n_with_seed: episodes whose reset's seed is known.
        n_with_version: transitions whose policy's version is known.
        ref_min_score: score of a random policy; None: unknown.
        ref_max_score: score of an expert.
        normalized: the returns as normalized scores, ``100 * (return - min) / (max - min)`` (Fu et al. 2020,
            "D4RL", section 5); None: there are no reference scores.
        histogram: share of the episodes in each of ten equally wide bins of returns.
    """

    source: str
    format: str
    env_id: str | None
    observation_space: str
    action_space: str
    spaces_are_inferred: bool
    n_episodes: int
    n_steps: int
    n_dropped: int
    ends: dict[str, int]
    returns: Spread | None
    lengths: Spread | None
    columns: tuple[ColumnReport, ...]
    actions: tuple[ActionUse, ...]
    distinct: float
    n_with_seed: int
    n_with_version: int
    ref_min_score: float | None
    ref_max_score: float | None
    normalized: Spread | None
    histogram: tuple[float, ...]


def describe(dataset: Dataset, *, watch: Callable[[int], None] | None = None) -> DatasetReport:
    """Read a data set from beginning to end, and say what is in it. Blocks.

    Open it with ``check=False`` to have invalid values counted; else the first of them raises.

    Args:
        dataset: to read.
        watch: called now and then with the number of transitions so far.

    Raises:
        InvalidDataset: The data set is damaged, or an episode does not fit its spaces.
    """
    info = dataset.info
    columns = [ColumnTally(leaf) for leaf in leaves_of(info.observation_space, "observations")]
    actions = [ColumnTally(leaf) for leaf in leaves_of(info.action_space, "actions")]
    rewards = ColumnTally(Leaf("rewards", (), _ANY_REWARD, _ANY_REWARD.low, _ANY_REWARD.high))
    uses = [use for at, column in enumerate(actions) for use in action_tallies(column.leaf, at)]
    distinct = DistinctTally()
    returns: list[float] = []
    lengths: list[int] = []
    ends = dict.fromkeys((str(status.value).lower() for status in EpisodeStatus), 0)
    n_with_seed = n_with_version = n_steps = n_told = 0
    for episodes in _chunks(dataset.episodes()):
        first = len(returns)
        for episode in episodes:
            returns.append(episode.total_reward)
            lengths.append(len(episode))
            ends[str(episode.status.value).lower()] += 1
            n_with_seed += episode.seed is not None
            if episode.policy_versions is not None:
                n_with_version += int((episode.policy_versions >= 0).sum())
        bounds = np.cumsum([0, *lengths[first:]])
        seen = _arrays(columns, [episode.observations for episode in episodes])
        acted = _arrays(actions, [episode.actions for episode in episodes])
        for column, array in zip(columns, seen, strict=True):
            column.add(array, bounds + np.arange(len(bounds)), first)
        for column, array in zip(actions, acted, strict=True):
            column.add(array, bounds, first)
        for use in uses:
            use.add(acted)
        rewards.add(np.concatenate([episode.rewards for episode in episodes]), bounds, first)
        is_last = np.zeros(bounds[-1] + len(episodes), np.bool_)
        is_last[(bounds + np.arange(len(bounds)))[1:] - 1] = True
        distinct.add([*(array[~is_last] for array in seen), *acted])
        n_steps += int(bounds[-1])
        if watch is not None and n_steps - n_told >= _WATCH_EVERY:
            watch(n_told := n_steps)
    if watch is not None and n_told != n_steps:
        watch(n_steps)
    low, high = info.ref_min_score, info.ref_max_score
    normalized = None
    if returns and low is not None and high is not None and low < high:
        normalized = Spread.of([100 * (value - low) / (high - low) for value in returns])
    finite = [value for value in returns if np.isfinite(value)]
    counts = np.histogram(finite, _BINS)[0] if finite else np.zeros(0)
    return DatasetReport(
        source=info.source,
        format=info.format,
        env_id=info.env_id,
        observation_space=str(info.observation_space),
        action_space=str(info.action_space),
        spaces_are_inferred=info.spaces_are_inferred,
        n_episodes=len(returns),
        n_steps=n_steps,
        n_dropped=dataset.n_dropped,
        ends=ends,
        returns=Spread.of(returns) if returns else None,
        lengths=Spread.of(lengths) if lengths else None,
        columns=tuple(column.report() for column in [*columns, *actions, rewards]),
        actions=tuple(use.report() for use in uses),
        distinct=distinct.share,
        n_with_seed=n_with_seed,
        n_with_version=n_with_version,
        ref_min_score=low,
        ref_max_score=high,
        normalized=normalized,
        histogram=tuple((counts / max(1, len(finite))).tolist()),
    )


_ANY_REWARD = spaces.Box(-np.inf, np.inf, (), np.float64)


def _chunks(episodes: Iterable[Episode]) -> Iterable[list[Episode]]:
    """Several episodes at a time: to look at each by itself takes long where they are short."""
    chunk: list[Episode] = []
    n_rows = 0
    for episode in episodes:
        chunk.append(episode)
        n_rows += len(episode)
        if n_rows >= _ROWS:
            yield chunk
            chunk, n_rows = [], 0
    if chunk:
        yield chunk


def _arrays(columns: Sequence[ColumnTally], values: Sequence[Any]) -> list[NDArray[Any]]:
    """The rows of several episodes as one array for each column."""
    leaves = [column.leaf for column in columns]
    parts = [arrays_of(leaves, value) for value in values]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]
