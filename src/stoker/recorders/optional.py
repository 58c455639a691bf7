"""Packages that only some recorders need.

Whether one is there is said at once, where the recorder is made; it is imported when the recorder opens, in
the recorder's own thread, because some of them take seconds.
"""

from __future__ import annotations

import threading
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from stoker.errors import MissingDependency

__all__ = ["imported", "require"]

# Recorders open side by side, and these packages share many others: Python lets a thread see a module half
# imported rather than have two threads wait for each other.
_importing = threading.Lock()


def require(package: str, extra: str) -> None:
    """Raise unless the package is installed.

    Raises:
        MissingDependency: It is not; the message names the extra.
    """
    if find_spec(package) is None:
        raise MissingDependency(package, extra)


def imported(module: str) -> Any:
    """Import the module; one thread at a time."""
    with _importing:
        return import_module(module)
