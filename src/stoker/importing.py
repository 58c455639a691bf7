"""Import what a config names, as ``module`` or ``module:name``, with one-line errors."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from operator import attrgetter
from types import ModuleType
from typing import Any

from stoker.errors import ConfigError, MissingDependency


def split_name(name: str, what: str) -> tuple[str, str]:
    """Split ``"module:name"``; the name may contain dots.

    Args:
        name: module and name, separated by a colon.
        what: the setting that holds it, for the message.

    Raises:
        ConfigError: The module or the name is missing.
    """
    module, _, attribute = name.rpartition(":")
    if not module or module.startswith(".") or not attribute:
        raise ConfigError(f"{what}={name!r} does not name a module and something in it: write 'module:name'")
    return module, attribute


def import_named(module: str, what: str) -> ModuleType:
    """Import a module.

    Args:
        module: the full name of the module.
        what: the setting that needs it, for example ``"env='shop:Queue-v0'"``, for the message.

    Raises:
        ConfigError: There is no such module, or importing it fails.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # the module may raise anything
        text = " ".join(str(error).split())
        is_missing = isinstance(error, ModuleNotFoundError) and module.partition(".")[0] == error.name
        way_out = (
            "run this in the directory that holds it, set PYTHONPATH to that, or install its package"
            if is_missing
            else "import it in Python to see where this happens"
        )
        raise ConfigError(
            f"{what}: the module {module!r} cannot be imported ({type(error).__name__}: {text}); {way_out}"
        ) from error


def required(module: str, extra: str, package: str = "") -> Any:
    """A module of an optional package.

    Args:
        module: its full name.
        extra: of stoker's, that installs the package.
        package: what it is called where it is installed from; "": as the module.

    Raises:
        MissingDependency: It is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(package or module, extra) from error


def imported_callable(name: str, what: str) -> Callable[..., Any]:
    """Import the callable that ``"module:name"`` names: a class or a function.

    Args:
        name: the module and, after a colon, the name in it.
        what: the setting that holds it, for messages.

    Raises:
        ConfigError: There is no such module or name, or what it names cannot be called.
    """
    module_name, attribute = split_name(name, what)
    module = import_named(module_name, f"{what}={name!r}")
    try:
        found = attrgetter(attribute)(module)
    except AttributeError:
        close = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ": define it there"
        raise ConfigError(f"{what}={name!r}: the module {module_name!r} has no {attribute!r}{hint}") from None
    if not callable(found):
        raise ConfigError(f"{what}={name!r} is a {type(found).__name__}: name a class or a function")
    return found


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The arguments that a function or class takes; any, if they are unknown, as for some written in C."""
    try:
        return inspect.signature(function)
    except ValueError:
        return inspect.signature(lambda *_, **__: None)
