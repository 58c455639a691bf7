"""Parse a command line into a struct, and print the struct's fields as ``--help``.

The fields of a command's struct are its flags, and the docstrings below them are their help. Each mistake is
a ``ConfigError`` of one line that names the word. ``--help`` imports this module, so it imports little.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import inspect
import json
import re
import shutil
import textwrap
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise, takewhile
from typing import Annotated, Any, NoReturn, Self, TypeAlias, cast, get_args

import msgspec
from msgspec import NODEFAULT, inspect as types

from stoker.errors import ConfigError
from stoker.settings import allowed

__all__ = [
    "Command",
    "Flag",
    "Option",
    "RunCommand",
    "RunPath",
    "given_values",
    "leave_with_help",
    "options_of",
]

_JSON_WORDS = {"True": "true", "False": "false", "None": "null", "none": "null"}
"""Python's spellings of JSON's words; as text they would all be true."""

_METAVARS: dict[type[types.Type], str] = {
    types.IntType: "INT",
    types.FloatType: "FLOAT",
    types.NoneType: "none",
    types.DictType: "NAME=VALUE",
}
_LEFT = 26
"""Columns of the flags in ``--help``."""


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


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command: its fields are its flags, its docstring is its help, and calling it runs it.

    A call returns the exit code.
    """

    @classmethod
    def from_words(cls, name: str, words: Sequence[str]) -> Self:
        """Parse the words behind the command's name; for ``--help`` print the help and exit.

        Raises:
            ConfigError: An unknown flag, or a value that is missing or does not fit; the message names it.
        """
        options = options_of(cls)
        if {"-h", "--help"} & set(words):
            leave_with_help(name, cls, options)
        return cls(**given_values(name, options, words))

    @abstractmethod
    async def __call__(self) -> int: ...


RunPath: TypeAlias = Annotated[
    str, Flag(metavar="RUN", missing="a run, such as `stoker {command} runs/CartPole-v1`", is_positional=True)
]


class RunCommand(Command, frozen=True, kw_only=True):
    """A command about one run."""

    run: RunPath
    """The run's directory, or that of a version or name: then its newest run."""

    json: bool = False
    """Print one line of JSON instead of the report."""


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
        help: what it means.
    """

    field: str
    names: list[str]
    flag: Flag
    metavar: str
    kind: Any
    info: types.Type
    default: Any
    help: str

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
        taken = list(takewhile(lambda word: not _is_flag(word) and (not is_dict or "=" in word), following))
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
    texts = _docstrings(kind)
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
        options.append(Option(field.name, names, flag, metavar, field.type, info, default, texts[field.name]))
    return options


def given_values(command: str, options: Sequence[Option], args: Sequence[str]) -> dict[str, Any]:
    """The values that the words behind a command give, by field.

    Raises:
        ConfigError: As for ``Command.from_words``.
    """
    try:
        taken = _taken(command, options, args)
        return {
            option.field: option.value(*taken[option.field]) for option in options if option.field in taken
        }
    except ConfigError as error:
        raise ConfigError(f"{error} (see `stoker {command} --help`)") from None


def _taken(command: str, options: Sequence[Option], args: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """Assign the words: by field, the name that was given and the words of its value."""
    known = {name: option for option in options for name in option.names}
    taken: dict[str, tuple[str, list[str]]] = {}
    words = list(args)
    are_positional = False
    while words:
        word = words.pop(0)
        name, equals, text = word.partition("=")
        name = name.replace("_", "-")
        if are_positional or not _is_flag(word):
            places = (option for option in options if option.flag.is_positional)
            option = next((place for place in places if place.adds or place.field not in taken), None)
            if option is None:
                raise ConfigError(f"unexpected {word!r}")
            name, values = option.metavar, [word]
        elif word == "--":
            are_positional = True
            continue
        elif name not in known:
            close = [flag for flag in known if _abbreviates(name.strip("-"), flag)]
            close = close or difflib.get_close_matches(name, known, n=1)
            raise ConfigError(f"unknown flag {name}" + (f"; did you mean {close[0]}?" if close else ""))
        else:
            option = known[name]
            values = [text] if equals else option.take(name, words)
        before = taken[option.field][1] if option.adds and option.field in taken else []
        taken[option.field] = name, before + values
    for option in options:
        if option.flag.missing and option.field not in taken:
            flag = "".join(f"{flag}: " for flag in option.names[-1:])
            raise ConfigError(f"{flag}name {option.flag.missing.format(command=command)}")
    return taken


def _is_flag(word: str) -> bool:
    return re.match(r"--?[a-zA-Z]|--$", word) is not None and word not in ("-inf", "-nan")


def _abbreviates(short: str, flag: str) -> bool:
    """Whether the flag begins with these letters, or they are the initials of its words."""
    initials = "".join(word[:1] for word in flag[2:].split("-"))
    return flag.startswith(f"--{short}") or initials == short


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


# Help -------------------------------------------------------------------------------------------------


def leave_with_help(
    command: str, kind: type[msgspec.Struct], options: Sequence[Option], *used: Any
) -> NoReturn:
    """Print a command's help, and end the process as a success.

    Args:
        command: its name.
        kind: its struct, whose docstring describes it.
        options: what it takes.
        used: structs with the values that would be used; later ones win. None: the options' defaults.
    """
    structs = [each for each in used if isinstance(each, msgspec.Struct)]
    values = {name: value for each in structs for name, value in msgspec.structs.asdict(each).items()}
    print(_help_text(command, kind, options, values if used else None))
    raise SystemExit(0)


def _help_text(
    command: str,
    kind: type[msgspec.Struct],
    options: Sequence[Option],
    values: Mapping[str, Any] | None = None,
) -> str:
    """A command's help, as wide as the terminal.

    Args:
        command: its name.
        kind: its struct, whose docstring describes it.
        options: what it takes.
        values: those that would be used, by field; left out, the options' defaults.
    """
    width = max(40, min(shutil.get_terminal_size().columns, 100))
    places = "".join(f" {option.metavar}" for option in options if option.flag.is_positional)
    lines = [f"usage: stoker {command}{places} [--FLAG ...]", ""]
    for paragraph in (inspect.getdoc(kind) or "").split("\n\n"):
        lines += [*textwrap.wrap(paragraph, width), ""]
    for option in options:
        takes_value = not isinstance(option.info, types.BoolType)
        head = "  " + " ".join(filter(None, [", ".join(option.names), option.metavar * takes_value]))
        default = _default(option, option.default if values is None else values[option.field])
        if len(head) > _LEFT - 2:
            lines.append(head)
            head = ""
        text, indent = f"{option.help} ({default})", " " * _LEFT
        lines += textwrap.wrap(text, width, initial_indent=f"{head:<{_LEFT}}", subsequent_indent=indent)
    return "\n".join([*lines, f"{'  -h, --help':<{_LEFT}}Show this."])


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


def _default(option: Option, value: Any) -> str:
    if option.flag.default or value is NODEFAULT:
        return option.flag.default or "required"
    if isinstance(value, Mapping):
        value = [f"{name}={inner}" for name, inner in cast("Mapping[str, Any]", value).items()]
    if isinstance(value, list | tuple):
        value = " ".join(map(str, cast("Sequence[Any]", value)))
    return f"default: {'none' if value in (None, '') else value}"


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
