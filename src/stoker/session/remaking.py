"""Agents that learn as another attempt did: how they are made, what they pass on, and their prior data.

The first weights of an agent, and its generators, are in no event. So the journal's first header holds a
digest of them: learning the same events from another beginning gives other weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import stoker.journal.codec as codec
from stoker.agents.protocol import (
    ChangesByActing,
    ChangesSettings,
    HasReplay,
    LearningAgent,
    PriorData,
    prior_of,
    settings_of,
)
from stoker.errors import ConfigError, InvalidAgentState
from stoker.journal import SegmentHeader
from stoker.writer import stage

_logger = logging.getLogger("stoker.session")


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


def origin_of(agent: LearningAgent) -> str:
    """The SHA-256 of a new agent's state, without what acting changes; empty: the state has no such bytes."""
    left_out = agent.acting_state if isinstance(agent, ChangesByActing) else frozenset[str]()
    state = {name: part for name, part in agent.state_dict().items() if name not in left_out}
    # A check: a checkpoint may hold more than a journal can, and refuses what it cannot hold by itself.
    with contextlib.suppress(ConfigError, InvalidAgentState):
        return hashlib.sha256(codec.encode(stage(state, "agent"), "agent")).hexdigest()
    return ""


def warn_of_another_origin(agent: LearningAgent, header: SegmentHeader) -> None:
    """Log a warning if a new agent does not begin as the one did that wrote the journal's first header.

    Not if its settings are others: these may change the state, too.
    """
    if header.first_event or not header.origin or header.agent != settings_of(agent):
        return
    if origin_of(agent) != header.origin:
        _logger.warning(
            "this %s begins with other weights than the one that the run began with, and no checkpoint holds "
            "those: what it learns from the journal differs; make it with the same seed, and give a seed to "
            "agents that are to be resumed or replayed from their first event",
            type(agent).__name__,
        )
