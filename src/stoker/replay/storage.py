"""The memory behind a replay's ring: where transitions are written and selected, in the host or on a device.

Both kinds hold one row per transition and go on at row 0 behind the last one. What cannot be stored is found
out before anything is written (``stoker.replay.pending``). Used by ``stoker.replay.ring``, which knows which
rows are filled; ``stoker.replay.transition`` knows what they hold.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import torch

from stoker.replay.batch import Batch
from stoker.replay.pending import NestedPendingRow, PendingRow, stacked
from stoker.replay.transition import TransitionSpec
from stoker.types import Experience

__all__ = ["DeviceStorage", "HostStorage"]

_Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_N_PENDING = 8
"""Up to so many transitions are put together row by row, more of them column by column."""

_PARALLEL_BYTES = 1 << 18
"""From a selection of this size on torch is quicker than numpy, where it has more than one thread."""

_from_numpy = torch.from_numpy  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
_tensor = cast("Callable[[_Array], torch.Tensor]", _from_numpy)


class HostStorage:
    """Rows in host memory, written and selected by numpy.

    Args:
        spec: what a transition holds.
        rows: the memory, int64 ``[n_rows, row_words]``.
    """

    def __init__(self, spec: TransitionSpec, rows: torch.Tensor) -> None:
        layout = spec.layout
        self._spec = spec
        self._n_rows = len(rows)
        self._rows = rows
        self._raw = layout.raw(rows)
        self._bytes = memoryview(self._raw.view(np.uint8))  # pyright: ignore[reportArgumentType]
        arrays = layout.arrays(rows)
        self._columns = [arrays[name] for name in spec.names]
        self._getters = [layout.getter(name) for name in spec.names]
        self._is_plain = spec.is_plain
        pending_row = PendingRow if spec.is_plain else NestedPendingRow
        self._pending = [pending_row(spec) for _ in range(_N_PENDING)]
        self._first, self._write_first = self._pending[0].bytes, self._pending[0].write
        self._row_bytes = layout.row_bytes
        self._place = struct.Struct(f"{layout.row_bytes}s").pack_into
        self._parallel_from = -(-_PARALLEL_BYTES // layout.row_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        # All else looks into the memory of the rows, and a copy must look into that of its own rows.
        return HostStorage, (self._spec, self._rows)

    def put_one(self, row: int, experience: Experience, bootstrap_mask: float | None) -> None:
        """Write a transition to a row; when a value is refused, the row stays as it was.

        Args:
            row: where it goes.
            experience: the transition.
            bootstrap_mask: None: what the status says.
        """
        self._write_first(experience, bootstrap_mask)
        self._place(self._bytes, row * self._row_bytes, self._first)

    def put(self, row: int, experiences: Sequence[Experience]) -> None:
        """Write transitions to the rows from ``row`` on; when a value is refused, none is written.

        Args:
            row: where the first one goes.
            experiences: the transitions, not more than there are rows.
        """
        if len(experiences) > _N_PENDING:
            self.put_columns(row, stacked(self._spec, experiences, None))
            return
        for pending, experience in zip(self._pending, experiences, strict=False):
            pending.write(experience, None)
        for pending in self._pending[: len(experiences)]:
            self._place(self._bytes, row * self._row_bytes, pending.bytes)
            row += 1
            if row == self._n_rows:
                row = 0

    def put_columns(self, row: int, columns: Sequence[_Array]) -> None:
        """The same for arrays ``[B, *shape]`` of the stored dtypes, in the order of the spec's names."""
        for rows, given in _stretches(row, len(columns[0]), self._n_rows):
            for column, values in zip(self._columns, columns, strict=True):
                column[rows] = values[given]

    def take(self, drawn: _Array) -> Batch:
        """Copy the rows of these numbers, int64 ``[B]``, to new tensors."""
        if len(drawn) >= self._parallel_from and torch.get_num_threads() > 1:
            return _in_batch(self._spec, self._rows.index_select(0, _tensor(drawn)))
        field = self._raw.take(drawn).getfield
        if not self._is_plain:
            return self._spec.batch([_tensor(field(*getter)) for getter in self._getters])
        observations, actions, rewards, next_observations, bootstrap_masks = self._getters
        return Batch(
            _tensor(field(*observations)),
            _tensor(field(*actions)),
            _tensor(field(*rewards)),
            _tensor(field(*next_observations)),
            _tensor(field(*bootstrap_masks)),
        )

    def views(self) -> list[torch.Tensor]:
        """All rows by column, as tensors that share the storage's memory."""
        return self.held(self._n_rows)

    def held(self, n_rows: int) -> list[torch.Tensor]:
        """The first rows by column, as tensors in host memory, which is the storage's own."""
        # from_numpy: torch.save refuses tensors of different dtypes that share one storage object
        return [_tensor(column[:n_rows]) for column in self._columns]


class DeviceStorage:
    """Rows in the memory of a device, which get there in one copy for all that are put at once.

    Args:
        spec: what a transition holds.
        n_rows: how many rows.
        device: where.
    """

    def __init__(self, spec: TransitionSpec, n_rows: int, device: torch.device) -> None:
        self._spec = spec
        self._n_rows = n_rows
        self._device = device
        self._rows = spec.layout.allocate(n_rows, device)

    def put_one(self, row: int, experience: Experience, bootstrap_mask: float | None) -> None:
        """Write a transition to a row, as ``HostStorage.put_one`` does."""
        self.put_columns(row, stacked(self._spec, (experience,), bootstrap_mask))

    def put(self, row: int, experiences: Sequence[Experience]) -> None:
        """Write transitions to the rows from ``row`` on, as ``HostStorage.put`` does."""
        self.put_columns(row, stacked(self._spec, experiences, None))

    def put_columns(self, row: int, columns: Sequence[_Array]) -> None:
        """The same for arrays ``[B, *shape]`` of the stored dtypes, in the order of the spec's names."""
        staged = self._spec.layout.allocate(len(columns[0]))
        arrays = self._spec.layout.arrays(staged)
        for name, values in zip(self._spec.names, columns, strict=True):
            arrays[name][:] = values
        for rows, given in _stretches(row, len(staged), self._n_rows):
            self._rows[rows].copy_(staged[given])

    def take(self, drawn: _Array) -> Batch:
        """Copy the rows of these numbers, int64 ``[B]`` in the host, to new tensors there."""
        return _in_batch(self._spec, self._rows.index_select(0, _tensor(drawn).to(self._device)))

    def views(self) -> list[torch.Tensor]:
        """All rows by column, as tensors that share the storage's memory."""
        return _in_order(self._spec, self._rows)

    def held(self, n_rows: int) -> list[torch.Tensor]:
        """The first rows by column, as tensors in host memory, which is new."""
        arrays = self._spec.layout.arrays(self._rows[:n_rows].to("cpu", copy=True))
        return [_tensor(arrays[name]) for name in self._spec.names]


def _stretches(row: int, count: int, n_rows: int) -> Iterator[tuple[slice, slice]]:
    """The rows from ``row`` on and what goes there, in one piece, or two where they go on at row 0."""
    head = min(count, n_rows - row)
    yield slice(row, row + head), slice(head)
    if head < count:
        yield slice(count - head), slice(head, count)


def _in_order(spec: TransitionSpec, rows: torch.Tensor) -> list[torch.Tensor]:
    tensors = spec.layout.tensors(rows)
    return [tensors[name] for name in spec.names]


def _in_batch(spec: TransitionSpec, rows: torch.Tensor) -> Batch:
    return spec.batch(_in_order(spec, rows))
