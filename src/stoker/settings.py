"""Settings are msgspec structs whose types hold their limits; a value beyond them is a ``ConfigError``.

    class CacheSettings(Settings, frozen=True, kw_only=True):
        capacity: Count = 1024
        decay: Fraction | None = None

    CacheSettings(capacity=0)      # ConfigError: capacity=0: give an int of at least 1

The types are checked however the settings are made: from Python, from plain values, with ``replace``. A class
adds what its types cannot say, for example a limit that depends on another field, in its own
``__post_init__``, after ``super().__post_init__()``.
"""

from __future__ import annotations

import difflib
import sys
import tomllib
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar, cast, get_type_hints

import msgspec
from msgspec import Meta, inspect

from stoker.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)

_MAX = sys.float_info.max

Count: TypeAlias = Annotated[int, Meta(ge=1)]
Natural: TypeAlias = Annotated[int, Meta(ge=0)]
Port: TypeAlias = Annotated[int, Meta(ge=0, le=65535)]
Finite: TypeAlias = Annotated[float, Meta(ge=-_MAX, le=_MAX)]
NonNegative: TypeAlias = Annotated[float, Meta(ge=0, le=_MAX)]
Positive: TypeAlias = Annotated[float, Meta(gt=0, le=_MAX)]
Fraction: TypeAlias = Annotated[float, Meta(ge=0, le=1)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of settings: immutable, and within the limits of their types.

    Raises:
        ConfigError: A value is of a wrong type or out of range; the message names it and what is allowed.
    """

    def __post_init__(self) -> None:
        check_settings(self)


def check_settings(settings: msgspec.Struct) -> None:
    """Check each field against its type, and convert it, for example a list to a tuple.

    Raises:
        ConfigError: A value is of a wrong type or out of range; the message names it and what is allowed.
    """
    for name, kind in _field_types(type(settings)).items():
        value = getattr(settings, name)
        checked = _checked(name, value, kind)
        if checked is not value:
            msgspec.structs.force_setattr(settings, name, checked)


def settings_from(values: Mapping[str, Any], kind: type[T], where: str) -> T:
    """Make settings from plain values, for example those of a file.

    Args:
        values: by the names of the fields; dashes may stand for underscores, tables for nested settings.
        kind: the type of the settings.
        where: the place of the values, for messages.

    Raises:
        ConfigError: A name is unknown, or a value of a wrong type or out of range; the message names it.
    """
    types = _field_types(kind)
    given = {name.replace("-", "_"): value for name, value in values.items()}
    refuse_unknown(given, types, where)
    for name, value in given.items():
        inner = types[name]
        if isinstance(value, Mapping) and isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            given[name] = settings_from(cast("Mapping[str, Any]", value), inner, f"{where}: {name}")
    try:
        return kind(**{name: _checked(name, value, types[name]) for name, value in given.items()})
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def refuse_unknown(
    names: Iterable[str], known: Collection[str], where: str, way_out: str = "", near: Collection[str] = ()
) -> None:
    """Refuse names of no setting.

    Args:
        names: what was given.
        known: the names of the settings.
        where: the place of the names, for messages.
        way_out: what to do about a name that resembles none; "": the message lists the known ones.
        near: further names that a misspelled one may have meant.

    Raises:
        ConfigError: The message names the setting that was meant, if one is close.
    """
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, *near], n=1)
            hint = f"did you mean {close[0]!r}?" if close else way_out or f"known are {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {name!r}; {hint}")


def read_toml(path: Path, where: str = "") -> dict[str, Any]:
    """A TOML file as plain values: ``"none"`` is None, which TOML lacks, and dashes are underscores.

    Args:
        path: the file.
        where: what errors put before its path.

    Raises:
        ConfigError: The file cannot be read or is not TOML.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # some editors write a byte order mark
        return _plain(tomllib.loads(text))
    except OSError as error:
        raise ConfigError(f"{where}{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}{path}: not TOML: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        values = cast("Mapping[str, Any]", value)
        return {name.replace("-", "_"): _plain(inner) for name, inner in values.items()}
    if isinstance(value, list):
        return list(map(_plain, cast("list[Any]", value)))
    return None if isinstance(value, str) and value.lower() == "none" else value


@cache
def _field_types(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _checked(name: str, value: Any, kind: Any) -> Any:
    # Of float's subclasses, such as numpy's float64, msgspec takes none.
    plain = float(value) if isinstance(value, float) else value
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}={value!r}: give {allowed(inspect.type_info(kind)) or error}") from None


def allowed(info: inspect.Type) -> str:
    """What values of a setting's type are, in words; "" for a type that settings do not have."""
    match info:
        case inspect.UnionType():
            return ", or ".join(map(allowed, info.types))
        case inspect.LiteralType():
            return " or ".join(map(repr, info.values))
        case inspect.IntType():
            return f"an int{_range(info)}"
        case inspect.FloatType():
            return f"a {'finite ' if _MAX in (info.ge, info.le) else ''}number{_range(info)}"
        case inspect.VarTupleType() | inspect.ListType():
            return f"a list, each item {allowed(info.item_type)}"
        case _:
            return _WORDS.get(type(info), "")


_WORDS: dict[type[inspect.Type], str] = {
    inspect.BoolType: "True or False",
    inspect.DictType: "a table of names and values",
    inspect.NoneType: "None",
    inspect.StrType: "a text",
    inspect.StructType: "a table of settings",
}


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    limits = (("above", info.gt), ("of at least", info.ge), ("below", info.lt), ("of at most", info.le))
    words = [f"{word} {limit:g}" for word, limit in limits if limit is not None and abs(limit) != _MAX]
    return f" {' and '.join(words)}" if words else ""
