"""From words to a typed struct, with every mistake as one line that names it.

tyro reads the flags from the struct: fields are flags, attribute docstrings their help, a nested struct
with the name "" gives its fields as flags of their own.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

import msgspec
import tyro

from stoker.errors import ConfigError

__all__ = ["parse", "required", "without_help"]

T = TypeVar("T", bound=msgspec.Struct)

_SHORT = {"-h", "-n", "-o"}
_HELP = ("-h", "--help")


def parse(command: str, kind: type[T], args: Sequence[str], description: str, default: T | None = None) -> T:
    """Parse a command's words; ``--help`` prints the help and exits.

    Args:
        command: the command's name, for messages.
        kind: the struct to make.
        args: the words behind the command.
        description: what the command does, at the head of its help.
        default: the values of flags that are not given; left out, the struct's own.

    Raises:
        ConfigError: An unknown flag, or a value that does not fit; the message names it.
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
                description=description,
                args=_with_none(args, types_by_flag),
                **given,
            )
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise ConfigError(f"{_unboxed(box.getvalue())} {see}") from None
    return parsed


def required(value: str, command: str, what: str, example: str) -> str:
    """The value of what must be named.

    Raises:
        ConfigError: It was not; the message shows how.
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
        bare, name = field.type, field.name
        while get_origin(bare) is Annotated:
            bare, *notes = get_args(bare)
            name = next((note.name for note in notes if getattr(note, "name", None)), name)
        if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
            yield from _flags(bare)
            continue
        flag = name.replace("_", "-")
        yield f"--{flag}", bare
        if bare is bool:
            yield f"--no-{flag}", bare
        elif field.name == "total_timesteps":
            yield "-n", bare


def _refuse_unknown(args: Sequence[str], known: dict[str, Any], see: str) -> None:
    """Find these before tyro does: here they get one line and the nearest known flag."""
    for arg in args:
        flag = arg.partition("=")[0].replace("_", "-")
        if not re.match(r"--?[a-zA-Z]", flag) or flag in known or flag in _HELP or flag in _SHORT:
            continue
        if re.fullmatch(r"-(inf|nan)", flag):
            continue
        close = _abbreviated(flag, known) or difflib.get_close_matches(flag, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"unknown flag {flag}{hint} {see}")


def _abbreviated(flag: str, known: Iterable[str]) -> list[str]:
    """The flags that this one may be short for: by its first letters, or by those of its words."""
    short = flag.strip("-")
    return [
        name
        for name in known
        if name.startswith(f"--{short}") or "".join(word[0] for word in name[2:].split("-") if word) == short
    ]


def _with_none(args: Sequence[str], known: dict[str, Any]) -> list[str]:
    """The words with ``none`` spelt as tyro wants it, where a flag can take it."""
    spelt: list[str] = []
    flag = ""
    for arg in args:
        head, equals, value = arg.partition("=")
        if arg.lower() == "none" and _takes_none(known.get(flag)):
            spelt.append("None")
        elif equals and value.lower() == "none" and _takes_none(known.get(head.replace("_", "-"))):
            spelt.append(f"{head}=None")
        else:
            spelt.append(arg)
        flag = arg.replace("_", "-")
    return spelt


def _takes_none(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)


def _unboxed(text: str) -> str:
    """The sentence inside the box that tyro draws around an error."""
    said: list[str] = []
    for line in text.splitlines()[1:]:  # the first is the lid, with a title
        inner = line.strip("│╭╰╮╯|+ ")
        if set(inner) <= set("─-"):
            if said:
                break
            continue
        if inner == "Got errors:":
            break
        said.append(inner)
    sentence = " ".join(said).rstrip(".")
    if stray := re.fullmatch(r"Unrecognized options: (.*)", sentence):
        return f"unexpected {cast('str', stray[1])!r}"
    return sentence[:1].lower() + sentence[1:] or "cannot be understood"
