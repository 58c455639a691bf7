"""Which directories are runs, in which order they stand, and what their metadata says. Reads only."""

from __future__ import annotations

from pathlib import Path

import stoker.runs.naming as naming
from stoker.errors import RunDirectoryError
from stoker.runs.documents import read_json
from stoker.runs.metadata import RunMetadata
from stoker.writer import files

__all__ = ["FORKING", "METADATA", "is_run", "read_metadata", "runs_below"]

METADATA = "metadata.json"

_WAY_OUT = "put a whole copy of it back; the checkpoints beside it can be read with torch.load"

FORKING = ".forking"
"""A file with this name stands in a directory that is about to become a run."""


def is_run(directory: Path) -> bool:
    """Whether the directory is a run, whole or broken, by the files that it holds."""
    names = files.files_in(directory)
    return METADATA in names or (
        FORKING not in names and naming.CHECKPOINTS in files.directories_in(directory)
    )


def runs_below(path: Path, levels: int = 3) -> list[Path]:
    """The runs of a version, of a name or of a whole runs directory, ordered naturally at each level."""
    found: list[Path] = []
    for name in sorted(files.directories_in(path), key=naming.natural_key):
        if _may_be_run(path / name):
            found.append(path / name)
        elif levels > 1:
            found += runs_below(path / name, levels - 1)
    return found


def _may_be_run(directory: Path) -> bool:
    """Whether it is a run, or cannot be looked into, which reading its metadata then reports."""
    try:
        return is_run(directory)
    except RunDirectoryError:
        return True


def read_metadata(directory: Path) -> RunMetadata:
    """What the run says of itself.

    Raises:
        RunBroken: It cannot be read.
    """
    return read_json(directory / METADATA, RunMetadata, _WAY_OUT)
