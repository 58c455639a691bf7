"""``--help`` of a command: its docstring, and its flags with what they mean and what they would be."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

import msgspec
from msgspec import NODEFAULT, inspect as types

from stoker.cli.options import Option

_LEFT = 26
"""Columns of the flags."""


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
    for option in sorted(options, key=lambda option: not option.flag.is_positional):
        takes_value = not isinstance(option.info, types.BoolType)
        head = "  " + " ".join(filter(None, [", ".join(option.names), option.metavar * takes_value]))
        default = _default(option, option.default if values is None else values[option.field])
        if len(head) > _LEFT - 2:
            lines.append(head)
            head = ""
        text, indent = f"{option.help} ({default})", " " * _LEFT
        lines += textwrap.wrap(text, width, initial_indent=f"{head:<{_LEFT}}", subsequent_indent=indent)
    return "\n".join([*lines, f"{'  -h, --help':<{_LEFT}}Show this."])


def _default(option: Option, value: Any) -> str:
    if option.flag.default or value is NODEFAULT:
        return option.flag.default or "required"
    if isinstance(value, Mapping):
        value = [f"{name}={inner}" for name, inner in cast("Mapping[str, Any]", value).items()]
    if isinstance(value, list | tuple):
        value = " ".join(map(str, cast("Sequence[Any]", value)))
    return f"default: {'none' if value in (None, '') else value}"
