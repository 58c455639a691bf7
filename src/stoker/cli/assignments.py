"""Flags of the form ``--env-kwargs NAME=VALUE ...``, and flags that may be given several times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tyro.constructors import PrimitiveConstructorSpec

from stoker.errors import ConfigError

__all__ = ["ASSIGNMENTS", "gathered"]

_LITERALS: dict[str, Any] = {"True": True, "False": False, "None": None, "none": None}
"""Words of Python's that JSON spells otherwise; as text they would all be true."""

_ASSIGNING = ("--env-kwargs", "--agent-settings")
_IMPORT = "--import"


def gathered(args: Sequence[str]) -> list[str]:
    """The words with all values of such a flag behind one of it, at the end.

    There they take nothing from a positional argument, and a second ``--import`` adds to the first.

    Raises:
        ConfigError: A value is missing, or is no assignment.
    """
    rest: list[str] = []
    values: dict[str, list[str]] = {}
    words = list(args)
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-")
        if flag != _IMPORT and flag not in _ASSIGNING:
            rest.append(word)
            continue
        taken = values.setdefault(flag, [])
        if equals:
            taken.append(value)
        elif flag == _IMPORT:
            taken += words[:1]
            del words[:1]
        else:
            while words and "=" in words[0] and not words[0].startswith("-"):
                taken.append(words.pop(0))
        _check(flag, taken, words)
    for flag, taken in values.items():
        rest += [flag, *taken]
    return rest


def _check(flag: str, taken: list[str], words: list[str]) -> None:
    if not taken or taken[-1].startswith("-"):
        what = "a module" if flag == _IMPORT else "NAME=VALUE"
        after = f", not {words[0]!r}" if words else ""
        raise ConfigError(f"{flag}: give {what} behind it{after} (see `stoker train --help`)")
    if flag in _ASSIGNING and "=" not in taken[-1].strip("="):
        raise ConfigError(f"{flag} {taken[-1]}: write NAME=VALUE")


def _parsed(words: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            values[name.replace("-", "_")] = _LITERALS[text] if text in _LITERALS else json.loads(text)
        except json.JSONDecodeError:
            values[name.replace("-", "_")] = text
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
