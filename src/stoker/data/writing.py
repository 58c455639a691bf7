"""Write episodes as a data set, whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.data.checking import EpisodeChecker
from stoker.data.dataset import DatasetFormat, DatasetInfo, WrittenDataset
from stoker.data.episodes import Episode
from stoker.data.leaves import arrays_of, leaves_of
from stoker.data.tables import Layout, TableMetadata
from stoker.errors import ConfigError, InvalidDataset
from stoker.plain import LARGEST_INT
from stoker.protocol.spaces import Spaces
from stoker.types import ActorId, AnyPath
from stoker.writer.files import staged

_WATCH_EVERY = 10_000


class _Totals:
    """What was written so far."""

    n_episodes = 0
    n_steps = 0


def write_dataset(
    episodes: Iterable[Episode],
    info: DatasetInfo,
    path: AnyPath,
    format: DatasetFormat,  # noqa: A002 - the field's word
    *,
    watch: Callable[[int], None] | None = None,
) -> WrittenDataset:
    """Write episodes to a new data set; a reader finds nothing at ``path``, or all of it. Blocks.

    The episodes are taken one after the other; neither they nor the file need to fit in memory.

    Args:
        episodes: at least one; all arrays of a column have one dtype.
        info: spaces, environment and reference scores; the other fields are not used.
        path: a directory for ``minari``, else a file whose name ends with ``.npz`` or ``.parquet``; it must
            not exist.
        format: Minari's HDF5 (extra ``data``), Parquet (extra ``data``) or NumPy's npz.
        watch: is called about every 10,000 transitions, with the number of those written so far.

    Raises:
        ConfigError: ``path`` exists or has another ending, or the format is unknown.
        InvalidDataset: An episode's arrays do not fit together or do not fit the spaces, or there is none.
        MissingDependency: The extra is not installed.
        WriteFailed: The disk refused.
    """
    final = Path(path).absolute()
    if format not in get_args(DatasetFormat):
        raise ConfigError(f"format={format!r}: give {', '.join(get_args(DatasetFormat))}")
    if format != "minari" and final.suffix != f".{format}":
        raise ConfigError(f"{os.fspath(path)}: name it {final.stem}.{format}, or it would not be read again")
    _refuse_existing(path)
    info = msgspec.structs.replace(info, source=os.fspath(path), format=format)
    totals = _Totals()
    with staged(final) as beside:
        watched = _watched(episodes, info, totals, watch)
        if format == "minari":
            from stoker.data.minari_writing import write_minari

            write_minari(watched, info, beside, final.name)
        else:
            _write_table(watched, info, totals, beside, format)
        if not totals.n_episodes:
            raise InvalidDataset(os.fspath(path), "there is no episode to write: give at least one")
        _refuse_existing(path)
    files = [final] if final.is_file() else [each for each in final.rglob("*") if each.is_file()]
    n_bytes = sum(each.stat().st_size for each in files)
    return WrittenDataset(
        path=final, format=format, n_episodes=totals.n_episodes, n_steps=totals.n_steps, bytes=n_bytes
    )


def _refuse_existing(path: AnyPath) -> None:
    if os.path.lexists(path):
        raise ConfigError(f"{os.fspath(path)} exists: remove it, or give another path")


def _watched(
    episodes: Iterable[Episode], info: DatasetInfo, totals: _Totals, watch: Callable[[int], None] | None
) -> Iterator[Episode]:
    """The episodes, checked and counted."""
    checker = EpisodeChecker(info, values=False)
    told = 0
    for at, episode in enumerate(episodes):
        checker.check(episode, at)
        if episode.seed is not None and not 0 <= episode.seed <= LARGEST_INT:
            raise InvalidDataset(
                info.source, f"seed={episode.seed}: files hold seeds from 0 to {LARGEST_INT}", episode=at
            )
        yield episode
        totals.n_episodes = at + 1
        totals.n_steps += len(episode)
        if watch is not None and totals.n_steps - told >= _WATCH_EVERY:
            watch(told := totals.n_steps)
    if watch is not None and told != totals.n_steps:
        watch(totals.n_steps)


class Sink(Protocol):
    """Where columns go."""

    def append(self, columns: Mapping[str, NDArray[Any]], n: int) -> None:
        """Add ``n`` rows of each column."""
        ...

    def finish(self, metadata: TableMetadata, unused: set[str]) -> None:
        """Complete the file; columns that hold nothing may be left out."""
        ...

    def close(self) -> None:
        """Give up what is open, whether or not it is complete."""
        ...


def _write_table(
    episodes: Iterator[Episode],
    info: DatasetInfo,
    totals: _Totals,
    path: Path,
    format: str,  # noqa: A002
) -> None:
    with contextlib.ExitStack() as stack:
        columns = _EpisodeColumns(info)
        sink: Any = None
        for at, episode in enumerate(episodes):
            found = columns.of(episode, at)
            if sink is None:
                layouts = {name: Layout(array.dtype, array.shape[1:]) for name, array in found.items()}
                sink = _sink(path, layouts, format)
                stack.callback(sink.close)
            sink.append(found, len(episode))
        if sink is not None:
            metadata = TableMetadata(
                spaces=Spaces.of(info.observation_space, info.action_space),
                actors=[*columns.actors],
                env_id=info.env_id,
                n_episodes=totals.n_episodes,
                n_steps=totals.n_steps,
                ref_min_score=info.ref_min_score,
                ref_max_score=info.ref_max_score,
            )
            sink.finish(metadata, columns.unused)


def _sink(path: Path, layouts: Mapping[str, Layout], format: str) -> Sink:  # noqa: A002
    if format == "npz":
        from stoker.data.npz_files import NpzSink

        return NpzSink(path, layouts)
    from stoker.data.parquet_files import ParquetSink

    return ParquetSink(path, layouts)


class _EpisodeColumns:
    """Turns episodes into rows of columns.

    Attributes:
        actors: the place of each actor id.
        unused: the columns that hold nothing so far.
    """

    def __init__(self, info: DatasetInfo) -> None:
        self._source = info.source
        self._observations = leaves_of(info.observation_space, "observations")
        self._following = leaves_of(info.observation_space, "next_observations")
        self._actions = leaves_of(info.action_space, "actions")
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self.actors: dict[ActorId, int] = {}
        self.unused = {"policy_versions", "seeds", "actors"}

    def of(self, episode: Episode, at: int) -> dict[str, NDArray[Any]]:
        """The columns of episode number ``at``."""
        n = len(episode)
        columns: dict[str, NDArray[Any]] = {}
        observations = arrays_of(self._observations, episode.observations)
        for leaf, after, array in zip(self._observations, self._following, observations, strict=True):
            columns[leaf.name], columns[after.name] = array[:-1], array[1:]
        for leaf, array in zip(self._actions, arrays_of(self._actions, episode.actions), strict=True):
            columns[leaf.name] = array
        ends = np.zeros((2, n), np.bool_)
        ends[:, -1] = episode.status.is_terminal, episode.status.is_truncated
        columns |= {"rewards": episode.rewards, "terminated": ends[0], "truncated": ends[1]}
        actor = self.actors.setdefault(episode.actor_id, len(self.actors))
        seed, versions = episode.seed, episode.policy_versions
        if self.unused:
            known = (versions is not None, seed is not None, actor > 0)
            names = ("policy_versions", "seeds", "actors")
            self.unused -= {name for name, is_known in zip(names, known, strict=True) if is_known}
        columns["episodes"] = np.full(n, at, np.int64)
        columns["policy_versions"] = np.full(n, -1, np.int64) if versions is None else versions
        columns["seeds"] = np.full(n, -1 if seed is None else seed, np.int64)
        columns["actors"] = np.full(n, actor, np.int32)
        dtypes = {name: array.dtype for name, array in columns.items()}
        if dtypes != (first := self._dtypes or dtypes):
            name = next(name for name in columns if dtypes[name] != first[name])
            problem = f"{name} has {dtypes[name]}, in episodes before it had {first[name]}"
            raise InvalidDataset(self._source, f"{problem}: convert it", episode=at)
        self._dtypes = dtypes
        return columns
