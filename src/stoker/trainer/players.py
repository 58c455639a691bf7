"""The actors of a training: one for each environment, one for a vector environment, or one for each agent."""

from __future__ import annotations

from typing import Any

from stoker.actors import (
    ActorGroup,
    EnvFactory,
    FailureLimit,
    JointActorGroup,
    PlayerGroup,
    VectorActorGroup,
)
from stoker.multi import SelfPlay
from stoker.session import TrainingSession
from stoker.trainer.config import TrainerConfig
from stoker.trainer.gate import StepGate

__all__ = ["players_on"]


def players_on(
    session: TrainingSession,
    config: TrainerConfig,
    factory: EnvFactory,
    limit: FailureLimit | None,
    *,
    vector_factory: EnvFactory | None = None,
    is_joint: bool = False,
    games: SelfPlay | None = None,
    gate: StepGate | None = None,
) -> PlayerGroup:
    """The players of a trainer's environments.

    Args:
        session: entered.
        config: of the trainer.
        factory: makes one environment.
        limit: how many failures of an environment are tolerated.
        vector_factory: makes vector environments, which are played instead.
        is_joint: whether several agents play each environment.
        games: who plays them, in self-play.
        gate: through which single steps are fetched.
    """
    shared: dict[str, Any] = {"stepping": config.stepping, "seed": config.seed, "limit": limit}
    if games is not None:
        return JointActorGroup(games.seats, factory, config.num_envs, assign=games.assign, **shared)
    if is_joint:
        return JointActorGroup(session, factory, config.num_envs, **shared)
    shared |= {"place": config.actors, "sync_interval": config.sync_interval}
    if vector_factory is not None:
        indices = range(config.num_envs)
        return VectorActorGroup(session, vector_factory, indices, workers=config.workers, **shared)
    on_step = None if gate is None else gate.add
    return ActorGroup(session, factory, config.num_envs, gate=gate, on_step=on_step, **shared)
