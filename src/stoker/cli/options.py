"""Flags of the command line: the fields of a struct, with the docstrings below them as their help.

``--help`` imports this module, so it imports little.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import re
import textwrap
from functools import cache
from itertools import pairwise, takewhile
from typing import Any, cast, get_args

import msgspec
from msgspec import NODEFAULT, inspect as types

from stoker.errors import ConfigError
from stoker.settings import allowed

_JSON_WORDS = {"True": "true", "False": "false", "None": "null", "none": "null"}
"""Python's spellings of JSON's words; as text they would all be true."""

_METAVARS: dict[type[types.Type], str] = {
    types.IntType: "INT",
    types.FloatType: "FLOAT",
    types.NoneType: "none",
    types.DictType: "NAME=VALUE",
}


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line adds to a field, in its ``Annotated``.

    Attributes:
        name: its name; "": that of the field, with dashes.
        short: a second name.
        metavar: the form of the value in the help; "": that of the type.
        default: what holds if it is left out, for the help; "": the field's default.
        missing: what to name if it is left out, for the message; "": it may be left out.
        is_positional: it is given without a name.
        repeats: each occurrence takes one value and adds it.
    """

    name: str = ""
    short: str = ""
    metavar: str = ""
    default: str = ""
    missing: str = ""
    is_positional: bool = False
    repeats: bool = False


class Option(msgspec.Struct, frozen=True):
    """A field of a struct as the command line takes it.

    Attributes:
        field: its name in the struct.
        names: its names on the command line; none if it is positional.
        flag: what it is annotated with.
        metavar: the form of its value.
        kind: its type.
        info: its type, as msgspec describes it.
        default: its default, or ``NODEFAULT``.
        owner: the struct.
    """

    field: str
    names: list[str]
    flag: Flag
    metavar: str
    kind: Any
    info: types.Type
    default: Any
    owner: type[msgspec.Struct]

    @property
    def help(self) -> str:
        """What it means: the docstring below the field. Reads the source, which takes a while."""
        return _docstrings(self.owner)[self.field]

    @property
    def adds(self) -> bool:
        """Whether its values add up when it is given several times."""
        return self.flag.repeats or isinstance(self.info, types.DictType)

    def take(self, name: str, words: list[str]) -> list[str]:
        """Remove the words of the value from the beginning of those behind its name."""
        if isinstance(self.info, types.BoolType):
            return []
        is_dict = isinstance(self.info, types.DictType)
        is_list = isinstance(self.info, types.VarTupleType) and not self.flag.repeats
        following = words if is_dict or is_list else words[:1]
        taken = list(takewhile(lambda word: not is_flag(word) and (not is_dict or "=" in word), following))
        del words[: len(taken)]
        if not taken and not is_list:
            after = f", not {words[0]!r}" if words else ""
            raise ConfigError(f"{name}: give {self.metavar} behind it{after}")
        return taken

    def value(self, name: str, words: list[str]) -> Any:
        """The value that the words behind a name mean."""
        match self.info:
            case types.BoolType():
                if words:
                    raise ConfigError(f"{name}={words[0]}: {name} takes no value")
                return not name.startswith("--no-")
            case types.DictType():
                return dict(_assignment(name, word) for word in words)
            case types.VarTupleType(item_type=types.StructType()):
                return words  # each names a struct, for the config to make
            case types.VarTupleType(item_type=item):
                value: Any = [_plain(word, item) for word in words]
            case info:
                value = _plain(words[-1], info)
        try:
            return msgspec.convert(value, self.kind)
        except msgspec.ValidationError:
            raise ConfigError(f"{name} {' '.join(words)}: give {allowed(self.info)}") from None


def options_of(kind: type[msgspec.Struct], **flags: Flag) -> list[Option]:
    """The options that a struct's fields are.

    Args:
        kind: the struct.
        flags: by field, for fields that are not annotated with theirs.
    """
    options: list[Option] = []
    for field in msgspec.structs.fields(kind):
        noted = next((note for note in get_args(field.type) if isinstance(note, Flag)), Flag())
        flag = flags.get(field.name, noted)
        info = types.type_info(field.type)
        kinds = info.types if isinstance(info, types.UnionType) else (info,)
        if any(isinstance(each, types.AnyType | types.StructType) for each in kinds):
            continue  # no word can give it
        name = flag.name or field.name.replace("_", "-")
        names = [flag.short] * bool(flag.short) + [f"--{name}"]
        names += [f"--no-{name}"] * isinstance(info, types.BoolType)
        default = field.default if field.default_factory is NODEFAULT else field.default_factory()
        names = [] if flag.is_positional else names
        metavar = flag.metavar or _metavar(info)
        options.append(Option(field.name, names, flag, metavar, field.type, info, default, kind))
    return options


def is_flag(word: str) -> bool:
    """Whether a word names a flag; a negative number does not."""
    return re.match(r"--?[a-zA-Z]|--$", word) is not None and word not in ("-inf", "-nan")


def _assignment(name: str, word: str) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if not key or not equals:
        raise ConfigError(f"{name} {word}: write NAME=VALUE")
    value: Any = text
    with contextlib.suppress(json.JSONDecodeError):
        value = json.loads(_JSON_WORDS.get(text, text))
    return key.replace("-", "_"), value


def _plain(word: str, info: types.Type) -> Any:
    """A word as None or a number, where the type has these."""
    for member in info.types if isinstance(info, types.UnionType) else (info,):
        if isinstance(member, types.NoneType) and word.lower() == "none":
            return None
        if isinstance(member, types.IntType | types.FloatType):
            with contextlib.suppress(ValueError):
                return int(word) if isinstance(member, types.IntType) else float(word)
    return word


def _metavar(info: types.Type) -> str:
    match info:
        case types.UnionType(types=members):
            return "|".join(map(_metavar, members))
        case types.VarTupleType(item_type=item):
            return f"[{_metavar(item)} ...]"
        case types.LiteralType(values=values):
            return f"{{{','.join(map(str, values))}}}"
        case _:
            return _METAVARS.get(type(info), "STR")


@cache
def _docstrings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The docstrings below the fields of a struct and its bases, on one line each."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__[: kind.__mro__.index(msgspec.Struct)]):
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for field, docstring in pairwise(cast("ast.ClassDef", definition).body):
            if isinstance(field, ast.AnnAssign) and isinstance(docstring, ast.Expr):
                texts[ast.unparse(field.target)] = " ".join(ast.literal_eval(docstring.value).split())
    return texts
