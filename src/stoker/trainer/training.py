"""A whole training from a config: makes agent, environments and recorders, and runs a trainer on them."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import anyio
import msgspec
import torch
from anyio import to_thread

from stoker.actors import EnvFactory
from stoker.agents.protocol import LearningAgent, config_of, prior_of
from stoker.agents.registry import AGENTS, is_own
from stoker.errors import ConfigError
from stoker.multi import OpponentPool
from stoker.runs import TrainingRun
from stoker.runs.layout import safe_name
from stoker.session import SessionConfig
from stoker.session.tail import progress_told
from stoker.trainer.config import TrainConfig, config_from, name_of, shared_settings
from stoker.trainer.evaluation import EvaluationSettings
from stoker.trainer.making import (
    agent_for,
    check_has_data,
    env_for,
    plays_jointly,
    recorders_for,
    set_torch_threads,
)
from stoker.trainer.parts import NamedDataset
from stoker.trainer.players import cluster_for
from stoker.trainer.preparing import prepared
from stoker.trainer.trainer import Progress, Trainer, TrainResult, Watch
from stoker.trainer.trainer_config import TrainerConfig
from stoker.trainer.vectorizing import decided, eval_factory_for, vector_factory_for
from stoker.trainer.views.view import Screen, title_of, view_here

_logger = logging.getLogger(__name__)


def session_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings of the session that a config describes, by the names of ``SessionConfig``."""
    limit = "max_opts" if config.offline else "max_steps"
    settings = {limit: config.total_timesteps, **shared_settings(config, SessionConfig)}
    if not config.env:
        settings["eval_freq"] = 0
    if config.vectorize not in ("auto", "none"):  # room for two rounds
        settings["queue_capacity"] = max(config.queue_capacity, 2 * config.num_envs)
    return settings


async def train(
    config: TrainConfig | Mapping[str, Any],
    run: TrainingRun | None = None,
    *,
    agent: LearningAgent | None = None,
    factory: EnvFactory | None = None,
    watch: Watch | None = None,
    view: Literal["auto", "none"] = "auto",
    roll_forward: bool | Literal["strict"] = True,
) -> TrainResult:
    """Train until ``total_timesteps``, until an evaluation ends it, or until the session is stopped.

    With ``config.offline`` on a data set, which a new run reads once; see ``Trainer.train_offline``. The
    run's ``config.json`` holds the config, so that the command line can resume, evaluate and replay the run.
    Torch computes with ``config.torch_threads`` threads until this returns.

    Args:
        config: the settings; or plain values, for ``config_from``.
        run: a new run, or a resumed one; None: a new one below ``runs``, named after the environment.
        agent: None: ``agent_for(config)``. A given agent must be of the config's kind, and its settings
            replace those of the config, also in ``config.json``. Prior data that it has already are not read
            again.
        factory: makes environments instead of those that the config names; ``vectorize="auto"`` is then
            ``"none"``. The run gets no ``config.json``, which could not name them; use
            ``env="module:factory"`` to have one.
        watch: runs beside the training and is cancelled when that ends.
        view: ``"auto"`` shows the training in a notebook's output or on a terminal, ``"none"`` nowhere.
        roll_forward: for a resumed run, as in ``SessionConfig``.

    Raises:
        ConfigError: A value is unknown or out of range, the environment or the agent cannot be made, or the
            agent or the run is not of the kind of agent that the config names.
        MissingDependency: A recorder's package is not installed.
        ActorFailed: An environment failed too often.
        SessionFailed: The agent, the writer or a recorder failed.
    """
    if view not in ("auto", "none"):
        raise ConfigError(f"view={view!r}: choose auto or none")
    if not isinstance(config, TrainConfig):
        config = config_from(config)
    check_has_data(config)
    recorders = recorders_for(config)  # first: it is quick to refuse
    is_prepared = agent is not None and (config.env or config.spaces is not None)
    if config.offline and (run is None or run.is_new) and not is_prepared:
        config, said = await to_thread.run_sync(prepared, config)
        for line in said:
            _logger.info(line)
    settings = trainer_config(config)
    async with contextlib.AsyncExitStack() as ending:
        ending.callback(torch.set_num_threads, torch.get_num_threads())
        set_torch_threads(config)
        # In a thread: it builds networks, and a service may use this loop.
        if agent is None:
            agent = await to_thread.run_sync(_agent_in_thread, config)
        config = _with_settings_of(agent, config)
        has_data = bool(config.warm_data) and prior_of(agent) is None
        if config.vectorize == "auto" and not config.offline:
            config, _ = choice = await decided(config, factory)
            _logger.info(choice.line())
        make = partial(env_for, config) if factory is None else factory
        trainer = Trainer(
            agent,
            make,
            settings,
            run=run,
            eval_factory=eval_factory_for(config, factory),
            vector_factory=vector_factory_for(config, factory),
            is_joint=plays_jointly(config),
            opponents=_opponents_for(config),
            recorders=recorders,
            warm_data=NamedDataset(config.warm_data, config.ends) if has_data else None,
            mix=config.mix,
            roll_forward=roll_forward,
            **session_settings(config),
        )
        await ending.enter_async_context(cluster_for(settings))
        if run is None:  # late, so that what cannot be trained leaves none behind
            trainer.run = run = await TrainingRun.create(safe_name(name_of(config)))
        screen = None
        if view == "auto" and (found := view_here(title_of(config))) is not None:
            screen = Screen(found)
            ending.push_async_callback(screen.close)
            ending.enter_context(progress_told(partial(print, file=sys.stderr)))
        has_config, is_new = factory is None, run.is_new

        async def watch_all(progress: Progress) -> None:
            progress = msgspec.structs.replace(progress, config=config)
            # Not earlier: a config that does not fit must not replace that of the checkpoint.
            if has_config and not is_new:
                with anyio.CancelScope(shield=True):
                    await run.write_config(config)
            async with anyio.create_task_group() as tasks:
                if screen is not None:
                    tasks.start_soon(screen.follow, progress)
                if watch is not None:
                    await watch(progress)

        if has_config and is_new:  # first, so that a killed run can be resumed
            ending.callback(run.release)  # if no session has begun, which would do so
            await run.write_config(config)
        if not config.offline:
            return await trainer.train(watch=watch_all)
        return await trainer.train_offline(NamedDataset(config.offline, config.ends), watch=watch_all)


def _opponents_for(config: TrainConfig) -> OpponentPool | None:
    if not config.self_play:
        return None
    return OpponentPool(config.pool_freq, config.pool_keep, config.choose, seed=config.seed)


def _with_settings_of(agent: LearningAgent, config: TrainConfig) -> TrainConfig:
    """The config with the settings of the given agent, from which another process makes the agent."""
    settings: Any = config_of(agent)
    kind = next((name for name, entry in AGENTS.items() if type(settings) is entry.config_type), None)
    if is_own(config.agent) or kind is None:  # an agent of the user's
        return config
    if kind != config.agent:
        raise ConfigError(
            f"agent={config.agent!r} in the config, but the given agent is a {type(agent).__name__}: "
            f"set agent={kind!r}"
        )
    # An agent keeps the network that it chose, which follows from its spaces.
    if getattr(config.agent_settings, "network", None) == "auto":
        settings = msgspec.structs.replace(settings, network="auto")
    return msgspec.structs.replace(config, agent_settings=settings)


def _agent_in_thread(config: TrainConfig) -> LearningAgent:
    set_torch_threads(config)  # torch lets each thread keep the number that was set when it began
    return agent_for(config)


def trainer_config(config: TrainConfig) -> TrainerConfig:
    """The trainer's part of a config; periods in environment steps are the session's.

    The processes of ``vectorize="async"`` take seconds to start, and are then waited for in each round: in a
    thread, unless ``stepping`` says where.
    """
    shared = shared_settings(config, TrainerConfig)
    if (config.vectorize, config.stepping) == ("async", "auto"):
        shared["stepping"] = "thread"
    return TrainerConfig(
        **shared,
        record_interval=0,
        evaluation=EvaluationSettings(
            n_episodes=config.eval_episodes,
            max_episode_steps=config.eval_max_episode_steps,
            seed=config.seed,
            best_by=config.best_by,
            confirm=config.confirm_best,
            stop_at_reward=config.stop_at_reward,
            patience=config.patience,
            reference_scores=config.reference_scores,
        ),
    )
