"""The flags of a training and of its agent, which ``stoker train`` and ``stoker serve`` have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stoker.agents.registry import AGENTS, config_type, is_own
from stoker.cli.options import Flag, Option, options_of
from stoker.settings import read_toml

FLAGS = {
    "imports": Flag(name="import", metavar="MODULE", repeats=True),
    "wrappers": Flag(name="wrapper", metavar="MODULE:CLASS", repeats=True),
    "warm_data": Flag(metavar="DATA", default="default: none"),
}
"""Fields of ``TrainConfig`` whose flags differ from their names and types."""


class OwnSettings(msgspec.Struct, frozen=True):
    """The settings of an agent that the user wrote."""

    agent_settings: dict[str, Any] = {}
    """Keyword arguments for the agent's factory, such as learning_rate=0.001."""


def settings_type(agent: str) -> type[msgspec.Struct]:
    """The struct whose fields are the settings of an agent."""
    return OwnSettings if is_own(agent) else config_type(agent)


def options_of_agents() -> list[Option]:
    """The settings of all agents, each name once, for words that are read before the agent is known."""
    types = [entry.config_type for entry in AGENTS.values()]
    return list({option.field: option for kind in types for option in options_of(kind)}.values())


def without_help(words: Sequence[str]) -> tuple[list[str], bool]:
    """The words but for ``--help``, and whether that was among them."""
    given = [word for word in words if word not in ("-h", "--help")]
    return given, len(given) < len(words)


def values_of_file(path: str, repeated: Iterable[str] = ("import", "wrapper")) -> dict[str, Any]:
    """The values of a TOML file by field; "": no file, no values.

    Args:
        path: of the file.
        repeated: flags that the file may name as the command line does, in the singular.

    Raises:
        ConfigError: The file cannot be read.
    """
    values = read_toml(Path(path), "--config ") if path else {}
    return {f"{name}s" if name in repeated else name: value for name, value in values.items()}
