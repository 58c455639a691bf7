"""Agents that learn as another attempt did: how they are made, what they pass on, and their prior data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stoker.agents.protocol import (
    ChangesSettings,
    HasReplay,
    LearningAgent,
    PriorData,
    prior_of,
    settings_of,
)
from stoker.errors import ConfigError

__all__ = ["agent_with", "check_prior", "take_over"]


def check_prior(agent: LearningAgent, used: PriorData | None) -> None:
    """Refuse an agent with other prior data than the run's, which neither checkpoint nor journal holds.

    Raises:
        ConfigError: The message says what differs, and the way out.
    """
    own = prior_of(agent)
    if own == used:
        return
    if own is None:
        raise ConfigError(
            f"the run learns with prior data, which are not given ({_named(used)}): name where they are now "
            "with warm_data (`--warm-data DATA`)"
        )
    if used is None:
        raise ConfigError(
            f"warm_data gives {_named(own)}, and the run was begun without prior data: leave them out, or "
            "train a new run"
        )
    raise ConfigError(
        f"these are other prior data than the run's: here {_named(own)}, there {_named(used)}; give the "
        "run's own, with its mix, or train a new run"
    )


def _named(prior: PriorData | None) -> str:
    if prior is None:
        return "none"
    return f"{prior.size:,} transitions of digest {prior.digest[:12]} at mix={prior.share:g}"


def agent_with(
    agent: LearningAgent,
    agent_type: str,
    settings: Mapping[str, Any] | None,
    warn: Callable[[str, str], None],
) -> LearningAgent:
    """An agent with the settings of an attempt: this one if it learns as it did there, else a new one.

    Args:
        agent: the present one.
        agent_type: the name of the class of the attempt's agent.
        settings: of the attempt's agent.
        warn: called with a key and a text if an agent of the user's cannot be made with these settings.

    Raises:
        ConfigError: The attempt's agent was of another class, or its state cannot be this one's.
    """
    if agent_type != (own_type := type(agent).__name__):
        raise ConfigError(
            f"the run was trained by the agent {agent_type}, this is {own_type}: resume it with "
            f"{agent_type}, or create a new run"
        )
    if settings is None or settings == (own := settings_of(agent)) or own is None:
        return agent
    made = agent.with_settings(settings) if isinstance(agent, ChangesSettings) else None
    if made is None:
        changed = sorted(name for name in {*settings, *own} if settings.get(name) != own.get(name))
        warn(
            "with_settings",
            f"a part of the journal was recorded with other settings of {own_type} ({', '.join(changed)}) "
            "and is learned with the present ones: to be made with others, it needs a method with_settings",
        )
        return agent
    return made


def take_over(agent: LearningAgent, other: LearningAgent) -> None:
    """Give an agent the state of another one, which is not used any more, and of its replay.

    Raises:
        ConfigError: The state does not fit.
    """
    agent.load_state_dict(other.state_dict())
    if isinstance(agent, HasReplay) and isinstance(other, HasReplay):
        replay, given = agent.replay, other.replay
        if replay is not given:
            replay.load_state_dict(given.state_dict())
