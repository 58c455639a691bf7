"""A whole training from a config: agent, environments and trackers made, and a trainer put over them."""

from __future__ import annotations

from functools import partial
from typing import Any

from anyio import to_thread

from stoker.actors import EnvFactory
from stoker.agents.protocol import LearningAgent
from stoker.runs import TrainingRun
from stoker.session import SessionConfig
from stoker.trainer.config import TrainConfig
from stoker.trainer.evaluation_settings import EvaluationSettings
from stoker.trainer.making import agent_for, env_for, recorders_for
from stoker.trainer.result import Progress, TrainResult
from stoker.trainer.trainer import Trainer, Watch
from stoker.trainer.trainer_config import TrainerConfig

__all__ = ["Progress", "TrainResult", "session_settings", "train"]


def session_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings of the session that a config asks for, by the names of ``SessionConfig``."""
    same = set(TrainConfig.__struct_fields__) & set(SessionConfig.__struct_fields__)
    return {"max_steps": config.total_timesteps, **{name: getattr(config, name) for name in same}}


async def train(
    config: TrainConfig,
    run: TrainingRun,
    *,
    agent: LearningAgent | None = None,
    factory: EnvFactory | None = None,
    watch: Watch | None = None,
) -> TrainResult:
    """Train until ``total_timesteps``, until an evaluation ends it, or until somebody stops the session.

    Args:
        config: what to train on what.
        run: a new run, or a resumed one, which goes on from its newest checkpoint.
        agent: made by ``agent_for(config)``; left out, that is done here.
        factory: makes environments other than the config's Gymnasium one.
        watch: runs beside the training and is cancelled when it ends.

    Raises:
        ConfigError: The environment or the agent cannot be made, or the run is of another agent.
        ActorFailed: An environment failed too often.
        SessionFailed: The agent, the writer or a recorder died.
    """
    if agent is None:  # in a thread: it imports torch and builds networks, and a service may run on this loop
        agent = await to_thread.run_sync(agent_for, config)
    settings = session_settings(config)
    trainer = Trainer(
        agent,
        partial(env_for, config) if factory is None else factory,
        trainer_config(config),
        run=run,
        recorders=recorders_for(config),
        **settings,
    )
    return await trainer.train(watch=watch, watched_config=config)


def trainer_config(config: TrainConfig) -> TrainerConfig:
    """The part of a config that is the trainer's own; periods in environment steps are the session's."""
    same = set(TrainConfig.__struct_fields__) & set(TrainerConfig.__struct_fields__)
    return TrainerConfig(
        **{name: getattr(config, name) for name in same},
        record_interval=0,
        evaluation=EvaluationSettings(
            n_episodes=config.eval_episodes,
            seed=config.seed,
            best_by=config.best_by,
            confirm=config.confirm_best,
            stop_at_reward=config.stop_at_reward,
            patience=config.patience,
        ),
    )
