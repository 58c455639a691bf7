"""Data sets of one row per transition, by the names of their columns: npz, Parquet and D4RL."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import gymnasium
import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.data.cutting import Cutter, Rows
from stoker.data.dataset import DatasetInfo, Ends
from stoker.data.inferring import Extremes, inferred_space
from stoker.data.leaves import leaves_of
from stoker.data.reading import FileDataset, blamed
from stoker.errors import InvalidDataset
from stoker.protocol.spaces import Spaces
from stoker.types import ActorId, EpisodeStatus

_ALIASES: dict[str, tuple[str, ...]] = {
    "observations": ("observations", "observation", "obs"),
    "actions": ("actions", "action"),
    "rewards": ("rewards", "reward"),
    "next_observations": ("next_observations", "next_observation", "next_obs"),
    "terminated": ("terminated", "terminations", "terminals", "terminal"),
    "truncated": ("truncated", "truncations", "timeouts", "timeout"),
    "done": ("dones", "done"),
    "episodes": ("episodes", "episode", "episode_ids", "episode_id"),
    "policy_versions": ("policy_versions", "policy_version"),
    "seeds": ("seeds",),
    "actors": ("actors",),
}
"""What files call the columns."""

_BLOCK_BYTES, _MOST_ROWS = 4 << 20, 1 << 15
"""The size of the largest column in one block, and its rows."""
_ENDS = {"terminal": EpisodeStatus.TERMINATED, "timeout": EpisodeStatus.TRUNCATED}


class Layout(msgspec.Struct, frozen=True):
    """One column.

    Attributes:
        dtype: of its numbers.
        shape: of one row.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """The size of one row."""
        return self.dtype.itemsize * math.prod(self.shape)


def rows_at_once(layouts: Iterable[Layout]) -> int:
    """How many rows of these columns to read together."""
    return max(1, min(_MOST_ROWS, _BLOCK_BYTES // max(1, *(layout.row_bytes for layout in layouts))))


def common_length(lengths: Mapping[str, int], source: str) -> int:
    """The length that all columns have; 0 without any.

    Raises:
        InvalidDataset: They differ.
    """
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InvalidDataset(source, f"its columns are of different lengths: {shown}; correct the data")
    return next(iter(lengths.values()), 0)


class TableMetadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What npz and Parquet files of ``write_dataset`` say about themselves, in JSON.

    Attributes:
        format_version: of the layout of the file.
        spaces: of observations and actions.
        actors: the actor ids, which the column ``actors`` counts in.
        env_id: as in ``DatasetInfo``, and so are the other fields.
    """

    format_version: int = 1
    spaces: Spaces
    actors: list[ActorId]
    env_id: str | None = None
    n_episodes: int
    n_steps: int
    ref_min_score: float | None = None
    ref_max_score: float | None = None


_SHARED = ("env_id", "n_episodes", "n_steps", "ref_min_score", "ref_max_score")
"""What a table says of its data set."""


class Table(Protocol):
    """A file with columns, read in blocks.

    Attributes:
        source: its name, as the caller gave it.
        format: as in ``DatasetInfo``.
        layouts: its columns.
        n_rows: the number of transitions.
    """

    source: str
    format: str
    layouts: Mapping[str, Layout]
    n_rows: int

    @property
    def metadata(self) -> bytes | None:
        """The JSON of a ``TableMetadata``; None: it has none."""
        ...

    def blocks(self, names: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """These columns in order, some thousand rows at a time."""
        ...


class TableDataset(FileDataset):
    """The episodes in a table.

    Args:
        table: where they are.
        ends: the meaning of the ends of episodes, where the table does not tell terminated from truncated.
        check: as for ``FileDataset``.

    Raises:
        InvalidDataset: A column is missing or does not fit the others; or the ends of episodes are unknown;
            or ``ends`` is given for a table that tells them.
    """

    def __init__(self, table: Table, *, ends: Ends | None, check: bool) -> None:
        self._table = table
        self._names = {
            role: name
            for role, aliases in _ALIASES.items()
            for name in aliases[::-1]
            if name in table.layouts
        }
        self._ends = self._meaning_of(ends)
        with blamed(table.source):
            metadata = (
                None if table.metadata is None else msgspec.json.decode(table.metadata, type=TableMetadata)
            )
        if metadata is None:
            self._actors: list[ActorId] = [0]
            observation_space, action_space = self._inferred_spaces()
        else:
            self._check_metadata(metadata)
            self._actors = metadata.actors
            observation_space, action_space = metadata.spaces.gymnasium()
        super().__init__(
            DatasetInfo(
                source=table.source,
                format=table.format,
                observation_space=observation_space,
                action_space=action_space,
                spaces_are_inferred=metadata is None,
                **{} if metadata is None else {name: getattr(metadata, name) for name in _SHARED},
            ),
            check=check,
        )
        self._columns = self._columns_of(observation_space, action_space)

    def _invalid(self, problem: str) -> InvalidDataset:
        return InvalidDataset(self._table.source, problem)

    def _meaning_of(self, ends: Ends | None) -> EpisodeStatus | None:
        """What the marked rows are; None: two columns of flags tell."""
        if "terminated" in self._names and "truncated" in self._names:
            if ends is not None:
                raise self._invalid(
                    f"ends={ends!r}: its columns {self._names['terminated']} and {self._names['truncated']} "
                    "tell how episodes end: leave it out (--ends)"
                )
            return None
        marks = [role for role in ("terminated", "truncated", "done", "episodes") if role in self._names]
        if not marks:
            known = ", ".join(_ALIASES[role][0] for role in ("terminated", "truncated", "episodes"))
            raise self._invalid(
                f"no column says where episodes end, it has {', '.join(self._table.layouts)}: add {known}"
            )
        if ends is None:
            raise self._invalid(
                f"its column {self._names[marks[0]]!r} says where episodes end, and none whether they were "
                "terminated or truncated: say what the ends are (--ends terminal, or --ends timeout)"
            )
        return _ENDS[ends]

    def _layout_of(self, role: str) -> Layout:
        if role not in self._names:
            raise self._invalid(f"it has no column {role}, but {', '.join(self._table.layouts)}: add it")
        return self._table.layouts[self._names[role]]

    def _inferred_spaces(self) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
        observations, actions = self._layout_of("observations"), self._layout_of("actions")
        bounded = [
            role
            for role, layout in (("observations", observations), ("actions", actions))
            if layout.dtype.kind in "iub" or role == "actions"
        ]
        extremes = self._extremes_of(bounded)
        return (
            inferred_space(observations.dtype, observations.shape, extremes.get("observations")),
            inferred_space(actions.dtype, actions.shape, extremes.get("actions")),
        )

    def _extremes_of(self, roles: list[str]) -> dict[str, Extremes]:
        """The least and the greatest value of each number, over all rows; NaN is left out."""
        names = [self._names[role] for role in roles]
        found: dict[str, Extremes] = {}
        with blamed(self._table.source):
            for block in self._table.blocks(names):
                for role, name in zip(roles, names, strict=True):
                    now = Extremes.of(block[name])
                    found[role] = now.widened(found.get(role, now))
        if len(found) < len(roles):
            raise self._invalid("it has no row: give at least one transition")
        return found

    def _check_metadata(self, metadata: TableMetadata) -> None:
        if metadata.format_version != 1 or metadata.n_steps != self._table.n_rows or not metadata.actors:
            raise self._invalid(
                f"its metadata are of version {metadata.format_version} with {metadata.n_steps} steps of "
                f"{len(metadata.actors)} actors, for {self._table.n_rows} rows: it is damaged, or of a newer "
                "stoker"
            )

    def _columns_of(
        self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]
    ) -> dict[str, list[str]]:
        """The columns of each role; each is checked to be there, and to hold numbers of the right shape."""
        inner = {
            "observations": leaves_of(observation_space, self._names.get("observations", "observations")),
            "actions": leaves_of(action_space, self._names.get("actions", "actions")),
        }
        after = self._names.get("next_observations", "next_observations")
        columns = {role: [leaf.name for leaf in leaves] for role, leaves in inner.items()}
        following = [leaf.name for leaf in leaves_of(observation_space, after)]
        if any(name in self._table.layouts for name in following):
            columns["next_observations"] = following
        for role in _ALIASES:
            if role not in columns and role in self._names and role != "next_observations":
                columns[role] = [self._names[role]]
        self._layout_of("rewards")
        for role, names in columns.items():
            for name in names:
                self._check_column(role, name)
        for before, name in zip(columns["observations"], columns.get("next_observations", ()), strict=False):
            if self._table.layouts[before] != self._table.layouts[name]:
                raise self._invalid(
                    f"the columns {before} and {name} are of different shapes or dtypes: convert one"
                )
        return columns

    def _check_column(self, role: str, name: str) -> None:
        layout = self._table.layouts.get(name)
        if layout is None:
            raise self._invalid(f"it has no column {name}, but {', '.join(self._table.layouts)}: add it")
        wanted = "iu" if role in ("episodes", "policy_versions", "seeds", "actors") else "biuf"
        is_number = role not in ("observations", "next_observations", "actions")
        if layout.dtype.kind not in wanted or (is_number and layout.shape != ()):
            problem = f"its column {name} holds {layout.dtype}{list(layout.shape)}"
            raise self._invalid(f"{problem}: give {'one number' if is_number else 'numbers'} for each row")

    def _read(self) -> Iterator[Any]:
        status = EpisodeStatus.CONTINUING
        if self._ends is not None and self._is_only("episodes"):
            status = self._ends
        cutter = Cutter(self.info.observation_space, self.info.action_space, self._actors, status)
        for episode in cutter.episodes(self._rows()):
            self.n_dropped: int = cutter.n_dropped
            yield episode
        self.n_dropped = cutter.n_dropped

    def _is_only(self, role: str) -> bool:
        return not any(name in self._columns for name in ("terminated", "truncated", "done") if name != role)

    def _rows(self) -> Iterator[Rows]:
        columns = self._columns
        for block in self._table.blocks([name for names in columns.values() for name in names]):
            found = {role: [block[name] for name in names] for role, names in columns.items()}
            one = {role: values[0] for role, values in found.items()}
            n = len(one["rewards"])
            marks = {
                role: one[role].astype(np.bool_, copy=False) if role in one else np.zeros(n, np.bool_)
                for role in ("terminated", "truncated", "done")
            }
            terminated, truncated = marks["terminated"], marks["truncated"] & ~marks["terminated"]
            if self._ends is not None:
                marked = terminated | truncated | marks["done"]
                none = np.zeros(n, np.bool_)
                is_terminal = self._ends is EpisodeStatus.TERMINATED
                terminated, truncated = (marked, none) if is_terminal else (none, marked)
            yield Rows(
                found["observations"],
                found["actions"],
                one["rewards"],
                found.get("next_observations"),
                terminated,
                truncated,
                one.get("episodes"),
                _as_int64(one.get("policy_versions")),
                one.get("seeds"),
                one.get("actors"),
            )


def _as_int64(column: NDArray[Any] | None) -> NDArray[np.int64] | None:
    return None if column is None else column.astype(np.int64, copy=False)
