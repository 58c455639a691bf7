"""NumPy's ``.npz``: read as streams, never unpickled; written column by column beside, then put together.

A column is read in blocks, so neither a large file nor a small one that claims to be large fills the memory:
what a column's header says must agree with the size that the archive's directory says.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from stoker.data.tables import Layout, TableMetadata, common_length, rows_at_once
from stoker.errors import InvalidDataset

_METADATA = "metadata.json"
_MOST_METADATA_BYTES = 16 << 20
_MOST_ROW_BYTES = 256 << 20
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


class NpzTable:
    """The arrays of an ``.npz`` as columns.

    Args:
        path: of the file.
        source: its name in errors.

    Raises:
        InvalidDataset: An array is of Python objects, or is of another length than the others, or its size
            contradicts the archive's.
    """

    format = "npz"

    def __init__(self, path: Path, source: str) -> None:
        self.source = source
        self._path = path
        layouts: dict[str, Layout] = {}
        lengths: dict[str, int] = {}
        self.metadata: bytes | None = None
        with zipfile.ZipFile(path) as archive:
            if len(set(archive.namelist())) < len(archive.namelist()):
                raise InvalidDataset(source, "two arrays have one name: write it anew with numpy.savez")
            for member in archive.infolist():
                if member.compress_type not in _METHODS or member.flag_bits & 1:
                    problem = f"{member.filename} is compressed in an unknown way, or encrypted"
                    raise InvalidDataset(source, f"{problem}: write it anew with numpy.savez")
                if member.filename == _METADATA:
                    with archive.open(member) as file:
                        self.metadata = file.read(_MOST_METADATA_BYTES)
                elif member.filename.endswith(".npy"):
                    name = member.filename[: -len(".npy")]
                    with archive.open(member) as file:
                        layouts[name], lengths[name] = _header_of(file, member, source)
        self.layouts: Mapping[str, Layout] = layouts
        self.n_rows: int = common_length(lengths, source)

    def blocks(self, names: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """These columns in order, some thousand rows at a time."""
        layouts = {name: self.layouts[name] for name in names}
        n_block = rows_at_once(layouts.values())
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(self._path))
            files = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in names}
            for name, file in files.items():
                _header_of(file, archive.getinfo(f"{name}.npy"), self.source)
            for start in range(0, self.n_rows, n_block):
                n = min(n_block, self.n_rows - start)
                yield {name: _rows(file, n, layouts[name]) for name, file in files.items()}


def _header_of(file: IO[bytes], member: zipfile.ZipInfo, source: str) -> tuple[Layout, int]:
    """The layout of an array and the number of its rows; the file stands at its first row then."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        problem = f"{member.filename} is of npy version {version}, which holds records"
        raise InvalidDataset(source, f"{problem}: give plain numbers")
    read: Any = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if dtype.kind not in "biuf":
        raise InvalidDataset(
            source, f"{member.filename} holds {dtype}, which is not read (objects are pickled): give numbers"
        )
    if not shape or min(shape) < 0 or (is_fortran and len(shape) > 1):
        problem = f"{member.filename} has the shape {shape}{' in Fortran order' if is_fortran else ''}"
        raise InvalidDataset(source, f"{problem}: write it with a row for each transition, in C order")
    layout = Layout(dtype, tuple(shape[1:]))
    n_bytes = layout.row_bytes * shape[0]
    if file.tell() + n_bytes != member.file_size or layout.row_bytes > _MOST_ROW_BYTES:
        problem = f"{member.filename} says it has {n_bytes:,} bytes, and the archive {member.file_size:,}"
        raise InvalidDataset(
            source, f"{problem}: it is damaged, or its rows are above {_MOST_ROW_BYTES:,} bytes"
        )
    return layout, int(shape[0])


def _rows(file: IO[bytes], n: int, layout: Layout) -> NDArray[Any]:
    data = file.read(n * layout.row_bytes)
    if len(data) < n * layout.row_bytes:
        raise EOFError("a column is cut short")
    array = np.frombuffer(data, layout.dtype).reshape(n, *layout.shape)
    return array.astype(layout.dtype.newbyteorder("="), copy=False)


class NpzSink:
    """Writes columns to nameless files, and at the end puts them into one ``.npz``, uncompressed.

    Args:
        path: of the file; the columns are on the same disk until it is written.
        layouts: the columns.
    """

    def __init__(self, path: Path, layouts: Mapping[str, Layout]) -> None:
        self._path = path
        self._layouts = layouts
        self._n_rows = 0
        self._stack = ExitStack()
        self._files: dict[str, IO[bytes]] = {}
        for name in layouts:
            file = tempfile.TemporaryFile(buffering=1 << 18, dir=path.parent)  # noqa: SIM115 - closed by `close`
            self._files[name] = self._stack.enter_context(file)

    def append(self, columns: Mapping[str, NDArray[Any]], n: int) -> None:
        """Add ``n`` rows of each column."""
        for name, file in self._files.items():
            file.write(np.ascontiguousarray(columns[name]).data)
        self._n_rows += n

    def finish(self, metadata: TableMetadata, unused: set[str]) -> None:
        """Write the file, without the unused columns."""
        with zipfile.ZipFile(self._path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(_METADATA, msgspec.json.encode(metadata))
            for name, layout in self._layouts.items():
                if name in unused:
                    continue
                column = self._files[name]
                column.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    shape = (self._n_rows, *layout.shape)
                    descr = npy.dtype_to_descr(layout.dtype)
                    npy.write_array_header_1_0(
                        member, {"descr": descr, "fortran_order": False, "shape": shape}
                    )
                    shutil.copyfileobj(column, member, 1 << 20)

    def close(self) -> None:
        """Remove the columns."""
        self._stack.close()
