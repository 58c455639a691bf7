"""Memory in the host for the rows of a replay: the process's own, or a file that the system pages in and out.

A file lets a replay be larger than the machine's memory: what is not used goes to the disk. It never has a
name, so nothing of it is left whichever way the process ends. All its blocks are reserved before the first
row is written: on a disk that is full, writing to a mapping would kill the process instead of raising.
"""

from __future__ import annotations

import mmap
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from stoker.errors import ConfigError
from stoker.replay.layout import RowLayout
from stoker.types import AnyPath

__all__ = ["host_rows", "mapped_rows"]

_PIECE_BYTES = 1 << 20


def host_rows(layout: RowLayout, n_rows: int) -> torch.Tensor:
    """Memory of this process, not yet written: int64 ``[n_rows, row_words]``.

    Raises:
        ConfigError: There is not so much.
    """
    try:
        return layout.allocate(n_rows)
    except (MemoryError, ValueError) as error:  # ValueError: more than an address can say
        raise ConfigError(
            f"{n_rows:,} transitions take {n_rows * layout.row_bytes:,} bytes, which this machine does not "
            "give: lower the capacity, or give memory_map a directory on a disk that has them"
        ) from error


def mapped_rows(layout: RowLayout, n_rows: int, directory: AnyPath) -> torch.Tensor:
    """Rows of zeros in a file without a name in that directory: int64 ``[n_rows, row_words]``.

    The file takes its full size at once, and is gone when the tensor and all its views are.

    Raises:
        ConfigError: It is no directory, cannot be written to, or has no room for so much.
    """
    place, n_bytes = Path(directory), n_rows * layout.row_bytes
    needed = f"{n_bytes:,} bytes are needed for {n_rows:,} transitions"
    if not place.is_dir():
        raise ConfigError(f"memory_map {place} is not a directory: name one with room ({needed})")
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise ConfigError(f"memory_map {place} cannot be looked at ({error.strerror}); {needed}") from error
    way_out = f"{needed}, {free:,} are free: lower the capacity or name another directory"
    if n_bytes > free:
        raise ConfigError(f"memory_map {place} is too small: {way_out}")
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            _reserve(file.fileno(), n_bytes)
            mapping = mmap.mmap(file.fileno(), n_bytes)  # keeps the file when this descriptor is closed
    except OSError as error:
        raise ConfigError(f"memory_map {place} cannot be used ({error.strerror}): {way_out}") from error
    if hasattr(mmap, "MADV_RANDOM"):
        mapping.madvise(mmap.MADV_RANDOM)  # rows are drawn at random: their neighbors need not be read too
    rows = torch.from_numpy(np.frombuffer(mapping, np.int64))  # pyright: ignore[reportUnknownMemberType]
    return rows.view(n_rows, layout.row_words)


def _reserve(file: int, n_bytes: int) -> None:
    """Make a file that long, of blocks that it really has."""
    if sys.platform != "darwin":
        os.posix_fallocate(file, 0, n_bytes)
    else:  # there is no such call: only what was written is there for sure
        zeros = bytes(_PIECE_BYTES)
        while n_bytes:
            n_bytes -= os.write(file, zeros[:n_bytes])
