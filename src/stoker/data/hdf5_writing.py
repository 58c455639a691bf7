"""Write HDF5 files of plain arrays in one pass, without the HDF5 library.

The library takes some 50 µs for each array, however small, and crashes the process when the disk is full: it
writes at any time, also when its objects are freed. Here a refused write is an ``OSError`` of that write.

The form is that of the library's own default, which its versions since 1.8 read and extend: superblock
0, object headers of version 1, contiguous arrays. The members of the root are in a B-tree, as there may be
millions; those of other groups, in their headers. Numbers in names of sections refer to the HDF5 File Format
Specification, version 3.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stoker.data.hdf5 import h5py_modules

__all__ = ["Hdf5Writer"]

_UNDEFINED = -1
_BUFFER_BYTES = 1 << 20
_SUPERBLOCK_BYTES = 96
_LEAF_K, _NODE_K = 32, 32
"""Half of the entries of a leaf, and of the children of a node, of the root's B-tree."""
_DATASPACE, _LINK_INFO, _DATATYPE, _FILL_VALUE, _LINK, _LAYOUT, _GROUP_INFO, _ATTRIBUTE, _SYMBOL_TABLE = (
    0x1, 0x2, 0x3, 0x5, 0x6, 0x8, 0xA, 0xC, 0x11,
)  # fmt: skip


class Hdf5Writer:
    """A new HDF5 file, which is whole when ``finish`` has returned.

    Args:
        path: of the file.

    Raises:
        MissingDependency: h5py is not installed, which names the types of elements.
        OSError: The system refused to write; so for all methods.
    """

    def __init__(self, path: Path) -> None:
        self._h5t = h5py_modules().h5t
        self._arrays: dict[tuple[np.dtype[Any], int], _Header] = {}
        self._groups: dict[tuple[tuple[str, ...], ...], _Header] = {}
        self._file = path.open("wb", buffering=_BUFFER_BYTES)
        self._at = 0
        self._write(bytes(_SUPERBLOCK_BYTES))

    def array(self, array: NDArray[Any]) -> int:
        """Write an array; returns its address, to be the member of a group."""
        array = np.ascontiguousarray(array)
        header = self._arrays.get((array.dtype, array.ndim))
        if header is None:
            header = _array_header(self._type(array.dtype), array.ndim)
            self._arrays[array.dtype, array.ndim] = header
        n_bytes = array.nbytes
        data = self._write(array.data) if n_bytes else _UNDEFINED
        return self._write(header.filled(*array.shape, data, n_bytes))

    def group(self, members: Mapping[str, int], attributes: Mapping[str, int]) -> int:
        """Write a group; returns its address.

        Args:
            members: addresses by name.
            attributes: int64 numbers by name.
        """
        key = tuple(members), tuple(attributes)
        header = self._groups.get(key)
        if header is None:
            header = self._groups[key] = _group_header(*key, self._type(np.dtype(np.int64)))
        return self._write(header.filled(*members.values(), *attributes.values()))

    def finish(self, names: Iterable[str], addresses: Sequence[int]) -> None:
        """Write the root, of these members, and the end of the file."""
        heap, entries = bytearray(8), list[tuple[bytes, int, int]]()
        for name, address in zip(names, addresses, strict=True):
            key = name.encode()
            entries.append((key, len(heap), address))
            heap += _padded(key + b"\0")
        entries.sort()
        segment = self._write(heap)
        heap_at = self._write(struct.pack("<4s4xQQQ", b"HEAP", len(heap), 1, segment))  # III.D
        tree = self._tree(entries)
        table = struct.pack("<QQ", tree, heap_at)
        root = self._write(_Header([(_SYMBOL_TABLE, [table])]).filled())
        superblock = struct.pack(  # II.A
            "<8s8BHHIqqqqQQII16s",
            *(b"\x89HDF\r\n\x1a\n", 0, 0, 0, 0, 0, 8, 8, 0, _LEAF_K, _NODE_K, 0),
            *(0, _UNDEFINED, self._at, _UNDEFINED, 0, root, 1, 0, table),
        )
        self._file.seek(0)
        self._file.write(superblock)
        self._file.flush()

    def _tree(self, entries: Sequence[tuple[bytes, int, int]]) -> int:
        """The root's members by name, III.A.1 and III.B; returns the address."""
        children: list[tuple[int, int]] = []  # the address of each and the last name in it
        for leaf in _parts(entries, 2 * _LEAF_K):
            rows = b"".join(struct.pack("<QQ24x", name, address) for _, name, address in leaf)
            node = struct.pack("<4sBxH", b"SNOD", 1, len(leaf)) + rows.ljust(80 * _LEAF_K, b"\0")
            children.append((self._write(node), leaf[-1][1] if leaf else 0))
        level, n_bytes = 0, 32 + 32 * _NODE_K
        while True:
            nodes = _parts(children, 2 * _NODE_K)
            above: list[tuple[int, int]] = []
            for place, node in enumerate(nodes):
                left = self._at - n_bytes if place else _UNDEFINED
                right = self._at + n_bytes if place < len(nodes) - 1 else _UNDEFINED
                head = struct.pack("<4sBBHqq", b"TREE", 0, level, len(node), left, right)
                first = above[-1][1] if above else 0
                rows = b"".join(struct.pack("<QQ", address, last) for address, last in node)
                data = head + struct.pack("<Q", first) + rows
                above.append((self._write(data.ljust(n_bytes, b"\0")), node[-1][1]))
            if len(above) == 1:
                return above[0][0]
            children, level = above, level + 1

    def _type(self, dtype: np.dtype[Any]) -> bytes:
        """A type of elements, IV.A.2.d."""
        return self._h5t.py_create(dtype, logical=True).encode()[2:]

    def _write(self, data: Any) -> int:
        """Add bytes; returns where they are."""
        at, n_bytes = self._at, len(data) if isinstance(data, bytes | bytearray) else data.nbytes
        self._file.write(data)
        if rest := -n_bytes % 8:
            self._file.write(bytes(rest))
        self._at = at + n_bytes + rest
        return at

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class _Header:
    """An object header, IV.A.1.a, with places for numbers.

    Args:
        messages: the type and the parts of each; None: a place of eight bytes.
    """

    def __init__(self, messages: Sequence[tuple[int, Sequence[bytes | None]]]) -> None:
        n_bytes, pieces = 0, [b""]
        for kind, parts in messages:
            size = sum(8 if part is None else len(part) for part in parts)
            rest = -size % 8
            n_bytes += 8 + size + rest
            pieces[-1] += struct.pack("<HH4x", kind, size + rest)
            for part in parts:
                if part is None:
                    pieces.append(b"")
                else:
                    pieces[-1] += part
            pieces[-1] += bytes(rest)
        pieces[0] = struct.pack("<BxHII4x", 1, len(messages), 1, n_bytes) + pieces[0]
        self._values: list[Any] = [b""] * (2 * len(pieces) - 1)
        self._values[::2] = pieces
        self._form = struct.Struct("<" + "q".join(f"{len(piece)}s" for piece in pieces))

    def filled(self, *numbers: int) -> bytes:
        """The header with these numbers in its places."""
        self._values[1::2] = numbers
        return self._form.pack(*self._values)


def _array_header(element: bytes, rank: int) -> _Header:
    """Of an array; its places are the lengths of its axes, and the address and the size of its data."""
    return _Header(
        [
            (_DATASPACE, [struct.pack("<BB6x", 1, rank), *[None] * rank]),
            (_DATATYPE, [element]),
            (_FILL_VALUE, [bytes((2, 2, 1, 0))]),  # storage comes late, is never filled, and has no value
            (_LAYOUT, [bytes((3, 1)), None, None]),
        ]
    )


def _group_header(names: Sequence[str], attributes: Sequence[str], int64: bytes) -> _Header:
    """Of a group; its places are the addresses of its members and the values of its attributes."""
    messages: list[tuple[int, Sequence[bytes | None]]] = [
        (_LINK_INFO, [struct.pack("<BBqq", 0, 0, _UNDEFINED, _UNDEFINED)]),
        (_GROUP_INFO, [bytes(2)]),
    ]
    for name in names:
        key = name.encode()
        messages.append((_LINK, [struct.pack("<BBBH", 1, 0x11, 1, len(key)) + key, None]))
    scalar = bytes((1, 0, 0, 0, 0, 0, 0, 0))
    for name in attributes:
        key = name.encode() + b"\0"
        sizes = struct.pack("<BxHHH", 1, len(key), len(int64), len(scalar))
        messages.append((_ATTRIBUTE, [sizes + _padded(key) + _padded(int64) + scalar, None]))
    return _Header(messages)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def _parts(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """The items, so many at a time; none: one part without any."""
    return [items[start : start + size] for start in range(0, max(1, len(items)), size)]
