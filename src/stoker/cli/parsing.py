"""Parse the words behind a command into its struct; each mistake is a line that names the word."""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Self, TypeAlias

import msgspec

from stoker.cli.help import leave_with_help
from stoker.cli.options import Flag, Option, is_flag, options_of
from stoker.errors import ConfigError


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


Which: TypeAlias = Annotated[
    str | None, Flag(metavar="best|latest|STEP", default="default: best, else latest")
]
"""Which checkpoint of a run."""


class ReportCommand(Command, frozen=True, kw_only=True):
    """A command that ends with a report, for people or for scripts."""

    json: bool = False
    """Print one line of JSON instead of the report."""


class RunCommand(ReportCommand, frozen=True, kw_only=True):
    """A command about one run."""

    run: RunPath
    """The run's directory, or that of a version or name: then its newest run."""


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
        if are_positional or not is_flag(word):
            places = (option for option in options if option.flag.is_positional)
            option = next((place for place in places if place.adds or place.field not in taken), None)
            if option is None:
                raise ConfigError(f"unexpected {word!r}")
            name, values = option.metavar, [word]
        elif word == "--":
            are_positional = True
            continue
        elif name not in known:
            for option in options:
                if option.flag.is_positional and option.field == name.strip("-"):
                    raise ConfigError(f"unknown flag {name}; give {option.metavar} without it")
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


def _abbreviates(short: str, flag: str) -> bool:
    """Whether the flag begins with these letters, or they are the initials of its words."""
    initials = "".join(word[:1] for word in flag[2:].split("-"))
    return flag.startswith(f"--{short}") or initials == short
