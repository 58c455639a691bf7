"""The memory behind a ring: rows in the host, in a file, or on a device.

Transitions are put together apart from the ring, in single rows or in columns, and only copied when all of
them fit: half a transition is never stored, and a refused one changes nothing. Row 0 follows the last row.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from stoker.errors import ConfigError
from stoker.replay.batch import Batch
from stoker.replay.layout import Array, RowLayout
from stoker.replay.transition import TransitionSpec
from stoker.types import AnyPath, EpisodeStatus, Experience

__all__ = ["Storage", "allocated_rows"]

_N_STAGED = 8
"""Up to this many transitions are put together row by row, more of them column by column."""

_PARALLEL_BYTES = 1 << 18
"""From a selection of this size on torch is faster than numpy, where it has more than one thread."""

_PIECE_BYTES = 1 << 20

_TERMINATED = EpisodeStatus.TERMINATED  # compared here: asking a status for its bootstrap_mask shows in add

_pack_numbers = struct.Struct("=qff").pack_into  # the fields that a plain transition's row begins with
_from_numpy = torch.from_numpy  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
_tensor = cast("Callable[[Array], torch.Tensor]", _from_numpy)


class _StagedRow:
    """A separate row in which one transition is put together."""

    def __init__(self, spec: TransitionSpec) -> None:
        self.bytes = bytearray(spec.layout.row_bytes)
        arrays = spec.layout.arrays(torch.frombuffer(self.bytes, dtype=torch.int64).view(1, -1))
        self._spec = spec
        # 0, ...: also a number is an array to write to, and a row in one step
        self._values = [arrays[name][0, ...] for name in spec.fields]
        self._observation, self._next_observation = self._values[0], self._values[-2]

        self.write = self._write_plain if spec.is_plain else self._write
        """Replaces the row by a transition and its mask."""

    def _write_plain(self, experience: Experience, bootstrap_mask: float) -> None:
        self._observation[...] = experience.observation
        self._next_observation[...] = experience.next_observation
        try:
            _pack_numbers(self.bytes, 0, experience.action, experience.reward, bootstrap_mask)
        except (struct.error, TypeError, OverflowError):  # numpy takes more than struct, or says why not
            self._write(experience, bootstrap_mask)

    def _write(self, experience: Experience, bootstrap_mask: float) -> None:
        for place, value in zip(self._values, self._spec.values(experience, bootstrap_mask), strict=True):
            place[...] = value


class Storage:
    """Rows that are written in order and selected by number.

    Args:
        spec: the arrays of a transition.
        rows: the memory, int64 ``[n_rows, row_words]``.
        is_host: whether numpy writes and selects, else torch does.
    """

    def __init__(self, spec: TransitionSpec, rows: torch.Tensor, is_host: bool) -> None:
        layout = spec.layout
        self._spec = spec
        self._rows = rows
        self._n_rows = len(rows)
        self._is_host, self._is_plain = is_host, spec.is_plain
        self._parallel_from = 0
        self._row_bytes = layout.row_bytes
        self._staged = [_StagedRow(spec) for _ in range(_N_STAGED)]
        self._first, self._stage_first = self._staged[0].bytes, self._staged[0].write
        if is_host:
            self._raw = layout.raw(rows)
            self._bytes = memoryview(self._raw.view(np.uint8))  # pyright: ignore[reportArgumentType]
            self._columns = self._columns_of(rows)
            self._getters = [layout.getters[name] for name in spec.fields]
            self._place_row = struct.Struct(f"{layout.row_bytes}s").pack_into
            self._parallel_from = -(-_PARALLEL_BYTES // layout.row_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        # All else looks into the memory of the rows, and a copy must look into that of its own rows.
        return Storage, (self._spec, self._rows, self._is_host)

    def put_one(self, row: int, experience: Experience, bootstrap_mask: float | None) -> None:
        """Write a transition to a row; when a value is refused, the row stays as it was.

        Args:
            row: where it goes.
            experience: the transition.
            bootstrap_mask: None: the one of its status.
        """
        mask = bootstrap_mask
        if mask is None:
            mask = 0.0 if experience.status is _TERMINATED else 1.0
        self._stage_first(experience, mask)
        if self._is_host:
            self._place_row(self._bytes, row * self._row_bytes, self._first)
        else:
            self._rows[row] = torch.frombuffer(self._first, dtype=torch.int64)

    def put(self, row: int, experiences: Sequence[Experience]) -> None:
        """Write transitions to the rows from ``row`` on; when a value is refused, none is written.

        Args:
            row: where the first one goes.
            experiences: the transitions, not more than there are rows.
        """
        count = len(experiences)
        if count > _N_STAGED or not self._is_host:
            self.put_columns(row, self._stacked(experiences))
            return
        for staged, experience in zip(self._staged, experiences, strict=False):
            staged.write(experience, 0.0 if experience.status is _TERMINATED else 1.0)
        for staged in self._staged[:count]:
            self._place_row(self._bytes, row * self._row_bytes, staged.bytes)
            row += 1
            if row == self._n_rows:
                row = 0

    def put_columns(self, row: int, columns: Sequence[Array]) -> None:
        """Write arrays ``[B, *shape]``, in the order of the spec's fields, to the rows from ``row`` on."""
        count = len(columns[0])
        if self._is_host:
            targets: list[Any] = self._columns
        else:  # put together in the host, so that the device gets one copy
            staged = self._spec.layout.allocate(count)
            for column, values in zip(self._columns_of(staged), columns, strict=True):
                column[...] = values
            targets, columns = [self._rows], cast("Any", [staged])
        head = min(count, self._n_rows - row)
        for target, values in zip(targets, columns, strict=True):
            target[row : row + head] = values[:head]
            if head < count:
                target[: count - head] = values[head:]

    def take(self, drawn: Array) -> Batch:
        """Copy the rows of these numbers, int64 ``[B]`` in the host, to new tensors where the rows are."""
        if len(drawn) >= self._parallel_from and (not self._is_host or torch.get_num_threads() > 1):
            rows = self._rows.index_select(0, _tensor(drawn).to(self._rows.device))
            return self._spec.batch(self._views_of(rows))
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
        return self._views_of(self._rows)

    def held(self, n_rows: int) -> list[torch.Tensor]:
        """The first rows by column in host memory: the storage's own, or a copy from a device."""
        rows = self._rows[:n_rows]
        # from_numpy: torch.save refuses tensors of different dtypes that share one storage object
        return [
            _tensor(column)
            for column in self._columns_of(rows if self._is_host else rows.to("cpu", copy=True))
        ]

    def _stacked(self, experiences: Sequence[Experience]) -> list[Array]:
        masks = [0.0 if experience.status is _TERMINATED else 1.0 for experience in experiences]
        columns: Any
        if self._spec.is_plain:
            columns = (
                [experience.observation for experience in experiences],
                [experience.action for experience in experiences],
                [experience.reward for experience in experiences],
                [experience.next_observation for experience in experiences],
                masks,
            )
        else:
            columns = zip(*map(self._spec.values, experiences, masks), strict=True)
        getters = self._spec.layout.getters
        return [
            _column(values, getters[name][0]) for name, values in zip(self._spec.fields, columns, strict=True)
        ]

    def _columns_of(self, rows: torch.Tensor) -> list[Array]:
        arrays = self._spec.layout.arrays(rows)
        return [arrays[name] for name in self._spec.fields]

    def _views_of(self, rows: torch.Tensor) -> list[torch.Tensor]:
        tensors = self._spec.layout.tensors(rows)
        return [tensors[name] for name in self._spec.fields]


def _column(values: Sequence[Any], item: np.dtype[Any]) -> Array:
    try:
        array = np.array(values, item.base)
    except (TypeError, ValueError):
        array = None
    if array is None or array.shape != (len(values), *item.shape):
        # one by one numpy broadcasts what it can and says what is wrong with the rest
        array = np.empty(len(values), item)
        for row, value in enumerate(values):
            array[row] = value
    return array


def allocated_rows(
    layout: RowLayout, n_rows: int, device: torch.device, memory_map: AnyPath | None
) -> torch.Tensor:
    """Memory for rows: int64 ``[n_rows, row_words]``.

    A file lets a replay be larger than the machine's memory: the system pages unused rows out to the disk.
    The file never has a name, so nothing of it is left whichever way the process ends. It takes its full size
    at once: on a disk that is full, writing to a mapping would kill the process instead of raising.

    Args:
        layout: of a row.
        n_rows: how many.
        device: where.
        memory_map: the directory for a file that holds them, on the CPU only; None: they are in memory.

    Raises:
        ConfigError: There is not so much memory, or the directory cannot be used.
    """
    n_bytes = n_rows * layout.row_bytes
    if memory_map is None:
        try:
            return layout.allocate(n_rows, device)
        except (MemoryError, ValueError) as error:  # ValueError: more than an address can say
            raise ConfigError(
                f"{n_rows:,} transitions take {n_bytes:,} bytes, which this machine does not give: lower the "
                "capacity, or give memory_map a directory on a disk that has them"
            ) from error
    if device.type != "cpu":
        raise ConfigError(
            f"memory_map is for replays on the CPU, and this one is on {device}: leave out one of the two"
        )
    directory = Path(memory_map)
    needed = f"{n_bytes:,} bytes are needed for {n_rows:,} transitions"
    if not directory.is_dir():
        raise ConfigError(f"memory_map {directory} is not a directory: name one with room ({needed})")
    try:
        free = shutil.disk_usage(directory).free
        if n_bytes > free:
            raise ConfigError(
                f"memory_map {directory} is too small: {needed}, {free:,} are free: lower the capacity or "
                "name another directory"
            )
        with tempfile.TemporaryFile(dir=directory) as file:
            _reserve(file.fileno(), n_bytes)
            mapping = mmap.mmap(file.fileno(), n_bytes)  # keeps the file when this descriptor is closed
    except OSError as error:
        raise ConfigError(
            f"memory_map {directory} cannot be used ({error.strerror}): {needed}; lower the capacity or name "
            "another directory"
        ) from error
    if hasattr(mmap, "MADV_RANDOM"):
        mapping.madvise(mmap.MADV_RANDOM)  # rows are drawn at random: their neighbors need not be read too
    return _tensor(np.frombuffer(mapping, np.int64)).view(n_rows, layout.row_words)


def _reserve(file: int, n_bytes: int) -> None:
    """Make a file of that size, with all its blocks allocated."""
    if sys.platform != "darwin":
        os.posix_fallocate(file, 0, n_bytes)
    else:  # has no such call: only written blocks are allocated
        zeros = bytes(_PIECE_BYTES)
        while n_bytes:
            n_bytes -= os.write(file, zeros[:n_bytes])
