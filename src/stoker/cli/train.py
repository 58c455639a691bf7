"""``stoker train`` and ``stoker resume``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from anyio import to_thread

from stoker.cli.arguments import ResumeArguments, TrainArguments, parse_train
from stoker.cli.driving import Driver, json_line
from stoker.cli.limits import limits_from
from stoker.cli.parsing import parse
from stoker.cli.printing import command, from_here
from stoker.cli.signals import Guard
from stoker.errors import ConfigError, MissingDependency

if TYPE_CHECKING:
    from stoker.agents.protocol import LearningAgent
    from stoker.trainer import TrainConfig

__all__ = ["resume", "train"]


async def train(args: Sequence[str]) -> int:
    """``stoker train``."""
    config, arguments = parse_train(args)
    with Guard(limits_from(arguments.place.max_time, arguments.place.grace)) as guard:
        return await _train(config, arguments, guard)


async def _train(config: TrainConfig, arguments: TrainArguments, guard: Guard) -> int:
    from stoker.cli.stored import discard
    from stoker.runs import TrainingRun
    from stoker.trainer.making import env_for

    env_for(config).close()  # before torch is imported, so that a wrong name is reported at once
    agent = _checked_agent(config)
    place = arguments.place
    root = Path(place.runs_dir)
    is_new_root = not await to_thread.run_sync(root.exists)
    run = await TrainingRun.create(place.name, place.run_version, root=root)
    driver = Driver(config, run, agent, guard, progress=place.progress, json=arguments.json)
    driver.say(f"training {config.agent} on {config.env}; run: {from_here(run.directory)}")
    try:
        return await driver.drive()
    except (ConfigError, MissingDependency):  # some need a session to be found; then nothing was trained
        await to_thread.run_sync(discard, run, is_new_root)
        raise


async def resume(args: Sequence[str]) -> int:
    """``stoker resume``."""
    arguments = parse("resume", ResumeArguments, args)
    with Guard(limits_from(arguments.max_time, arguments.grace)) as guard:
        return await _resume(arguments, guard)


async def _resume(arguments: ResumeArguments, guard: Guard) -> int:
    from stoker.cli.stored import open_begun, read_train_config
    from stoker.runs import TrainingRun

    run = await open_begun(arguments.run)
    before = await read_train_config(run)
    config = _with_changes(before, arguments)
    reached = run.newest_step()
    if reached >= config.total_timesteps:
        if arguments.total_timesteps is not None:
            raise ConfigError(
                f"-n {arguments.total_timesteps}: the run has {reached} steps; give more than that"
            )
        again = command(["stoker", "resume", str(run.directory), "-n", str(2 * reached)])
        text = f"{from_here(run.directory)} has all its {reached:,} steps; to continue: {again}"
        print(text, file=sys.stderr if arguments.json else sys.stdout)
        if arguments.json:
            from stoker.trainer import TrainResult

            metadata = run.metadata
            result = TrainResult(
                run=str(run.directory),
                total_steps=metadata.total_steps,
                total_episodes=metadata.total_episodes,
                best_eval_reward=metadata.best_value,
            )
            print(json_line(result))
        return 0
    run = await TrainingRun.resume(run.directory)
    agent = _checked_agent(config)
    driver = Driver(config, run, agent, guard, progress=arguments.progress, json=arguments.json)
    driver.say(f"resuming {config.agent} on {config.env}; run: {from_here(run.directory)}")
    if not reached:
        driver.say("there is no checkpoint: it starts from the beginning")
    return await driver.drive()


def _with_changes(config: TrainConfig, arguments: ResumeArguments) -> TrainConfig:
    from stoker.trainer.config import config_from, with_schedule

    given = {name: getattr(arguments, name) for name in ("total_timesteps", "device", "torch_threads")}
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        return config
    changed = config_from({**msgspec.to_builtins(config), **changes}, "resume")
    return with_schedule(changed, config.total_timesteps)


def _checked_agent(config: TrainConfig) -> LearningAgent:
    """The agent, once everything else that the config asks for is known to be usable. Writes nothing.

    Raises:
        ConfigError: The agent or a setting of the session cannot be used.
        MissingDependency: A tracker's package is not installed.
    """
    from stoker.session import SessionConfig
    from stoker.trainer.making import agent_for, recorders_for, set_torch_threads
    from stoker.trainer.training import session_settings

    SessionConfig(**session_settings(config))
    recorders_for(config)
    set_torch_threads(config)
    return agent_for(config)
