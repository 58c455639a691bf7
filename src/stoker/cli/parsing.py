"""From words to a typed struct: each mistake is one line that names the word.

tyro reads the flags from the struct: fields are flags, attribute docstrings their help, and the struct's
docstring is that of the command. A nested struct with the name "" gives its fields as flags.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import json
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, TypeAlias, TypeVar, Union, cast, get_args, get_origin

import msgspec
import tyro
from tyro.constructors import PrimitiveConstructorSpec

from stoker.errors import ConfigError

__all__ = ["ASSIGNMENTS", "JsonFlag", "RunPath", "flag", "gathered", "parse", "required", "without_help"]

T = TypeVar("T", bound=msgspec.Struct)

_HELP = ("-h", "--help")


def flag(metavar: str, default: str) -> Any:
    """What ``--help`` shows of a flag: the form of its value, and what holds where it is left out."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


RunPath: TypeAlias = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="RUN",
        help_behavior_hint="(required)",
        help="The run's directory, or that of a version or name: then its newest run.",
    ),
]
JsonFlag: TypeAlias = Annotated[
    tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="Print one line of JSON instead of the report.")
]


def parse(command: str, kind: type[T], args: Sequence[str], default: T | None = None) -> T:
    """Parse a command's words; ``--help`` prints the help and exits.

    Args:
        command: the command's name, for messages.
        kind: the struct to make; its field ``run``, where it has one, must be given.
        args: the words behind the command.
        default: the values of flags that are not given; left out, the struct's defaults.

    Raises:
        ConfigError: An unknown flag, a value that does not fit, or no run; the message names it.
    """
    see = f"(see `stoker {command} --help`)"
    types_by_flag = dict(_flags(kind))
    _refuse_unknown(args, types_by_flag, see)
    given: dict[str, Any] = {} if default is None else {"default": default}
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            parsed = cast("Any", tyro.cli)(
                kind,
                prog=f"stoker {command}",
                description=inspect.getdoc(kind),
                args=_with_none(args, types_by_flag),
                **given,
            )
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise ConfigError(f"{_unboxed(box.getvalue())} {see}") from None
    if "run" in kind.__struct_fields__:
        required(parsed.run, command, "a run", "runs/CartPole-v1")
    return parsed


def required(value: str, command: str, what: str, example: str) -> str:
    """The value, which must be given.

    Raises:
        ConfigError: It is empty; the message shows an example.
    """
    if not value:
        raise ConfigError(
            f"name {what}, such as `stoker {command} {example}` (see `stoker {command} --help`)"
        )
    return value


def without_help(args: Sequence[str]) -> list[str]:
    """The words without the request for help."""
    return [arg for arg in args if arg not in _HELP]


def _flags(kind: type[msgspec.Struct]) -> Iterator[tuple[str, Any]]:
    """Each flag, with dashes, and the type of its value."""
    for field in msgspec.structs.fields(kind):
        bare, *notes = get_args(field.type) if get_origin(field.type) is Annotated else (field.type,)
        if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
            yield from _flags(bare)
            continue
        name = next((note.name for note in notes if getattr(note, "name", None)), field.name)
        dashed = name.replace("_", "-")
        yield f"--{dashed}", bare
        if bare is bool:
            yield f"--no-{dashed}", bare
        for note in notes:
            yield from ((alias, bare) for alias in getattr(note, "aliases", None) or ())


def _refuse_unknown(args: Sequence[str], known: dict[str, Any], see: str) -> None:
    """Find these before tyro does: here they get one line and the nearest known flag."""
    for arg in args:
        name = arg.partition("=")[0].replace("_", "-")
        if not re.match(r"--?[a-zA-Z]", name) or name in known or name in _HELP or name in ("-inf", "-nan"):
            continue
        close = _abbreviated(name, known) or difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"unknown flag {name}{hint} {see}")


def _abbreviated(name: str, known: Iterable[str]) -> list[str]:
    """The flags that this one may be short for: by its first letters, or by those of its words."""
    short = name.strip("-")
    return [
        other
        for other in known
        if other.startswith(f"--{short}")
        or "".join(word[0] for word in other[2:].split("-") if word) == short
    ]


def _with_none(args: Sequence[str], known: dict[str, Any]) -> list[str]:
    """The words with ``none`` spelled as tyro wants it, where a flag can take it."""
    spelled: list[str] = []
    before = ""
    for arg in args:
        head, equals, value = arg.partition("=")
        if arg.lower() == "none" and _takes_none(known.get(before)):
            spelled.append("None")
        elif equals and value.lower() == "none" and _takes_none(known.get(head.replace("_", "-"))):
            spelled.append(f"{head}=None")
        else:
            spelled.append(arg)
        before = arg.replace("_", "-")
    return spelled


def _takes_none(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)


def _unboxed(text: str) -> str:
    """The sentence inside the box that tyro draws around an error."""
    words: list[str] = []
    for line in text.splitlines()[1:]:  # the first is the lid, with a title
        inner = line.strip("│╭╰╮╯|+ ")
        if set(inner) <= set("─-"):
            if words:
                break
            continue
        if inner == "Got errors:":
            break
        words.append(inner)
    # Where settings refuse a value, tyro names their class before the message, which says all.
    sentence = re.sub(r"^Error parsing \w+: ", "", " ".join(words).rstrip("."))
    if stray := re.fullmatch(r"Unrecognized options: (.*)", sentence):
        return f"unexpected {cast('str', stray[1])!r}"
    return sentence[:1].lower() + sentence[1:] or "cannot be understood"


# NAME=VALUE, and flags that may be given several times ----------------------------------------------

_LITERALS: dict[str, Any] = {"True": True, "False": False, "None": None, "none": None}
"""Python's spellings of JSON words; as text they would all be true."""

_ASSIGNING = ("--env-kwargs", "--agent-settings")
_IMPORT = "--import"


def gathered(args: Sequence[str]) -> list[str]:
    """Move all values of such a flag behind one occurrence of it, at the end.

    There they take nothing from a positional argument, and a second ``--import`` adds to the first.

    Raises:
        ConfigError: A value is missing, or is not an assignment.
    """
    rest: list[str] = []
    values: dict[str, list[str]] = {}
    words = list(args)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        if name != _IMPORT and name not in _ASSIGNING:
            rest.append(word)
            continue
        taken = values.setdefault(name, [])
        if equals:
            taken.append(value)
        elif name == _IMPORT:
            taken += words[:1]
            del words[:1]
        else:
            while words and "=" in words[0] and not words[0].startswith("-"):
                taken.append(words.pop(0))
        _check_values(name, taken, words)
    for name, taken in values.items():
        rest += [name, *taken]
    return rest


def _check_values(name: str, taken: list[str], words: list[str]) -> None:
    if not taken or taken[-1].startswith("-"):
        what = "a module" if name == _IMPORT else "NAME=VALUE"
        after = f", not {words[0]!r}" if words else ""
        raise ConfigError(f"{name}: give {what} behind it{after} (see `stoker train --help`)")
    if name in _ASSIGNING and "=" not in taken[-1].strip("="):
        raise ConfigError(f"{name} {taken[-1]}: write NAME=VALUE")


def _parsed(words: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            value = _LITERALS[text] if text in _LITERALS else json.loads(text)
        except json.JSONDecodeError:
            value = text
        values[name.replace("-", "_")] = value
    return values


def _shown(values: dict[str, Any]) -> list[str]:
    return [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()
    ]


ASSIGNMENTS: PrimitiveConstructorSpec[dict[str, Any]] = PrimitiveConstructorSpec(
    nargs="*",
    metavar="NAME=VALUE",
    instance_from_str=_parsed,
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=_shown,
)
"""How tyro reads and shows a dict of keyword arguments."""
