"""A saved DQN state: whether it fits the agent that is to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stoker.agents.dqn.config import DQNConfig
from stoker.agents.states import check_kind, compare, shapes
from stoker.errors import ConfigError

__all__ = ["check_state"]

_ADDED_LATER = {"rewards"}  # states of earlier versions lack it, and are as good without


def check_state(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse a state that the agent with the state ``own`` cannot become.

    The agent's kind, its spaces, the kind and sizes of its network, whether it normalizes observations, and
    the shapes of all weights must be equal; other settings may differ.

    Raises:
        ConfigError: The message names both sides.
    """
    check_kind(state, own, _ADDED_LATER)
    if not isinstance(state["explore_generator"], Mapping):
        raise ConfigError(
            "the saved agent is of an earlier version of stoker, whose exploration state cannot be restored: "
            "train anew, or load it with the version that wrote it"
        )
    for part in ("observation_space", "action_space"):
        compare(part, state[part], own[part])
    saved_config, own_config = _config(state), _config(own)
    for field in ("network", "dueling", "normalize_observations"):
        compare(field, saved_config[field], own_config[field])
    if own_config["network"] == "mlp":
        compare("hidden_sizes", *(list(config["hidden_sizes"]) for config in (saved_config, own_config)))
    for network in ("online", "target"):
        compare(f"weights of the {network} network", shapes(state[network]), shapes(own[network]))


def _config(state: Mapping[str, Any]) -> dict[str, Any]:
    """The settings; those that are younger than the state were as the defaults are."""
    return {**msgspec.to_builtins(DQNConfig(network="mlp")), **state["config"]}
