"""From a data set to the config that trains on it: spaces, room in the replay, reference scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import gymnasium
import msgspec
import numpy as np

from stoker.agents.registry import agent_for_actions
from stoker.data import Dataset, DatasetInfo, Ends, open_dataset
from stoker.data.scores import reference_scores
from stoker.errors import ConfigError
from stoker.protocol import Spaces
from stoker.trainer.config import TrainConfig
from stoker.trainer.making import spaces_for

_SHARE = 0.8
"""The most of the free memory that a replay of the data set may take."""


def prepared(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """The config of an offline training, made to fit its data set, and what changed. Blocks.

    Without an environment the spaces are the data set's. The replay grows until it holds the data set. The
    reference scores are those that the data set or D4RL has for the environment.

    Raises:
        InvalidDataset: The data set cannot be opened.
        ConfigError: Its spaces are not the environment's, or its transitions need more memory than there is.
    """
    with open_dataset(config.offline, ends=config.ends) as dataset:
        info, said = dataset.info, list[str]()
        spaces = config.spaces
        if config.env:
            _check_spaces(info, config)
        else:
            spaces = Spaces.of(info.observation_space, info.action_space)
        n_steps = count_steps(dataset) if info.n_steps is None else info.n_steps
        said.append(f"the data set: {n_steps:,} transitions ({info.format})")
        settings = config.agent_settings
        if getattr(settings, "buffer_size", n_steps) < n_steps:
            _check_memory(config, info, n_steps)
            said.append(f"the replay holds all of them: buffer_size {settings.buffer_size:,} -> {n_steps:,}")
            settings = msgspec.structs.replace(settings, buffer_size=n_steps)
    references = reference_scores(config.env)
    if info.env_id in (None, config.env) and None not in (own := (info.ref_min_score, info.ref_max_score)):
        references = own
    return msgspec.structs.replace(
        config,
        spaces=None if spaces is None else msgspec.to_builtins(spaces),
        agent_settings=settings,
        reference_scores=references if config.env else None,
    ), said


def fitting_agent_of_data(source: str, ends: Ends | None) -> str:
    """The agent to train where none is named, by the action space of a data set. Blocks.

    Raises:
        InvalidDataset: The data set cannot be opened.
    """
    with open_dataset(source, ends=ends) as dataset:
        return agent_for_actions(dataset.info.action_space)


def _check_spaces(info: DatasetInfo, config: TrainConfig) -> None:
    found = {"observation": info.observation_space, "action": info.action_space}
    for (what, ours), theirs in zip(found.items(), spaces_for(config), strict=True):
        alike = has_form_of(ours, theirs) if info.spaces_are_inferred else ours == theirs
        if not alike:
            raise ConfigError(
                f"{info.source} has the {what} space {ours}, and {config.env} has {theirs}: evaluate on the "
                "environment that the data set is of, or leave it out"
            )


def has_form_of(inferred: gymnasium.Space[Any], space: gymnasium.Space[Any]) -> bool:
    """Whether values of a space that was made from a file's arrays may be those of another one."""
    match inferred, space:
        case gymnasium.spaces.Discrete(), gymnasium.spaces.Discrete():
            return int(space.start) <= inferred.start and inferred.start + inferred.n <= space.start + space.n
        case gymnasium.spaces.Dict(), gymnasium.spaces.Dict():
            parts, others = dict(inferred.items()), dict(space.items())
            return parts.keys() == others.keys() and all(
                has_form_of(part, others[key]) for key, part in parts.items()
            )
        case _:
            return inferred.shape == space.shape and (
                inferred.dtype is None
                or space.dtype is None
                or np.can_cast(inferred.dtype, space.dtype, "same_kind")
            )


def count_steps(dataset: Dataset) -> int:
    """How many transitions a data set has that does not say it. Blocks while all of it is read."""
    return sum(map(len, dataset.episodes()))


def _check_memory(config: TrainConfig, info: DatasetInfo, n_steps: int) -> None:
    if getattr(config.agent_settings, "memory_map", None) is not None or config.device != "cpu":
        return
    n_bytes = n_steps * (2 * _n_bytes(info.observation_space) + _n_bytes(info.action_space) + 16)
    free = _free_memory()
    if free is not None and n_bytes > _SHARE * free:
        raise ConfigError(
            f"{info.source}: its {n_steps:,} transitions take {n_bytes / 2**30:,.1f} GiB in the replay, and "
            f"{free / 2**30:,.1f} GiB of memory are free: keep them in a file with --memory-map DIR"
        )


def _n_bytes(space: gymnasium.Space[Any]) -> int:
    match space:
        case gymnasium.spaces.Dict():
            return sum(map(_n_bytes, space.values()))
        case gymnasium.spaces.Tuple():
            return sum(map(_n_bytes, cast("Any", space).spaces))
        case _:
            shape, dtype = space.shape or (), np.dtype(space.dtype or np.float64)
            return int(np.prod(shape)) * dtype.itemsize


def _free_memory() -> int | None:
    """Bytes that this machine can still give, where it says so."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
