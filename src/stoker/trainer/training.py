"""A whole training from a config: agent, session, actors and evaluator put together."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import anyio
import msgspec
from anyio import to_thread

from stoker.actors import Crew, EnvFactory
from stoker.agents.protocol import LearningAgent
from stoker.envs import make_gym
from stoker.errors import first_error
from stoker.runs import TrainingRun
from stoker.session import SessionConfig, TrainingSession
from stoker.trainer.config import TrainConfig
from stoker.trainer.evaluator import Evaluator
from stoker.trainer.making import agent_for

__all__ = ["Progress", "TrainResult", "session_settings", "train"]


class TrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a training came to.

    Attributes:
        run: its directory.
        total_steps, total_episodes: over all attempts.
        steps_per_sec: environment steps per second of this process.
        best_eval_reward: the highest mean reward that was evaluated, over all attempts; None: never.
        last_eval_reward: the last one of this process.
        restarts: how many environments failed and were made again.
    """

    run: str
    total_steps: int
    total_episodes: int
    steps_per_sec: float
    best_eval_reward: float | None
    last_eval_reward: float | None
    restarts: int


class Progress(msgspec.Struct, frozen=True):
    """What there is to watch while a training goes on; ``session.stop()`` ends it in good order."""

    config: TrainConfig
    session: TrainingSession
    crew: Crew
    evaluator: Evaluator


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
    watch: Callable[[Progress], Coroutine[Any, Any, None]] | None = None,
) -> TrainResult:
    """Train until ``total_timesteps``, until the reward to stop at, or until somebody stops the session.

    Args:
        config: what to train on what.
        run: a new run, or a resumed one, which goes on from its newest checkpoint.
        agent: made by ``agent_for(config)``; left out, that is done here.
        factory: makes environments other than the config's Gymnasium one.
        watch: runs beside the training and is cancelled when it ends.

    Raises:
        ConfigError: The environment or the agent cannot be made, or the run is of another agent.
        ActorFailed: An environment failed too often.
        SessionFailed: The agent or the writer died.
    """
    if agent is None:  # in a thread: it imports torch and builds networks, and a service may run on this loop
        agent = await to_thread.run_sync(agent_for, config)
    factory = partial(make_gym, config.env) if factory is None else factory
    session = TrainingSession(agent, run, **session_settings(config))
    async with session:
        crew = Crew(session, factory, config.num_envs, stepping=config.stepping, seed=config.seed)
        evaluator = Evaluator(
            session,
            factory,
            config.eval_episodes,
            seed=config.seed,
            stepping=config.stepping,
            stop_at_reward=config.stop_at_reward,
        )
        try:
            async with anyio.create_task_group() as beside:
                beside.start_soon(evaluator.run)
                if watch is not None:
                    beside.start_soon(watch, Progress(config, session, crew, evaluator))
                await crew.run()
                if config.eval_freq:
                    await evaluator.finish()
                beside.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = first_error(group)
            raise error from error.__cause__
    return TrainResult(
        run=str(run.directory),
        total_steps=session.total_steps,
        total_episodes=session.total_episodes,
        steps_per_sec=session.steps_per_sec,
        best_eval_reward=session.best_value,
        last_eval_reward=evaluator.last and evaluator.last.mean_reward,
        restarts=crew.restarts,
    )
