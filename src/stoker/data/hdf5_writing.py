"""Write HDF5 files of plain arrays by h5py's low-level calls: the others take longer than the disk.

HDF5 cannot stand a refused write: it reports each object that it cannot close, and then crashes the process.
So it writes to a file object that accepts everything, and whoever writes asks that object for the error.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stoker.importing import required

_MOST_SHAPES = 4096


class Hdf5Writer:
    """A new HDF5 file; what its calls need is made once. A context manager, which closes it.

    Arrays are stored as they are, one after the other.

    Args:
        path: of the file.

    Attributes:
        root: the outermost group.

    Raises:
        MissingDependency: h5py is not installed.
        OSError: The system refuses to make the file.
    """

    def __init__(self, path: Path) -> None:
        h5py = required("h5py", "data")
        h5p, self._h5g, self._h5d, self._h5s = h5py.h5p, h5py.h5g, h5py.h5d, h5py.h5s
        self._h5a, self._h5t = h5py.h5a, h5py.h5t
        self._disk = _AcceptingFile(path)
        access = h5p.create(h5p.FILE_ACCESS)
        access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)  # its objects write nothing after that
        access.set_fileobj_driver(h5py.h5fd.fileobj_driver, self._disk)
        self._file: Any = h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, fapl=access)
        self.root: Any = h5py.h5g.open(self._file, b"/")
        self._names: Any = h5p.create(h5p.LINK_CREATE)
        self._names.set_char_encoding(h5py.h5t.CSET_UTF8)
        self._settings: Any = h5p.create(h5p.DATASET_CREATE)
        self._settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        self._settings.set_obj_track_times(False)
        self._types: dict[np.dtype[Any], Any] = {}
        self._shapes: dict[tuple[int, ...], Any] = {}
        self._scalar: Any = h5py.h5s.create(h5py.h5s.SCALAR)
        self._int64 = self._type(np.dtype(np.int64))

    def _type(self, dtype: np.dtype[Any]) -> Any:
        if dtype not in self._types:
            self._types[dtype] = self._h5t.py_create(dtype, logical=True)
        return self._types[dtype]

    def group(self, parent: Any, name: str) -> Any:
        """A new group."""
        return self._h5g.create(parent, name.encode(), self._names)

    def attribute(self, group: Any, name: str, value: int) -> None:
        """A new attribute of a group, an int64."""
        made = self._h5a.create(group, name.encode(), self._int64, self._scalar)
        made.write(np.array(value, np.int64))

    def array(self, group: Any, name: str, array: NDArray[Any]) -> None:
        """A new array in a group."""
        shape = array.shape
        place = self._shapes.get(shape)
        if place is None:
            if len(self._shapes) >= _MOST_SHAPES:  # of episodes of any length
                self._shapes.clear()
            place = self._shapes[shape] = self._h5s.create_simple(shape)
        kind = self._type(array.dtype)
        made = self._h5d.create(group, name.encode(), kind, place, self._settings, self._names)
        made.write(place, place, np.ascontiguousarray(array), kind)

    def check(self) -> None:
        """Raise the first error of the system, if there was one; the file lacks what came after it.

        Raises:
            OSError: As said.
        """
        if self._disk.refusal is not None:
            raise self._disk.refusal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        self._disk.close()
        if error is None:
            self.check()


class _AcceptingFile:
    """What HDF5 writes to: accepts all writes, and drops them from the first that the system refuses.

    Attributes:
        refusal: the error of that write.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._descriptor = self._file.fileno()
        self._at = 0
        self.refusal: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Where to read or write next."""
        self._at = offset if whence == os.SEEK_SET else self._file.seek(offset, whence)
        return self._at

    def tell(self) -> int:
        """Where to read or write next."""
        return self._at

    def write(self, data: Any) -> int:
        """Write all of it."""
        if self.refusal is None:
            try:
                n_written = os.pwrite(self._descriptor, data, self._at)
                while n_written < len(data):
                    n_written += os.pwrite(self._descriptor, data[n_written:], self._at + n_written)
            except OSError as error:
                self.refusal = error
        return len(data)

    def readinto(self, buffer: Any) -> int:
        """Read from the file."""
        return os.preadv(self._descriptor, [buffer], self._at)

    def flush(self) -> None:
        """Nothing is held back."""

    def truncate(self, size: int) -> int:
        """Set the length of the file."""
        if self.refusal is None:
            try:
                os.ftruncate(self._descriptor, size)
            except OSError as error:
                self.refusal = error
        return size

    def close(self) -> None:
        """Close the file."""
        self._file.close()
