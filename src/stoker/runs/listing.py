"""All the runs of a runs directory."""

from __future__ import annotations

from pathlib import Path

from anyio import to_thread

from stoker.errors import RunDirectoryError, RunNotFound
from stoker.runs.locating import read_metadata, runs_below
from stoker.runs.run import TrainingRun
from stoker.types import AnyPath

__all__ = ["list_runs"]


async def list_runs(root: AnyPath = "runs") -> list[TrainingRun | RunDirectoryError]:
    """Every run below a directory, ordered naturally; a broken one as the error that says why.

    Raises:
        RunNotFound: There is no such directory.
    """
    return await to_thread.run_sync(_list, Path(root))


def _list(root: Path) -> list[TrainingRun | RunDirectoryError]:
    if not root.is_dir():
        raise RunNotFound(root, "no such runs directory")
    found: list[TrainingRun | RunDirectoryError] = []
    for directory in runs_below(root):
        try:
            found.append(TrainingRun(directory, read_metadata(directory)))
        except RunDirectoryError as error:
            found.append(error)
    return found
