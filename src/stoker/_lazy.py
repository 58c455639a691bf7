"""Packages that export names without importing their modules (PEP 562).

Reading a config or printing help must not wait for torch. A package imports its names under
``TYPE_CHECKING``, where readers and type checkers find them; at run time the first use of a name imports its
module.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_exports(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """A package's ``__getattr__``, ``__dir__`` and ``__all__``, from the imports in its own source.

    Assign them where type checkers do not look, or they would accept any misspelled name::

        if TYPE_CHECKING:
            from stoker.agents.dqn.agent import DQN as DQN  # the alias marks what is exported
        else:
            __getattr__, __dir__, __all__ = lazy_exports(__name__)

    Args:
        package: the package's ``__name__``.
    """
    module = sys.modules[package]
    with open(str(module.__file__), encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes 4 ms to import
        source = file.read()
    homes: dict[str, str] = {}
    home = ""
    for origin, alias in re.findall(r"from (\S+) import|(\w+) as \2\b", source):
        home = origin or home
        if alias:
            homes[alias] = home

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        value = getattr(import_module(homes[name]), name)
        setattr(module, name, value)  # the next use does not come here
        return value

    def names() -> list[str]:
        return sorted({*vars(module), *homes})

    return load, names, sorted(homes)
