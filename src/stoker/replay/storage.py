"""The memory behind a ring: rows in the host, in a file, or on a device.

Transitions are put together in staged rows, or come as columns, and are only copied to the ring when all of
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
from typing import Any

import numpy as np
import torch

from stoker.errors import ConfigError
from stoker.replay.layout import Array, RowLayout, from_numpy
from stoker.replay.transition import Batch, TransitionSpec
from stoker.types import AnyPath, EpisodeStatus, Experience

_PIECE_BYTES = 1 << 22
"""Rows are staged for a device in pieces of this size, and staged rows up to it are kept between calls."""

_VIEWS_BYTES = 800  # of one staged row, about

_PARALLEL_BYTES = 1 << 18
"""From a selection of this size on torch is faster than numpy, where it has more than one thread."""

_TERMINATED = EpisodeStatus.TERMINATED  # compared here: asking a status for its bootstrap_mask shows in add

_pack_numbers = struct.Struct("=qff").pack_into  # the fields that a plain transition's row begins with
_Places = tuple[Array, Array, int, tuple[Array, ...]]  # of one row, see ``_StagedRows.places``


class _StagedRows:
    """Separate rows in which transitions are put together, one by one."""

    def __init__(self, spec: TransitionSpec, n_rows: int) -> None:
        self.bytes = bytearray(n_rows * spec.layout.row_bytes)
        self.rows = torch.frombuffer(self.bytes, dtype=torch.int64).view(n_rows, -1)
        self.raw = spec.layout.raw(self.rows)
        # row, ...: also a number is an array to write to
        columns = [[array[row, ...] for row in range(n_rows)] for array in spec.layout.arrays(self.rows)]
        starts = range(0, len(self.bytes), spec.layout.row_bytes)
        self.places = list(zip(columns[0], columns[-2], starts, zip(*columns, strict=True), strict=True))
        """Of each row: its observation, its next observation, where it starts, and all of its arrays."""
        self._spec = spec

    @property
    def write(self) -> Callable[[_Places, Experience, float], None]:
        """The function that replaces a row, given by its places, by a transition and its mask."""
        # Not an attribute: with a cycle of references the memory would stay until the next collection.
        return self._write_plain if self._spec.is_plain else self._write

    def _write_plain(self, places: _Places, experience: Experience, bootstrap_mask: float) -> None:
        observation, next_observation, at, _ = places
        observation[...] = experience.observation
        next_observation[...] = experience.next_observation
        try:
            _pack_numbers(self.bytes, at, experience.action, experience.reward, bootstrap_mask)
        except (struct.error, TypeError, OverflowError):  # numpy takes more than struct, or says why not
            self._write(places, experience, bootstrap_mask)

    def _write(self, places: _Places, experience: Experience, bootstrap_mask: float) -> None:
        values = self._spec.values(experience, bootstrap_mask)
        for place, value in zip(places[-1], values, strict=True):
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
        self._staged = self._one = _StagedRows(spec, 1)
        self._one_bytes, self._write_one = self._one.bytes, self._one.write
        (self._one_places,) = self._one.places
        if is_host:
            self._raw = layout.raw(rows)
            self._bytes = memoryview(self._raw.view(np.uint8))  # pyright: ignore[reportArgumentType]
            self._columns = layout.arrays(rows)
            self._getters = list(layout.getters.values())
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
        if bootstrap_mask is None:
            bootstrap_mask = 0.0 if experience.status is _TERMINATED else 1.0
        self._write_one(self._one_places, experience, bootstrap_mask)
        if self._is_host:
            self._place_row(self._bytes, row * self._row_bytes, self._one_bytes)
        else:
            self._rows[row] = self._one.rows[0]

    def put(self, row: int, experiences: Sequence[Experience]) -> None:
        """Write transitions to the rows from ``row`` on; when a value is refused, none is written."""
        count = len(experiences)
        staged = self._staged
        if count > len(staged.rows):
            n_rows = 1 << (count - 1).bit_length()
            staged = _StagedRows(self._spec, n_rows)
            if n_rows * (self._row_bytes + _VIEWS_BYTES) <= _PIECE_BYTES:  # slower to make than to fill
                self._staged = staged
        write, terminated = staged.write, _TERMINATED
        for places, experience in zip(staged.places, experiences, strict=False):
            write(places, experience, 0.0 if experience.status is terminated else 1.0)
        target, source = (self._raw, staged.raw) if self._is_host else (self._rows, staged.rows)
        self._copy(row, count, target, source)

    def put_columns(self, row: int, columns: Sequence[Array]) -> None:
        """Write arrays ``[B, *shape]``, in the order of the spec's fields, to the rows from ``row`` on."""
        count = len(columns[0])
        if self._is_host:
            for target, source in zip(self._columns, columns, strict=True):
                self._copy(row, count, target, source)
        else:  # put together in the host, so that the device gets one copy of each piece
            most = 1 + _PIECE_BYTES // self._row_bytes
            staged = self._spec.layout.allocate(min(count, most))
            for begin in range(0, count, most):
                piece = [column[begin : begin + most] for column in columns]
                for target, source in zip(self._spec.layout.arrays(staged), piece, strict=True):
                    target[: len(source)] = source
                self._copy((row + begin) % self._n_rows, len(piece[0]), self._rows, staged)

    def _copy(self, row: int, count: int, target: Any, source: Any) -> None:
        """Copy the first ``count`` rows of a source to ``row`` and on; of too many the last ones."""
        if row + count <= self._n_rows:
            target[row : row + count] = source[:count]
            return
        first = max(count - self._n_rows, 0)
        row = (row + first) % self._n_rows
        middle = min(count, first + self._n_rows - row)
        target[row : row + middle - first] = source[first:middle]
        target[: count - middle] = source[middle:count]

    def take(self, drawn: Array) -> Batch:
        """Copy the rows of these numbers, int64 ``[B]`` in the host, to new tensors where the rows are."""
        if len(drawn) >= self._parallel_from and (not self._is_host or torch.get_num_threads() > 1):
            rows = self._rows.index_select(0, from_numpy(drawn).to(self._rows.device))
            return self._spec.batch(self._spec.layout.tensors(rows))
        field = self._raw.take(drawn).getfield
        if not self._is_plain:
            return self._spec.batch([from_numpy(field(*getter)) for getter in self._getters])
        observations, actions, rewards, next_observations, bootstrap_masks = self._getters
        return Batch(
            from_numpy(field(*observations)),
            from_numpy(field(*actions)),
            from_numpy(field(*rewards)),
            from_numpy(field(*next_observations)),
            from_numpy(field(*bootstrap_masks)),
        )

    def held(self, n_rows: int) -> list[torch.Tensor]:
        """The first rows by column in host memory: the storage's own, or a copy from a device."""
        rows = self._rows[:n_rows]
        columns = self._spec.layout.arrays(rows if self._is_host else rows.to("cpu", copy=True))
        # from_numpy: torch.save refuses tensors of different dtypes that share one storage object
        # clone: it tells storages apart by their addresses, and an empty array may have that of another
        return [from_numpy(column) if n_rows else from_numpy(column).clone() for column in columns]


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
            n_fit = _memory_bytes() // 2 // layout.row_bytes
            raise ConfigError(
                f"{n_rows:,} transitions take {n_bytes:,} bytes, which this machine does not give: lower "
                f"buffer_size (half of its memory holds {n_fit:,}), or give memory_map a directory on a disk "
                "that has them"
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
                f"memory_map {directory} is too small: {needed}, {free:,} are free: lower buffer_size "
                "or name another directory"
            )
        with tempfile.TemporaryFile(dir=directory) as file:
            _reserve(file.fileno(), n_bytes)
            mapping = mmap.mmap(file.fileno(), n_bytes)  # keeps the file when this descriptor is closed
    except OSError as error:
        raise ConfigError(
            f"memory_map {directory} cannot be used ({error.strerror}): {needed}; lower buffer_size or name "
            "another directory"
        ) from error
    if hasattr(mmap, "MADV_RANDOM"):
        mapping.madvise(mmap.MADV_RANDOM)  # rows are drawn at random: their neighbors need not be read too
    return from_numpy(np.frombuffer(mapping, np.int64)).view(n_rows, layout.row_words)


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _reserve(file: int, n_bytes: int) -> None:
    """Make a file of that size, with all its blocks allocated."""
    if sys.platform != "darwin":
        os.posix_fallocate(file, 0, n_bytes)
    else:  # has no such call: only written blocks are allocated
        zeros = bytes(_PIECE_BYTES)
        while n_bytes:
            n_bytes -= os.write(file, zeros[:n_bytes])
