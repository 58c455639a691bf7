"""Settings are msgspec structs whose types hold their limits; a value beyond them is a ``ConfigError``.

A struct calls ``check_settings`` in its ``__post_init__``, so that it is whole however it is made: msgspec
alone checks what it decodes, not what a constructor is given.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from stoker.errors import ConfigError

__all__ = ["check_settings", "read_toml", "refuse_unknown", "settings_from", "underscored"]

T = TypeVar("T", bound=msgspec.Struct)

_field_types = cache(get_type_hints)


def check_settings(settings: msgspec.Struct) -> None:
    """Check each field against its type.

    Raises:
        ConfigError: A value is of a wrong type or out of range; the message names it.
    """
    for name, kind in _field_types(type(settings), include_extras=True).items():
        value = getattr(settings, name)
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{name}={value!r}: {_expected(error, kind, value)}") from None


def settings_from(values: Mapping[str, Any], kind: type[T], where: str) -> T:
    """Make settings from plain values.

    Args:
        values: by the names of the fields.
        kind: the type of the settings.
        where: what messages call the place of the values.

    Raises:
        ConfigError: A value is of a wrong type or out of range; the message names it.
    """
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        found = re.fullmatch(r"(.*) - at `\$\.([\w.]+).*`", str(error))
        if found is None:  # a message of the struct's own
            raise ConfigError(f"{where}: {error}") from error
        said, names = found[1], found[2].split(".")
        value: Any = values
        for name in names:
            value = value[name]
        raise ConfigError(f"{where}: {names[-1]}={value!r}: {said}") from error


def refuse_unknown(
    values: Mapping[str, Any],
    known: Collection[str],
    where: str,
    way_out: str = "",
    near: Collection[str] | None = None,
) -> None:
    """Refuse keys that name no setting.

    Args:
        values: settings by name.
        known: the names that there are.
        where: what messages call the place of the values.
        way_out: what to do about a key that is like none.
        near: the names that a misspelt key may have meant; None: those known.

    Raises:
        ConfigError: The message names the key, and the setting that it may have meant.
    """
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, near or known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else way_out
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")


def read_toml(path: Path, where: str = "") -> dict[str, Any]:
    """A TOML file as plain values.

    Args:
        path: the file.
        where: what errors call it, before its path.

    Raises:
        ConfigError: It is missing or not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{where}{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}{path}: not TOML: {error}") from error


def underscored(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with underscores for the dashes in their names."""
    return {key.replace("-", "_"): value for key, value in values.items()}


def _expected(error: msgspec.ValidationError, kind: Any, value: Any) -> str:
    if get_origin(kind) is Literal:
        return f"choose one of {', '.join(map(str, get_args(kind)))}"
    if value != value:
        return "it is not a number"
    said = str(error).partition(" - at ")[0].replace("null", "None")
    return f"{said}, or None" if type(None) in get_args(kind) and "None" not in said else said
