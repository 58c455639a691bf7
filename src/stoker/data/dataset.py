"""A data set as its readers know it: what it says about itself, and its episodes one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeAlias, runtime_checkable

import gymnasium
import msgspec

from stoker.data.episodes import Episode

DatasetFormat: TypeAlias = Literal["minari", "parquet", "npz"]
"""What data sets can be written as."""

Ends: TypeAlias = Literal["terminal", "timeout"]
"""The meaning of the ends of episodes in a data set that does not tell the two apart."""


class DatasetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a data set says about itself.

    Attributes:
        source: its name, as the caller gave it.
        format: ``minari``, ``d4rl``, ``parquet``, ``npz`` or ``journal``.
        observation_space: of its observations.
        action_space: of its actions.
        spaces_are_inferred: the format has no place for spaces, so they are made of the dtypes, shapes and
            extremes of the values.
        env_id: the environment that it was recorded in; None: unknown.
        n_episodes: how many there are; None: unknown until all have been read.
        n_steps: how many transitions; None likewise.
        ref_min_score: the score of a random policy, for normalized scores; None: unknown.
        ref_max_score: that of an expert.
    """

    source: str
    format: str
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    spaces_are_inferred: bool = False
    env_id: str | None = None
    n_episodes: int | None = None
    n_steps: int | None = None
    ref_min_score: float | None = None
    ref_max_score: float | None = None


@runtime_checkable
class Dataset(Protocol):
    """Episodes that are read when they are asked for. Its methods block.

    Attributes:
        info: what it says about itself.
    """

    info: DatasetInfo

    @property
    def n_dropped(self) -> int:
        """The transitions that ``episodes`` left out, as the format lacks the observations after them."""
        ...

    def episodes(self) -> Iterator[Episode]:
        """The episodes in order, from the first, at each call. The longest one bounds the memory.

        Raises:
            InvalidDataset: The file is damaged, or a value in it is invalid.
        """
        ...

    def close(self) -> None:
        """Close its files; may be called again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class WrittenDataset(msgspec.Struct, frozen=True, kw_only=True):
    """A data set that was written.

    Attributes:
        path: its file or directory.
        format: of that.
        n_episodes: the number of episodes in it.
        n_steps: the number of transitions.
        bytes: its size on disk.
    """

    path: Path
    format: DatasetFormat
    n_episodes: int
    n_steps: int
    bytes: int
