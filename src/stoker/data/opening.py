"""Open a data set, whatever its format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from stoker.data.dataset import Dataset, Ends
from stoker.data.reading import blamed
from stoker.data.tables import Table, TableDataset
from stoker.errors import ConfigError, InvalidDataset
from stoker.runs.layout import is_run, runs_below
from stoker.types import AnyPath


def open_dataset(source: AnyPath, *, ends: Ends | None = None, check: bool = True) -> Dataset:
    """Open a data set to read its episodes. Blocks; the data themselves are read by ``episodes()``.

    Nothing in it is unpickled, and no other file is read that it names.

    Args:
        source: ``minari:DIR`` or a directory with ``data/main_data.hdf5``; ``*.hdf5`` or ``*.h5`` in D4RL's
            layout; ``*.parquet``, or a directory of such; ``*.npz``; for the journal of a run, its directory
            or that of its version or name, or ``run:DIR``.
        ends: for a data set that does not tell terminated from truncated: what the ends of its episodes are.
        check: whether reading also checks that all values are finite and inside of the spaces.

    Raises:
        InvalidDataset: It is missing, damaged, or of no known format; or its ends are unknown and ``ends`` is
            not given; or they are known and ``ends`` is.
        RunNotFound, RunBroken, JournalBroken: As for ``JournalDataset``.
        MissingDependency: The extra that reads this format is not installed.
    """
    if ends is not None and ends not in get_args(Ends):
        raise ConfigError(f"ends={ends!r}: give {' or '.join(get_args(Ends))}")
    name = os.fspath(source)
    path = Path(name.removeprefix("minari:"))
    is_minari = name.startswith("minari:") or (path / "data" / "main_data.hdf5").exists()
    if name.startswith("run:") or (not is_minari and (is_run(path) or runs_below(path))):
        from stoker.data.journaled import JournalDataset

        if ends is not None:
            raise ConfigError(f"ends={ends!r}: a journal tells how episodes end: leave it out (--ends)")
        return JournalDataset(name)
    with blamed(name):
        if not path.exists():
            raise InvalidDataset(name, "there is no such file or directory: give the path of a data set")
        if is_minari:
            from stoker.data.minari_reading import MinariDataset

            if ends is not None:
                raise InvalidDataset(
                    name, f"ends={ends!r}: Minari tells how episodes end: leave it out (--ends)"
                )
            return MinariDataset(path, name, check=check)
        return TableDataset(_table(path, name), ends=ends, check=check)


def _table(path: Path, name: str) -> Table:
    if path.suffix == ".npz":
        from stoker.data.npz_files import NpzTable

        return NpzTable(path, name)
    if path.suffix in (".hdf5", ".h5"):
        from stoker.data.d4rl import D4rlTable

        return D4rlTable(path, name)
    if path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet"))):
        from stoker.data.parquet_files import ParquetTable

        return ParquetTable(path, name)
    raise InvalidDataset(
        name,
        "it is no data set: give a directory in Minari's layout, *.hdf5 or *.h5 in D4RL's, *.parquet or a "
        "directory of such, or *.npz",
    )
