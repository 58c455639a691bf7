"""A data set cut into parts of some thousand transitions, whatever form it has."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, cast

import msgspec
import numpy as np

from stoker.data import Dataset, Ends, Episode, open_dataset
from stoker.errors import ConfigError
from stoker.types import AnyPath, EpisodeStatus, Experience, ExperienceBatch

_N_STEPS, _N_ROWS, _N_BYTES = 256, 4096, 8 << 20
"""Transitions of a part: of single ones, of columns, and the bytes of these."""
_COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminated", "truncated")


class NamedDataset(msgspec.Struct, frozen=True):
    """A data set by its name, which ``open_dataset`` opens only where something is to be read."""

    source: AnyPath
    ends: Ends | None = None


GivenDataset: TypeAlias = Dataset | NamedDataset | str | Path | Iterable[Experience] | Mapping[str, Any]
Part: TypeAlias = ExperienceBatch | list[Experience]


def parts_of(dataset: GivenDataset) -> Generator[Part]:
    """The transitions of a data set, in order; none of the parts is empty.

    Args:
        dataset: a ``Dataset`` or the name of one; experiences; or columns of equal length N by name:
            ``observations [N, ...]``, ``actions [N, ...]``, ``rewards [N]``, ``next_observations [N, ...]``,
            ``terminated [N]`` and ``truncated [N]``. Episodes and rows of columns are of actor 0. An episode
            whose recording broke off is truncated there: what it led to is known.

    Raises:
        ConfigError: It cannot be opened, a column is missing, or columns are of different lengths.
        InvalidDataset: The file is damaged, or a value in it is invalid.
    """
    if isinstance(dataset, str | Path):
        dataset = NamedDataset(dataset)
    if isinstance(dataset, NamedDataset):
        with open_dataset(dataset.source, ends=dataset.ends) as opened:
            yield from parts_of(opened)
    elif isinstance(dataset, Dataset):
        yield from _parts_of_episodes(dataset.episodes())
    elif isinstance(dataset, Mapping):
        yield from _cut(_batch_of(cast("Mapping[str, Any]", dataset)))
    else:
        steps = iter(dataset)
        while part := list(islice(steps, _N_STEPS)):
            yield part


def _parts_of_episodes(episodes: Iterable[Episode]) -> Iterator[Part]:
    waiting: list[ExperienceBatch] = []
    n_rows = n_bytes = 0
    for episode in episodes:
        if episode.status is EpisodeStatus.CONTINUING:
            episode = msgspec.structs.replace(episode, status=EpisodeStatus.TRUNCATED)  # noqa: PLW2901
        try:
            batch = episode.batch()
        except ConfigError:  # of a Tuple space
            for step in episode.experiences():
                yield [msgspec.structs.replace(step, actor_id=0, policy_version=None)]
            continue
        waiting.append(batch)
        n_rows, n_bytes = n_rows + len(batch), n_bytes + _n_bytes(batch.observations)
        if n_rows >= _N_ROWS or n_bytes >= _N_BYTES:
            yield from _cut(_joined(waiting))
            waiting, n_rows, n_bytes = [], 0, 0
    if waiting:
        yield from _cut(_joined(waiting))


def _batch_of(columns: Mapping[str, Any]) -> ExperienceBatch:
    if missing := [name for name in _COLUMNS if name not in columns]:
        raise ConfigError(f"the data set lacks the columns {', '.join(missing)}; it has {', '.join(columns)}")
    arrays = [np.asarray(columns[name]) for name in _COLUMNS]
    lengths = {name: len(array) for name, array in zip(_COLUMNS, arrays, strict=True)}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ConfigError(f"the data set's columns are of different lengths: {shown}")
    observations, actions, rewards, after, terminated, truncated = arrays
    return ExperienceBatch(
        observations,
        actions,
        rewards.astype(np.float64, copy=False),
        after,
        terminated.astype(np.bool_, copy=False),
        truncated.astype(np.bool_, copy=False),
        (0,) * len(rewards),
    )


def _cut(batch: ExperienceBatch) -> Iterator[ExperienceBatch]:
    size = max(1, min(_N_ROWS, _N_BYTES * len(batch) // max(1, _n_bytes(batch.observations))))
    ids = (0,) * size  # the same object each time: the session and the journal know it
    for start in range(0, len(batch), size):
        part = batch[start : start + size]
        if len(part) == size:
            part = msgspec.structs.replace(part, actor_ids=ids)
        yield part


def _joined(batches: Sequence[ExperienceBatch]) -> ExperienceBatch:
    """One batch of all, of actor 0; what is known of the policies that acted does not matter here."""
    columns = {name: _concatenated([getattr(batch, name) for batch in batches]) for name in _COLUMNS}
    return ExperienceBatch(**columns, actor_ids=(0,) * len(columns["rewards"]))


def _concatenated(parts: Sequence[Any]) -> Any:
    if isinstance(first := parts[0], dict):
        return {key: _concatenated([part[key] for part in parts]) for key in cast("dict[Any, Any]", first)}
    return np.concatenate(parts) if len(parts) > 1 else first


def _n_bytes(column: Any) -> int:
    if isinstance(column, dict):
        return sum(map(_n_bytes, cast("dict[Any, Any]", column).values()))
    return int(column.nbytes)
