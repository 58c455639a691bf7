"""Parquet files: a row for each transition, an array as a list of numbers, read in groups of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.data.tables import Layout, TableMetadata, rows_at_once
from stoker.errors import InvalidDataset
from stoker.importing import required

_METADATA = b"stoker"
_SHAPES = b"stoker.shapes"
_GROUP_BYTES = 32 << 20
_MOST_GROUP_ROWS = 1 << 17


def _pyarrow() -> tuple[Any, Any]:
    return required("pyarrow", "data"), required("pyarrow.parquet", "data", "pyarrow")


class ParquetTable:
    """The columns of a Parquet file, or of those in a directory in the order of their names.

    Args:
        path: of the file or directory.
        source: its name in errors.

    Raises:
        InvalidDataset: The files are of different columns.
    """

    format = "parquet"

    def __init__(self, path: Path, source: str) -> None:
        self._arrow, self._parquet = _pyarrow()
        self.source = source
        self._paths = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        self.n_rows: Any = 0
        self.metadata: bytes | None = None
        schema: Any = None
        shapes: dict[str, list[int]] = {}
        for each in self._paths:
            with self._parquet.ParquetFile(each) as file:
                found = file.schema_arrow
                if schema is not None and not found.equals(schema):
                    problem = f"{each.name} has other columns than {self._paths[0].name}"
                    raise InvalidDataset(source, f"{problem}: open one of them, or write them alike")
                schema = found
                self.n_rows += file.metadata.num_rows
                given: dict[bytes, bytes] = file.metadata.metadata or {}
                if len(self._paths) == 1:
                    self.metadata = given.get(_METADATA)
                shapes = msgspec.json.decode(given.get(_SHAPES, b"{}"), type=dict[str, list[int]])
        layouts: dict[str, Layout] = {}
        for field in schema:
            if (layout := self._layout_of(field)) is not None:
                name, (dtype, shape) = field.name, layout
                wanted = tuple(shapes.get(name, shape))
                if math.prod(wanted) != math.prod(shape) or min(wanted, default=0) < 0:
                    raise InvalidDataset(
                        source, f"{name} has {shape} numbers for the shape {wanted}: it is damaged"
                    )
                layouts[name] = Layout(dtype, wanted)
        self.layouts: Mapping[str, Layout] = layouts

    def _layout_of(self, field: Any) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
        """The dtype and shape of a column, for plain lists those of the first; None: it holds no numbers."""
        types: Any = self._arrow.types
        kind, shape = field.type, ()
        while types.is_fixed_size_list(kind):
            kind, shape = kind.value_type, (*shape, kind.list_size)
        if types.is_list(kind) or types.is_large_list(kind):
            first = self._first(field.name)
            kind, shape = first.dtype, first.shape
            return (kind, shape) if kind.kind in "biuf" else None
        if not (types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)):
            return None
        return _dtype_of(kind), shape

    def _first(self, name: str) -> NDArray[Any]:
        """The first value of a column of lists; its numbers keep their dtype."""
        with self._parquet.ParquetFile(self._paths[0]) as file:
            for batch in file.iter_batches(1, columns=[name]):
                return _plain(batch.column(0), None)[0]
        return np.zeros(0)

    def blocks(self, names: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """These columns in order, some thousand rows at a time."""
        n_block = rows_at_once([self.layouts[name] for name in names])
        for path in self._paths:
            with self._parquet.ParquetFile(path, pre_buffer=False) as file:
                for batch in file.iter_batches(n_block, columns=names, use_threads=False):
                    yield {name: self._column(batch, name) for name in names}

    def _column(self, batch: Any, name: str) -> NDArray[Any]:
        layout = self.layouts[name]
        column = batch.column(name)
        if column.null_count:
            raise InvalidDataset(self.source, f"its column {name} has {column.null_count} gaps: fill them")
        array = _plain(column, layout)
        shape = (len(column), *layout.shape)
        if array.size != math.prod(shape):
            raise InvalidDataset(
                self.source, f"its column {name} has lists of different lengths: give one shape"
            )
        return array.reshape(shape).astype(layout.dtype, copy=False)


def _plain(column: Any, layout: Layout | None) -> NDArray[Any]:
    """The numbers of a column, without the structure of its lists; with it, where the layout is unknown."""
    shape = [len(column)]
    while hasattr(column.type, "value_type"):
        column = column.flatten()
        shape.append(len(column) // max(1, math.prod(shape)))
        if column.null_count:
            raise ValueError("a list has gaps")
    array = _numbers(column)
    return array if layout is not None else array.reshape(shape)


def _dtype_of(kind: Any) -> np.dtype[Any]:
    return np.dtype(
        {"halffloat": "float16", "float": "float32", "double": "float64"}.get(str(kind), str(kind))
    )


def _numbers(column: Any) -> NDArray[Any]:
    """The numbers of an array of pyarrow's. Its own conversion imports pandas, which takes a second."""
    dtype, rows = _dtype_of(column.type), slice(column.offset, column.offset + len(column))
    data = column.buffers()[-1]
    if data is None:
        return np.zeros(0, dtype)
    if dtype == np.bool_:
        return np.unpackbits(np.frombuffer(data, np.uint8), count=rows.stop, bitorder="little")[rows] != 0
    return np.frombuffer(data, dtype, rows.stop)[rows]


class ParquetSink:
    """Writes columns to a Parquet file, group by group.

    Args:
        path: of the file.
        layouts: the columns.
    """

    def __init__(self, path: Path, layouts: Mapping[str, Layout]) -> None:
        self._arrow, parquet = _pyarrow()
        self._layouts = layouts
        types = {name: self._type_of(layout) for name, layout in layouts.items()}
        shapes = {name: list(layout.shape) for name, layout in layouts.items()}
        metadata = {_SHAPES: msgspec.json.encode(shapes)}
        self._schema = self._arrow.schema(
            [self._arrow.field(name, kind, nullable=False) for name, kind in types.items()], metadata
        )
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd", write_statistics=False)
        self._parts: dict[str, list[NDArray[Any]]] = {name: [] for name in layouts}
        self._n_rows = 0
        n_bytes = sum(layout.row_bytes for layout in layouts.values())
        self._n_group = max(1, min(_MOST_GROUP_ROWS, _GROUP_BYTES // n_bytes))

    def _type_of(self, layout: Layout) -> Any:
        kind = self._arrow.from_numpy_dtype(layout.dtype)
        return kind if layout.shape == () else self._arrow.list_(kind, math.prod(layout.shape))

    def append(self, columns: Mapping[str, NDArray[Any]], n: int) -> None:
        """Add ``n`` rows of each column."""
        for name, parts in self._parts.items():
            parts.append(columns[name])
        self._n_rows += n
        if self._n_rows >= self._n_group:
            self._flush()

    def _flush(self) -> None:
        arrays: list[Any] = []
        for name, parts in self._parts.items():
            layout = self._layouts[name]
            values = np.concatenate(parts).reshape(-1)
            data = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else values
            kind = self._arrow.from_numpy_dtype(layout.dtype)
            flat = self._arrow.Array.from_buffers(kind, len(values), [None, self._arrow.py_buffer(data)])
            is_list = layout.shape != ()
            arrays.append(
                self._arrow.FixedSizeListArray.from_arrays(flat, math.prod(layout.shape)) if is_list else flat
            )
            parts.clear()
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self._n_rows = 0

    def finish(self, metadata: TableMetadata, unused: set[str]) -> None:
        """Write what is left, and the metadata; unused columns stay: they take no room."""
        if self._n_rows:
            self._flush()
        self._writer.add_key_value_metadata({_METADATA: msgspec.json.encode(metadata)})
        self._writer.close()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
