"""The checkpoint that a reader of a run asks for, also while the run is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

from stoker.errors import CheckpointNotFound, ConfigError, RunBroken, StokerError
from stoker.runs.run import TrainingRun
from stoker.writer import files, load_checkpoint

USABLE_BY: Final = "use the version of stoker and of the agent that wrote it, or train a new run"
_TRIES = 10


def load_wanted(run: TrainingRun, wanted: str | None) -> tuple[Path, dict[str, Any]]:
    """Find and load a checkpoint. Blocks.

    A run that is training removes old checkpoints, maybe just before one is read: then it tries again.

    Args:
        run: only read.
        wanted: ``best``, ``latest``, a step, or None: ``best``, else ``latest``.

    Raises:
        ConfigError: It is neither ``best``, ``latest`` nor a step.
        CheckpointNotFound: The run does not have it; the message lists its checkpoints.
        CheckpointCorrupt: It is damaged.
    """
    if wanted is not None and wanted not in ("best", "latest") and not wanted.isdecimal():
        raise ConfigError(f"checkpoint {wanted!r}: give best, latest or a step")
    for _ in range(_TRIES):
        named = {"best": run.best_checkpoint_path, "latest": run.latest_checkpoint_path}
        for name in named if wanted is None else (wanted,):
            path = named.get(name) or run.checkpoint_path(int(name))
            with contextlib.suppress(CheckpointNotFound):
                return path, load_checkpoint(path)
    there = files.files_in(run.checkpoints_directory)
    names = [name for name in ("best", "latest") if f"{name}.pt" in there]
    has = ", ".join([*names, *map(str, run.checkpoint_steps())]) or "none"
    which = "" if wanted is None else f" {wanted}"
    raise CheckpointNotFound(f"{run.directory} has no checkpoint{which}: it has {has}")


@contextlib.contextmanager
def content_of(path: Path | None) -> Generator[None]:
    """Name the checkpoint in the errors of a block that takes an agent out of it.

    Args:
        path: its file; None: the state is from memory, and errors stay as they are.

    Raises:
        ConfigError: The agent does not take it.
        RunBroken: It is not what this stoker or the agent saves.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        if path is None or (isinstance(error, StokerError) and not isinstance(error, ConfigError)):
            raise
        if isinstance(error, ConfigError):
            raise ConfigError(f"{path}: {error}") from error
        problem = f"{type(error).__name__}: {error}"
        raise RunBroken(path, f"its content cannot be restored here ({problem}); {USABLE_BY}") from error
