"""A fixed data set, observed by an agent as if actors had played it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np

from stoker.errors import ConfigError, InvalidExperience
from stoker.session import TrainingSession
from stoker.types import ActorId, EpisodeStatus, Experience

__all__ = ["feed", "transitions_of"]

_CHUNK = 256
_COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminated", "truncated")


def transitions_of(dataset: Iterable[Experience] | Mapping[str, Any]) -> Iterator[Experience]:
    """The transitions of a data set, in order.

    Args:
        dataset: experiences; or columns of equal length N by name: ``observations [N, ...]``,
            ``actions [N, ...]``, ``rewards [N]``, ``next_observations [N, ...]``, ``terminated [N]`` and
            ``truncated [N]``. Rows of columns are one stream of episodes.

    Raises:
        ConfigError: A column is missing, or the columns are of different lengths.
    """
    if not isinstance(dataset, Mapping):
        yield from dataset
        return
    columns = cast("Mapping[str, Any]", dataset)
    if missing := [name for name in _COLUMNS if name not in columns]:
        raise ConfigError(f"the data set lacks the columns {', '.join(missing)}; it has {', '.join(columns)}")
    arrays = [np.asarray(columns[name]) for name in _COLUMNS]
    lengths = {name: len(array) for name, array in zip(_COLUMNS, arrays, strict=True)}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ConfigError(f"the data set's columns are of different lengths: {shown}")
    for observation, action, reward, next_observation, terminated, truncated in zip(*arrays, strict=True):
        status = EpisodeStatus.of(bool(terminated), bool(truncated))
        plain = action.item() if np.ndim(action) == 0 else action
        yield Experience(observation, plain, float(reward), next_observation, status)


async def feed(
    session: TrainingSession, dataset: Iterable[Experience] | Mapping[str, Any], first: int = 0
) -> int:
    """Let the session's agent observe a data set, from transition number ``first`` on; return how many.

    An episode that the data set breaks off is abandoned at the end, so that it leads into no other.

    Raises:
        ConfigError: It is empty, or does not fit the agent's spaces; the message says which transition.
    """
    transitions = itertools.islice(transitions_of(dataset), first, None)
    running: dict[ActorId, None] = {}
    count = 0
    try:
        while chunk := list(itertools.islice(transitions, _CHUNK)):
            await session.observe_many(chunk)
            count += len(chunk)
            for experience in chunk:
                running.pop(experience.actor_id, None)
                if not experience.status.is_done:
                    running[experience.actor_id] = None
    except InvalidExperience as error:
        raise ConfigError(
            f"the data set does not fit the agent, beyond its first {first + count} transitions: {error}"
        ) from error
    if not count and not first:
        raise ConfigError("the data set is empty: give at least one transition")
    for actor_id in running:
        await session.on_episode_start(actor_id)
    return count
