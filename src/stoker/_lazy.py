"""Packages that hand names on without importing what is behind them (PEP 562).

Reading a config or printing help must not pay for torch. A package lists its names once for readers and
type checkers, under ``TYPE_CHECKING``, and once here as a table; the first use of a name imports its module.
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

    Assign them where type checkers do not look, or they would take any misspelt name for a real one::

        if TYPE_CHECKING:
            from stoker.agents.dqn.agent import DQN
        else:
            __getattr__, __dir__ = lazy_exports(__name__, {"DQN": "stoker.agents.dqn.agent"})

    Args:
        package: the package's ``__name__``.
        table: the name that is handed on -> the module that has it under the same name.
    """

    def load(name: str) -> Any:
        if name not in table:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        value = getattr(import_module(table[name]), name)
        setattr(sys.modules[package], name, value)  # from now on found without coming here
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *table})

    return load, names
