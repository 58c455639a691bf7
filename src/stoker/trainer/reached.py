"""How far a training has come that is to go on: from its newest checkpoint, or from the agent in memory."""

from __future__ import annotations

from typing import NamedTuple

from stoker.agents.protocol import CountsOptSteps, LearningAgent
from stoker.errors import StokerError
from stoker.runs import TrainingRun

__all__ = ["Reached", "reached_by"]


class Reached(NamedTuple):
    """Counters over all attempts."""

    total_steps: int = 0
    opt_steps: int = 0
    kept_steps: int = 0
    """Environment steps that were not learned from as they came: those of a data set."""


def reached_by(agent: LearningAgent, run: TrainingRun | None) -> Reached:
    """Where a session of these would begin. Blocks."""
    if run is not None and not run.is_new:
        try:
            for _, state in run.candidates():
                session = state["session"]
                return Reached(
                    int(session["total_steps"]),
                    int(session["opt_steps"]),
                    int(session.get("kept_steps", 0)),
                )
        except StokerError:  # the session says what is wrong with the run, when it is entered
            return Reached()
    return Reached(agent.total_steps, agent.opt_steps if isinstance(agent, CountsOptSteps) else 0)
