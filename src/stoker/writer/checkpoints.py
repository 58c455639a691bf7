"""Checkpoints as bytes: staged where the state lives, encoded and published where the disk is.

``stage`` runs in the learner's thread, between two updates, and costs one copy. Everything after it works
on that copy, so that learning goes on while the file is written. Files load with
``torch.load(weights_only=True)``: nothing from a checkpoint is ever unpickled into arbitrary objects.
torch is imported late, so that a run's rows and metadata can be read without it.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from stoker.errors import CheckpointCorrupt, CheckpointNotFound, InvalidAgentState
from stoker.writer import files

__all__ = ["load_checkpoint", "publish_checkpoint", "stage"]


def stage(state: Any, where: str = "state") -> Any:
    """Copy a state to memory of its own: tensors to the CPU, containers to plain ones.

    Raises:
        InvalidAgentState: It holds something that a checkpoint cannot, named by its path in the state.
    """
    import torch

    match state:
        case torch.Tensor():
            # clone, not .cpu(): a CPU tensor must be copied too, and a view must not carry its whole storage
            return state.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        case None | bool() | int() | float() | str() | bytes() if type(state) in _PLAIN:
            return state
        case Mapping():
            items = cast("Mapping[Any, Any]", state).items()
            return {stage(key, f"{where} (key)"): stage(value, f"{where}[{key!r}]") for key, value in items}
        case tuple():
            return tuple(
                stage(value, f"{where}[{i}]") for i, value in enumerate(cast("tuple[Any, ...]", state))
            )
        case list():
            return [stage(value, f"{where}[{i}]") for i, value in enumerate(cast("list[Any]", state))]
        case _:
            raise InvalidAgentState(where, state)


_PLAIN = (type(None), bool, int, float, str, bytes)


def publish_checkpoint(staged: Mapping[str, Any], path: Path) -> None:
    """Write a staged state under its final name, whole and durable, replacing what was there.

    Raises:
        WriteFailed: The disk refused; what was there before still is.
    """
    import torch

    files.write_atomically(path, lambda file: torch.save(staged, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint into CPU memory.

    Raises:
        CheckpointNotFound: There is no such file.
        CheckpointCorrupt: It is not a whole checkpoint.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointNotFound(f"{path}: no such checkpoint") from error
    except (PermissionError, MemoryError):
        raise  # says nothing of the file
    except OSError as error:
        if error.errno not in (None, errno.EINVAL, errno.EIO, errno.EISDIR):
            raise  # too many open files, say
        raise CheckpointCorrupt(path, str(error)) from error
    except Exception as error:  # on a damaged file torch's reader raises all kinds
        reason = str(error).partition("\n")[0]
        raise CheckpointCorrupt(path, f"{type(error).__name__}: {reason}") from error
    if not isinstance(state, dict):
        raise CheckpointCorrupt(path, f"it holds a {type(state).__name__}, not a dict")
    return cast("dict[str, Any]", state)
