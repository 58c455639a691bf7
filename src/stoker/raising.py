"""What user code raised, in one line that says where."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

OWN_CODE = f"{Path(__file__).parent}{os.sep}"
_LIBRARIES = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "purelib", "platlib"))


class RemoteFailure(Exception):
    """An exception of another process, as text; its traceback is a note."""


def described(error: BaseException) -> str:
    """An error in one line, with the line of the user's code that raised it, or called what raised it."""
    if isinstance(error, RemoteFailure):
        return str(error)
    if isinstance(error.__cause__, StopIteration):
        error = error.__cause__  # of a coroutine it becomes a RuntimeError (PEP 479)
    return f"{type(error).__name__}: {error}{_place_of(error)}"


def _place_of(error: BaseException) -> str:
    """`` (file:line)``; empty if stoker raised the error."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or frames[-1].filename.startswith(OWN_CODE):
        return ""
    others = (each for each in reversed(frames) if not each.filename.startswith((*_LIBRARIES, OWN_CODE)))
    frame = next(others, frames[-1])  # an installed environment may have no frame but a library's
    return f" ({frame.filename}:{frame.lineno})"
