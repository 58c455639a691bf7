"""A saved PPO state: whether it fits the agent that is to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from stoker.errors import ConfigError

__all__ = ["check_state"]

_SHAPING = ("network", "hidden_sizes", "activation", "normalize_observations")
"""Settings that decide what the weights mean."""


def check_state(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse a state that the agent with the state ``own`` cannot become.

    The agent's kind, its spaces, the settings of its network, and the shapes of all weights must be equal;
    other settings may differ.

    Raises:
        ConfigError: The message names both sides.
    """
    if state.get("agent") != own["agent"]:
        raise ConfigError(f"a {own['agent']} agent cannot load the state of {_kind(state)}")
    if missing := sorted({*own} - {*state}):
        raise ConfigError(f"the saved {own['agent']} state is not whole: it lacks {', '.join(missing)}")
    for part in ("observation_space", "action_space"):
        _compare(part, state[part], own[part])
    for setting in _SHAPING:
        _compare(setting, *(_plain(side["config"].get(setting)) for side in (state, own)))
    _compare("weights", _shapes(state["network"]), _shapes(own["network"]))


def _compare(what: str, saved: object, own: object) -> None:
    if saved != own:
        raise ConfigError(
            f"the saved agent's {what} does not fit: saved {saved}, here {own}; "
            "make the agent with the saved spaces and settings"
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _shapes(weights: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in weights.items()}


def _kind(state: Mapping[str, Any]) -> str:
    if "agent" in state:
        return f"a {state['agent']} agent"
    return f"something that is no agent (its keys: {', '.join(map(str, state)) or 'none'})"
