"""The memory behind a replay's ring: where transitions are written and selected, in the host or on a device.

Both kinds hold one row per transition and go on at row 0 behind the last one. What cannot be stored is found
out before anything is written. Used by ``stoker.replay.uniform``, which knows what the rows hold;
``stoker.replay.layout`` knows where a row's fields lie.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import torch

from stoker.replay.batch import Batch
from stoker.replay.layout import Field, RowLayout
from stoker.types import EpisodeStatus, Experience

__all__ = ["DeviceStorage", "HostStorage", "transition_layout"]

_Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_N_PENDING = 8
"""Up to so many transitions are put together row by row, more of them column by column."""

_PARALLEL_BYTES = 1 << 18
"""From a selection of this size on torch is quicker than numpy, where it has more than one thread."""

_TERMINATED = EpisodeStatus.TERMINATED  # compared here: asking a status for its bootstrap_mask shows in add
_from_numpy = torch.from_numpy  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
_tensor = cast("Callable[[_Array], torch.Tensor]", _from_numpy)
_pack_numbers = struct.Struct("=qff").pack_into  # the fields that a transition's row begins with


def transition_layout(shape: tuple[int, ...], dtype: torch.dtype) -> RowLayout:
    """How the fields of a ``Batch`` lie in a row, given the shape and dtype of an observation.

    Raises:
        ConfigError: Numpy lacks the dtype.
    """
    return RowLayout(
        (
            Field("actions", torch.int64),
            Field("rewards", torch.float32),
            Field("bootstrap_masks", torch.float32),
            Field("observations", dtype, shape),
            Field("next_observations", dtype, shape),
        )
    )


class HostStorage:
    """Rows in host memory, written and selected by numpy.

    Args:
        layout: a ``transition_layout``.
        n_rows: how many rows.
    """

    def __init__(self, layout: RowLayout, n_rows: int) -> None:
        self._layout = layout
        self._n_rows = n_rows
        self._rows = layout.allocate(n_rows)
        self._raw = layout.raw(self._rows)
        self._bytes = memoryview(self._raw.view(np.uint8))  # pyright: ignore[reportArgumentType]
        self._columns = _in_order(layout.arrays(self._rows))
        self._getters = [layout.getter(name) for name in Batch._fields]
        self._pending = [_PendingRow(layout) for _ in range(_N_PENDING)]
        self._first, self._write_first = self._pending[0].bytes, self._pending[0].write
        self._row_bytes = layout.row_bytes
        self._place = struct.Struct(f"{layout.row_bytes}s").pack_into
        self._parallel_from = -(-_PARALLEL_BYTES // layout.row_bytes)
        self._drawn = torch.empty(0, dtype=torch.int64)  # kept: to make it costs more than to fill it
        self._drawn_array = self._drawn.numpy()

    def put_one(self, row: int, experience: Experience, bootstrap_mask: float | None) -> None:
        """Write a transition to a row; when numpy refuses a value, the row stays as it was.

        Args:
            row: where it goes.
            experience: the transition.
            bootstrap_mask: None: what the status says.
        """
        self._write_first(experience, bootstrap_mask)
        self._place(self._bytes, row * self._row_bytes, self._first)

    def put(self, row: int, experiences: Sequence[Experience]) -> None:
        """Write transitions to the rows from ``row`` on; when numpy refuses a value, none is written.

        Args:
            row: where the first one goes.
            experiences: the transitions, not more than there are rows.
        """
        if len(experiences) > _N_PENDING:
            self.put_columns(row, _stacked(self._layout, experiences, None))
            return
        for pending, experience in zip(self._pending, experiences, strict=False):
            pending.write(experience, None)
        for pending in self._pending[: len(experiences)]:
            self._place(self._bytes, row * self._row_bytes, pending.bytes)
            row += 1
            if row == self._n_rows:
                row = 0

    def put_columns(self, row: int, columns: Sequence[_Array]) -> None:
        """The same for arrays ``[B, *shape]`` of the stored dtypes, in the order of a ``Batch``."""
        for rows, given in _stretches(row, len(columns[0]), self._n_rows):
            for column, values in zip(self._columns, columns, strict=True):
                column[rows] = values[given]

    def sample(self, n_rows: int, batch_size: int, generator: torch.Generator) -> Batch:
        """Copy ``batch_size`` of the first ``n_rows`` rows, drawn with replacement, to new tensors."""
        if len(self._drawn_array) != batch_size:
            self._drawn = torch.empty(batch_size, dtype=torch.int64)
            self._drawn_array = self._drawn.numpy()
        self._drawn.random_(n_rows, generator=generator)
        if batch_size >= self._parallel_from and torch.get_num_threads() > 1:
            return _in_batch(self._layout, self._rows.index_select(0, self._drawn))
        field = self._raw.take(self._drawn_array).getfield
        observations, actions, rewards, next_observations, bootstrap_masks = self._getters
        return Batch(
            _tensor(field(*observations)),
            _tensor(field(*actions)),
            _tensor(field(*rewards)),
            _tensor(field(*next_observations)),
            _tensor(field(*bootstrap_masks)),
        )

    def views(self) -> Batch:
        """All rows, as tensors that share the storage's memory."""
        return self.held(self._n_rows)

    def held(self, n_rows: int) -> Batch:
        """The first rows as tensors in host memory, which is the storage's own."""
        # from_numpy: torch.save refuses tensors of different dtypes that share one storage object
        return Batch(*[_tensor(column[:n_rows]) for column in self._columns])


class DeviceStorage:
    """Rows in the memory of a device, which get there in one copy for all that are put at once.

    Args:
        layout: a ``transition_layout``.
        n_rows: how many rows.
        device: where.
    """

    def __init__(self, layout: RowLayout, n_rows: int, device: torch.device) -> None:
        self._layout = layout
        self._n_rows = n_rows
        self._device = device
        self._rows = layout.allocate(n_rows, device)

    def put_one(self, row: int, experience: Experience, bootstrap_mask: float | None) -> None:
        """Write a transition to a row, as ``HostStorage.put_one`` does."""
        self.put_columns(row, _stacked(self._layout, (experience,), bootstrap_mask))

    def put(self, row: int, experiences: Sequence[Experience]) -> None:
        """Write transitions to the rows from ``row`` on, as ``HostStorage.put`` does."""
        self.put_columns(row, _stacked(self._layout, experiences, None))

    def put_columns(self, row: int, columns: Sequence[_Array]) -> None:
        """The same for arrays ``[B, *shape]`` of the stored dtypes, in the order of a ``Batch``."""
        staged = self._layout.allocate(len(columns[0]))
        for column, values in zip(_in_order(self._layout.arrays(staged)), columns, strict=True):
            column[:] = values
        for rows, given in _stretches(row, len(staged), self._n_rows):
            self._rows[rows].copy_(staged[given])

    def sample(self, n_rows: int, batch_size: int, generator: torch.Generator) -> Batch:
        """Copy ``batch_size`` of the first ``n_rows`` rows, drawn with replacement, to new tensors there."""
        drawn = torch.randint(n_rows, (batch_size,), generator=generator).to(self._device)
        return _in_batch(self._layout, self._rows.index_select(0, drawn))

    def views(self) -> Batch:
        """All rows, as tensors that share the storage's memory."""
        return _in_batch(self._layout, self._rows)

    def held(self, n_rows: int) -> Batch:
        """The first rows as tensors in host memory, which is new."""
        rows = self._rows[:n_rows].to("cpu", copy=True)
        return Batch(*[_tensor(column) for column in _in_order(self._layout.arrays(rows))])


class _PendingRow:
    """A row of its own, where a transition is put together: half of one is never in the storage."""

    def __init__(self, layout: RowLayout) -> None:
        self.bytes = bytearray(layout.row_bytes)
        row = torch.frombuffer(self.bytes, dtype=torch.int64).view(1, layout.row_words)
        # 0, ...: also a number is an array to write to, and a row in one step
        self._values = [column[0, ...] for column in _in_order(layout.arrays(row))]
        self._observation, _, _, self._next_observation, _ = self._values

    def write(self, experience: Experience, bootstrap_mask: float | None) -> None:
        """Replace what it holds."""
        mask = bootstrap_mask
        if mask is None:
            mask = 0.0 if experience.status is _TERMINATED else 1.0
        self._observation[...] = experience.observation
        self._next_observation[...] = experience.next_observation
        try:
            _pack_numbers(self.bytes, 0, experience.action, experience.reward, mask)
        except (struct.error, TypeError, OverflowError):  # numpy takes more than struct, or says why not
            _, action, reward, _, place_of_mask = self._values
            action[...], reward[...], place_of_mask[...] = experience.action, experience.reward, mask


def _stacked(
    layout: RowLayout, experiences: Sequence[Experience], bootstrap_mask: float | None
) -> list[_Array]:
    """One array ``[B, *shape]`` of the stored dtype per column."""
    masks: list[Any] = [bootstrap_mask] * len(experiences)
    if bootstrap_mask is None:
        masks = [0.0 if experience.status is _TERMINATED else 1.0 for experience in experiences]
    values: list[list[Any]] = [
        [experience.observation for experience in experiences],
        [experience.action for experience in experiences],
        [experience.reward for experience in experiences],
        [experience.next_observation for experience in experiences],
        masks,
    ]
    return [
        _column(column, layout.dtype(name), layout.fields[name].shape)
        for name, column in zip(Batch._fields, values, strict=True)
    ]


def _column(values: list[Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> _Array:
    try:
        array = np.array(values, dtype)
    except (TypeError, ValueError):
        array = None
    if array is None or array.shape != (len(values), *shape):
        # one by one numpy broadcasts what it can and says what is wrong with the rest
        array = np.empty((len(values), *shape), dtype)
        for row, value in enumerate(values):
            array[row] = value
    return array


def _stretches(row: int, count: int, n_rows: int) -> Iterator[tuple[slice, slice]]:
    """The rows from ``row`` on and what goes there, in one piece, or two where they go on at row 0."""
    head = min(count, n_rows - row)
    yield slice(row, row + head), slice(head)
    if head < count:
        yield slice(count - head), slice(head, count)


def _in_order(fields: Mapping[str, _Array]) -> list[_Array]:
    return [fields[name] for name in Batch._fields]


def _in_batch(layout: RowLayout, rows: torch.Tensor) -> Batch:
    return Batch(**layout.tensors(rows))
