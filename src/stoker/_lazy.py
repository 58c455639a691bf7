"""Packages that export names without importing their modules (PEP 562).

Reading a config or printing help must not wait for torch. A package imports its names under
``TYPE_CHECKING``, for readers and type checkers, and lists them in a table; the first use of a name imports
its module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_exports"]


def lazy_exports(
    package: str, table: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__``, which import a name's module at its first use.

    Assign them where type checkers do not look, or they would accept any misspelled name::

        if TYPE_CHECKING:
            from stoker.agents.dqn.agent import DQN
        else:
            __getattr__, __dir__ = lazy_exports(__name__, {"stoker.agents.dqn.agent": "DQN"})

    Args:
        package: the package's ``__name__``.
        table: each module and its exported names, separated by spaces.
    """
    homes = {name: module for module, names in table.items() for name in names.split()}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)  # the next use does not come here
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return load, names
