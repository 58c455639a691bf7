"""What a session tells recorders of itself when they open."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from stoker.agents.protocol import config_of
from stoker.recorders import RunContext, flat_params
from stoker.runs import TrainingRun
from stoker.session.config import SessionConfig
from stoker.session.state import TrainingState

__all__ = ["context_of"]


def context_of(learner: TrainingState, run: TrainingRun | None, config: SessionConfig) -> RunContext:
    """Which run it is, from where it goes on, and with what settings."""
    settings: dict[str, Any] = {"agent_type": type(learner.agent).__name__}
    if (agent_config := config_of(learner.agent)) is not None:
        settings["agent"] = msgspec.to_builtins(agent_config)
    settings["session"] = cast("dict[str, Any]", msgspec.to_builtins(config))
    params = flat_params(settings)
    if run is None:
        return RunContext(name="training", params=params, total_steps=learner.total_steps)
    return RunContext(
        name=run.metadata.name,
        version=run.metadata.version,
        run_id=run.metadata.run_id,
        directory=run.directory,
        params=params,
        resumed=run.attempt > 1,
        total_steps=learner.total_steps,
    )
