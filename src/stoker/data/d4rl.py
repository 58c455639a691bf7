"""D4RL's HDF5 files (Fu et al. 2020): one array for each column, all episodes behind each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stoker.data.hdf5 import Hdf5File
from stoker.data.tables import Layout, common_length, rows_at_once
from stoker.errors import InvalidDataset

_COLUMNS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")


class D4rlTable:
    """The arrays of a file as columns; those below ``infos`` and ``metadata`` are left out.

    Args:
        path: of the file.
        source: its name in errors.

    Raises:
        InvalidDataset: An array is not of numbers in this file, or is of another length than the others.
    """

    format = "d4rl"
    metadata = None

    def __init__(self, path: Path, source: str) -> None:
        self.source = source
        self._path = path
        with Hdf5File.opened(path, source) as file:
            there = [name for name in _COLUMNS if file.has(file.root, name)]
            arrays = {name: file.array(file.root, name) for name in there}
            if not arrays:
                names = ", ".join(file.names_in(file.root)[:8])
                raise InvalidDataset(
                    source, f"it has none of D4RL's arrays, but {names}: give {_COLUMNS[0]}, ..."
                )
            self.n_rows: int = common_length({name: array.shape[0] for name, array in arrays.items()}, source)
            self.layouts: Mapping[str, Layout] = {
                name: Layout(array.dtype, array.shape[1:]) for name, array in arrays.items()
            }

    def blocks(self, names: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """These columns in order, some thousand rows at a time."""
        with Hdf5File.opened(self._path, self.source) as file:
            arrays = {name: file.array(file.root, name) for name in names}
            n_block = rows_at_once([self.layouts[name] for name in names])
            for start in range(0, self.n_rows, n_block):
                stop = min(start + n_block, self.n_rows)
                yield {name: file.read_rows(array, start, stop) for name, array in arrays.items()}
