"""Whether an agent begins as the one did whose events a journal holds from the first on.

The first weights of an agent, and its generators, are in no event. So the journal's first header holds a
digest of them: learning the same events from another beginning gives other weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging

import stoker.journal.codec as codec
from stoker.agents.protocol import ChangesByActing, LearningAgent, settings_of
from stoker.errors import ConfigError, InvalidAgentState
from stoker.journal import SegmentHeader
from stoker.writer import stage

__all__ = ["origin_of", "warn_of_another_origin"]

_logger = logging.getLogger("stoker.session")


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
