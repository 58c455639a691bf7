"""Write episodes in the HDF5 layout of Minari, so that its package reads them.

Arrays are stored as they are, one after the other: Minari's own writer makes growing arrays in chunks, which
cost five times as much.
"""

from __future__ import annotations

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
    n_episodes = n_steps = 0
    with Hdf5Writer(path) as file:
        for at, episode in enumerate(episodes):
            actor = actors.setdefault(episode.actor_id, len(actors))
            _write_episode(file, info, episode, at, actor)
            file.check()
            n_episodes, n_steps = at + 1, n_steps + len(episode)
    n_bytes = path.stat().st_size
    metadata = metadata_of(info, name, n_episodes, n_steps, n_bytes, [*actors])
    write_atomically(directory / "data" / "metadata.json", lambda raw: raw.write(metadata))


def _write_episode(file: Hdf5Writer, info: DatasetInfo, episode: Episode, at: int, actor: int) -> None:
    n = len(episode)
    group = file.group(file.root, f"episode_{at}")
    counts = {"id": at, "total_steps": n, "seed": episode.seed, "actor": actor or None}
    for key, value in counts.items():
        if value is not None:
            file.attribute(group, key, value)
    _write_values(file, group, "observations", info.observation_space, episode.observations)
    _write_values(file, group, "actions", info.action_space, episode.actions)
    file.array(group, "rewards", episode.rewards)
    ends = np.zeros((2, n), np.bool_)
    ends[:, -1] = episode.status.is_terminal, episode.status.is_truncated
    file.array(group, "terminations", ends[0])
    file.array(group, "truncations", ends[1])
    if episode.policy_versions is not None:
        file.array(file.group(group, "infos"), "policy_version", episode.policy_versions)


def _write_values(file: Hdf5Writer, group: Any, name: str, space: gymnasium.Space[Any], value: Any) -> None:
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
