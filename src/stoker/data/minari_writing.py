"""Write episodes in the HDF5 layout of Minari, so that its package reads them.

Arrays are stored as they are, one after the other: Minari's own writer makes growing arrays in chunks, which
cost five times as much.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces

from stoker.data.dataset import DatasetInfo
from stoker.data.episodes import Episode
from stoker.data.hdf5_writing import Hdf5Writer
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
    make_directory(directory / "data")
    path = directory / "data" / "main_data.hdf5"
    actors: dict[ActorId, int] = {}
    addresses, n_steps = array("q"), 0
    with Hdf5Writer(path) as file:
        for at, episode in enumerate(episodes):
            actor = actors.setdefault(episode.actor_id, len(actors))
            addresses.append(_write_episode(file, info, episode, at, actor))
            n_steps += len(episode)
        file.finish((f"episode_{at}" for at in range(len(addresses))), addresses)
    n_bytes = path.stat().st_size
    metadata = metadata_of(info, name, len(addresses), n_steps, n_bytes, [*actors])
    write_atomically(directory / "data" / "metadata.json", lambda raw: raw.write(metadata))


def _write_episode(file: Hdf5Writer, info: DatasetInfo, episode: Episode, at: int, actor: int) -> int:
    n = len(episode)
    ends = np.zeros((2, n), np.bool_)
    ends[:, -1] = episode.status.is_terminal, episode.status.is_truncated
    members = {
        "observations": _write_values(file, info.observation_space, episode.observations),
        "actions": _write_values(file, info.action_space, episode.actions),
        "rewards": file.array(episode.rewards),
        "terminations": file.array(ends[0]),
        "truncations": file.array(ends[1]),
    }
    if episode.policy_versions is not None:
        members["infos"] = file.group({"policy_version": file.array(episode.policy_versions)}, {})
    attributes = {"id": at, "total_steps": n}
    if episode.seed is not None:
        attributes["seed"] = episode.seed
    if actor:
        attributes["actor"] = actor
    return file.group(members, attributes)


def _write_values(file: Hdf5Writer, space: gymnasium.Space[Any], value: Any) -> int:
    match space:
        case spaces.Dict():
            parts = cast("dict[str, Any]", space.spaces)
            return file.group({key: _write_values(file, part, value[key]) for key, part in parts.items()}, {})
        case spaces.Tuple():
            parts = enumerate(cast("tuple[Any, ...]", cast("Any", space).spaces))
            members = {f"_index_{at}": _write_values(file, part, value[at]) for at, part in parts}
            return file.group(members, {})
        case _:
            return file.array(value)
