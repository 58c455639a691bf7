"""A saved state beside that of the agent which is to load it: what every agent compares."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NoReturn

import torch

from stoker.errors import ConfigError

__all__ = ["check_kind", "compare", "refuse_shallow_copy", "shapes"]


def check_kind(state: Mapping[str, Any], own: Mapping[str, Any], optional: Collection[str] = ()) -> None:
    """Refuse the state of another kind of agent, or one that lacks something.

    Args:
        state: the saved one.
        own: that of the agent which is to load it.
        optional: entries that it may lack.

    Raises:
        ConfigError: The message names both kinds, or what is missing.
    """
    if state.get("agent") != own["agent"]:
        raise ConfigError(f"a {own['agent']} agent cannot load the state of {_kind(state)}")
    if missing := sorted({*own} - {*state} - {*optional}):
        raise ConfigError(f"the saved {own['agent']} state is not whole: it lacks {', '.join(missing)}")


def compare(what: str, saved: object, own: object) -> None:
    """Refuse what is not equal.

    Raises:
        ConfigError: The message names both sides.
    """
    if saved != own:
        raise ConfigError(
            f"the saved agent's {what} does not fit: saved {saved}, here {own}; "
            "make the agent with the saved spaces and settings"
        )


def refuse_shallow_copy(agent: object) -> NoReturn:
    """What ``copy.copy`` of an agent comes to: two agents would train the same weights.

    Raises:
        ConfigError: Always.
    """
    name = type(agent).__name__
    raise ConfigError(
        f"copy.copy of a {name} would share its weights: use copy.deepcopy, or make a new {name} and load "
        "the state_dict of this one"
    )


def shapes(weights: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    """The shape of each weight, by name."""
    return {name: list(tensor.shape) for name, tensor in weights.items()}


def _kind(state: Mapping[str, Any]) -> str:
    if "agent" in state:
        return f"a {state['agent']} agent"
    return f"something that is no agent (its keys: {', '.join(map(str, state)) or 'none'})"
