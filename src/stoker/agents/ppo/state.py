"""A saved PPO state: whether it fits the agent that is to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.agents.states import check_kind, compare, shapes

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
    check_kind(state, own)
    for part in ("observation_space", "action_space"):
        compare(part, state[part], own[part])
    for setting in _SHAPING:
        compare(setting, *(_plain(side["config"].get(setting)) for side in (state, own)))
    compare("weights", shapes(state["network"]), shapes(own["network"]))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
