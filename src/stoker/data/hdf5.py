"""HDF5 files of others: only numbers that are in the file itself are read.

The format can lead a reader elsewhere: by links and by data sets whose bytes are in other files, by small
files that claim to hold terabytes, by types that hold Python objects. Each of them is refused by name.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stoker.errors import InvalidDataset
from stoker.importing import required

_MOST_INFLATION = 1100
"""Deflate makes at most 1,032 bytes of one."""
_NEGLIGIBLE_BYTES = 1 << 20


class StoredArray(NamedTuple):
    """An array of numbers in a file.

    Attributes:
        dataset: h5py's identifier.
        shape: of at least one axis.
        dtype: in the byte order of this machine.
        native: the same as h5py names it.
    """

    dataset: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    native: Any


class Hdf5File:
    """A file that is open to be read.

    Args:
        path: of the file.
        source: its name in errors.

    Attributes:
        root: the outermost group.

    Raises:
        MissingDependency: h5py is not installed.
    """

    def __init__(self, path: Path, source: str) -> None:
        self._h5py = h5py = required("h5py", "data")
        self._h5a, self._h5o, self._h5d, self._h5s = h5py.h5a, h5py.h5o, h5py.h5d, h5py.h5s
        self._hard, self._group_type = h5py.h5l.TYPE_HARD, h5py.h5g.GroupID
        self._int64 = h5py.h5t.py_create(np.dtype(np.int64))
        self._source = source
        self._file_bytes = path.stat().st_size
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
        self._file = h5py.h5f.open(str(path).encode(), h5py.h5f.ACC_RDONLY, access)
        self.root: Any = h5py.h5g.open(self._file, b"/")
        self._types: list[tuple[Any, np.dtype[Any], Any]] = []

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, source: str) -> Generator[Hdf5File]:
        """Open a file for as long as the block runs."""
        file = cls(path, source)
        try:
            yield file
        finally:
            file._file.close()

    def names_in(self, group: Any) -> list[str]:
        """The names of what is in a group."""
        return [name.decode() for name in group]

    def has(self, group: Any, name: str) -> bool:
        """Whether something is in a group under a name."""
        return group.links.exists(name.encode())

    def child(self, group: Any, name: str) -> Any:
        """What is in a group under a name, a group or a data set; None: nothing is.

        Raises:
            InvalidDataset: It is a link to another place or file.
        """
        key = name.encode()
        if not group.links.exists(key):
            return None
        if group.links.get_info(key).type != self._hard:
            raise self._refused(name, "is a link to another place or file")
        return self._h5o.open(group, key)

    def group(self, group: Any, name: str) -> Any:
        """The group in a group under a name.

        Raises:
            InvalidDataset: There is none.
        """
        found = self.child(group, name)
        if not isinstance(found, self._group_type):
            raise InvalidDataset(
                self._source, f"it has no group {name!r}: it is damaged, or of another layout"
            )
        return found

    def dataset(self, group: Any, name: str) -> Any:
        """The data set in a group under a name, whatever it holds.

        Raises:
            InvalidDataset: There is none, or its bytes are in other files, or it claims to be larger than the
                file can be.
        """
        found = self.child(group, name)
        if not isinstance(found, self._h5d.DatasetID):
            raise InvalidDataset(
                self._source, f"it has no array {name!r}: it is damaged, or of another layout"
            )
        stored = found.get_storage_size()
        if found.get_offset() is None:  # else its bytes are here, in one piece, and cost no further question
            self._check_settings(name, found, stored)
        if stored > self._file_bytes:
            raise self._refused(name, f"claims {stored:,} bytes in a file of {self._file_bytes:,}")
        return found

    def array(self, group: Any, name: str) -> StoredArray:
        """The array of numbers in a group under a name.

        Raises:
            InvalidDataset: As for ``dataset``; or it holds no numbers, or only one.
        """
        found = self.dataset(group, name)
        stored = found.get_type()
        # To ask for a dtype takes as long as to read an array.
        known = (each for kind, *each in self._types if kind.equal(stored))
        dtype, native = next(known, None) or self._add_type(stored, name)
        shape = found.shape
        if not shape:
            raise self._refused(name, "is a single number")
        n_bytes, n_stored = math.prod(shape) * dtype.itemsize, found.get_storage_size()
        if n_bytes > max(_NEGLIGIBLE_BYTES, _MOST_INFLATION * n_stored):
            raise self._refused(name, f"claims {n_bytes:,} bytes, of which the file holds {n_stored:,}")
        return StoredArray(found, shape, dtype, native)

    def _add_type(self, stored: Any, name: str) -> tuple[np.dtype[Any], Any]:
        dtype: np.dtype[Any] = stored.dtype
        if dtype.kind not in "biuf":
            raise self._refused(name, f"holds {dtype}, no numbers")
        dtype = dtype.newbyteorder("=")
        native = self._h5py.h5t.py_create(dtype)
        self._types.append((stored, dtype, native))
        return dtype, native

    def read(self, stored: StoredArray) -> NDArray[Any]:
        """All of an array."""
        array = np.empty(stored.shape, stored.dtype)
        stored.dataset.read(self._h5s.ALL, self._h5s.ALL, array, stored.native)
        return array

    def read_rows(self, stored: StoredArray, start: int, stop: int) -> NDArray[Any]:
        """Some rows of an array."""
        array = np.empty((stop - start, *stored.shape[1:]), stored.dtype)
        place = self._h5s.create_simple(stored.shape)
        place.select_hyperslab((start, *[0] * (array.ndim - 1)), array.shape)
        stored.dataset.read(self._h5s.create_simple(array.shape), place, array, stored.native)
        return array

    def read_bytes(self, group: Any, name: str) -> list[bytes]:
        """Each row of a data set of bytes, whose rows may differ in length.

        Raises:
            InvalidDataset: It holds something else.
        """
        dataset = self._h5py.Dataset(self.dataset(group, name))
        if len(dataset.shape) == 2:
            return [row.tobytes() for row in self.read(self.array(group, name))]
        if self._h5py.check_vlen_dtype(dataset.dtype) != np.uint8 or len(dataset) > self._file_bytes:
            raise self._refused(name, f"holds {dataset.dtype}{list(dataset.shape)}, no bytes of images")
        return [np.asarray(row, np.uint8).tobytes() for row in dataset[()]]

    def attribute(self, group: Any, name: str) -> int | None:
        """An attribute of a group that is one integer; None: there is none by this name."""
        key = name.encode()
        if not self._h5a.exists(group, key):
            return None
        value = np.zeros((), np.int64)
        self._h5a.open(group, key).read(value, self._int64)
        return int(value)

    def _check_settings(self, name: str, dataset: Any, stored: int) -> None:
        settings = dataset.get_create_plist()
        layout = settings.get_layout()
        if layout == self._h5d.VIRTUAL or (layout == self._h5d.CONTIGUOUS and settings.get_external_count()):
            raise self._refused(name, "has its bytes in other files")
        if layout == self._h5d.CHUNKED:
            n_bytes = math.prod(settings.get_chunk()) * dataset.get_type().get_size()
            if n_bytes > max(_NEGLIGIBLE_BYTES, _MOST_INFLATION * stored):
                raise self._refused(
                    name, f"claims {n_bytes:,} bytes in one part, of {stored:,} that are stored"
                )

    def _refused(self, name: str, problem: str) -> InvalidDataset:
        return InvalidDataset(
            self._source, f"{name!r} {problem}, which is not read: give plain arrays of numbers"
        )
