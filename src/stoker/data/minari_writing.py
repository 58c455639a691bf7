"""Write episodes in the HDF5 layout of Minari, so that its package reads them.

Arrays are stored as they are, one after the other: Minari's own writer makes growing arrays in chunks, which
cost five times as much. h5py's low-level calls are used, as the others take longer than the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from stoker.data.dataset import DatasetInfo
from stoker.data.episodes import Episode
from stoker.data.hdf5 import h5py_modules
from stoker.data.minari_metadata import describe_space, metadata_of
from stoker.types import ActorId
from stoker.writer.files import make_directory, write_atomically

__all__ = ["write_minari"]


def write_minari(episodes: Iterator[Episode], info: DatasetInfo, directory: Path, name: str) -> None:
    """Fill a new directory.

    Args:
        episodes: checked against the spaces.
        info: of the data set.
        directory: to be made.
        name: that it will have.

    Raises:
        ConfigError: Minari's files cannot hold the spaces.
        MissingDependency: h5py is not installed.
    """
    for space in (info.observation_space, info.action_space):
        describe_space(space)  # before anything is written
    h5py_modules()
    make_directory(directory / "data")
    path = directory / "data" / "main_data.hdf5"
    file = _File(path)
    actors: dict[ActorId, int] = {}
    n_episodes = n_steps = 0
    try:
        for at, episode in enumerate(episodes):
            actor = actors.setdefault(episode.actor_id, len(actors))
            n = len(episode)
            group = file.group(file.root, f"episode_{at}")
            counts = {"id": at, "total_steps": n, "seed": episode.seed, "actor": actor or None}
            for key, value in counts.items():
                if value is not None:
                    file.attribute(group, key, value)
            _write_values(file, group, "observations", info.observation_space, episode.observations)
            _write_values(file, group, "actions", info.action_space, episode.actions)
            file.array(group, "rewards", episode.rewards)
            for key, is_so in (
                ("terminations", episode.status.is_terminal),
                ("truncations", episode.status.is_truncated),
            ):
                flags = np.zeros(n, np.bool_)
                flags[-1] = is_so
                file.array(group, key, flags)
            if episode.policy_versions is not None:
                file.array(file.group(group, "infos"), "policy_version", episode.policy_versions)
            n_episodes, n_steps = at + 1, n_steps + n
    finally:
        file.close()
    n_bytes = path.stat().st_size
    metadata = metadata_of(info, name, n_episodes, n_steps, n_bytes, [*actors])
    write_atomically(directory / "data" / "metadata.json", lambda raw: raw.write(metadata))


def _write_values(file: _File, group: Any, name: str, space: gymnasium.Space[Any], value: Any) -> None:
    match space:
        case spaces.Dict():
            inner = file.group(group, name)
            for key, part in cast("dict[str, Any]", space.spaces).items():
                _write_values(file, inner, key, part, value[key])
        case spaces.Tuple():
            inner = file.group(group, name)
            for at, part in enumerate(cast("tuple[Any, ...]", cast("Any", space).spaces)):
                _write_values(file, inner, f"_index_{at}", part, value[at])
        case _:
            file.array(group, name, value)


class _File:
    """A new HDF5 file; what its calls need is made once."""

    def __init__(self, path: Path) -> None:
        h5py = h5py_modules()
        h5p, self._h5g, self._h5d, self._h5s = h5py.h5p, h5py.h5g, h5py.h5d, h5py.h5s
        self._h5a, self._h5t = h5py.h5a, h5py.h5t
        self._file: Any = h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC)
        self.root: Any = h5py.h5g.open(self._file, b"/")
        self._names: Any = h5p.create(h5p.LINK_CREATE)
        self._names.set_char_encoding(h5py.h5t.CSET_UTF8)
        self._settings: Any = h5p.create(h5p.DATASET_CREATE)
        self._settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        self._settings.set_obj_track_times(False)
        self._types: dict[np.dtype[Any], Any] = {}
        self._shapes: dict[tuple[int, ...], Any] = {}
        self._scalar: Any = h5py.h5s.create(h5py.h5s.SCALAR)
        self._int64 = self._type(np.dtype(np.int64))

    def _type(self, dtype: np.dtype[Any]) -> Any:
        if dtype not in self._types:
            self._types[dtype] = self._h5t.py_create(dtype, logical=True)
        return self._types[dtype]

    def group(self, parent: Any, name: str) -> Any:
        """A new group."""
        return self._h5g.create(parent, name.encode(), self._names)

    def attribute(self, group: Any, name: str, value: int) -> None:
        """A new attribute of a group, an int64."""
        made = self._h5a.create(group, name.encode(), self._int64, self._scalar)
        made.write(np.array(value, np.int64))

    def array(self, group: Any, name: str, array: NDArray[Any]) -> None:
        """A new array in a group."""
        shape = array.shape
        place = self._shapes.get(shape)
        if place is None:
            if len(self._shapes) >= 4096:  # of episodes of any length
                self._shapes.clear()
            place = self._shapes[shape] = self._h5s.create_simple(shape)
        kind = self._type(array.dtype)
        made = self._h5d.create(group, name.encode(), kind, place, self._settings, self._names)
        made.write(place, place, np.ascontiguousarray(array), kind)

    def close(self) -> None:
        """Write what is left."""
        self._file.close()
