"""``stoker train`` and ``stoker resume``: their flags, and from these to a training.

For ``train`` flags come before the TOML file, the agent's preset for the environment, and the defaults.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from anyio import to_thread

from stoker.agents.registry import config_type, is_own
from stoker.cli.limits import ProcessFlags
from stoker.cli.parsing import Flag, Option, RunPath, given_values, help_text, options_of, parse
from stoker.errors import ConfigError, MissingDependency
from stoker.runs.layout import safe_name
from stoker.settings import Count, read_toml, settings_from
from stoker.trainer.config import TrainConfig, config_from, with_schedule

if TYPE_CHECKING:
    from stoker.agents.protocol import LearningAgent
    from stoker.cli.driving import Guard

__all__ = ["ResumeArguments", "TrainArguments", "parse_train", "resume", "train"]

_FLAGS = {
    "env": Flag(metavar="ENV", default="required, here or in the TOML file", is_positional=True),
    "imports": Flag(name="import", metavar="MODULE", repeats=True),
    "total_timesteps": Flag(short="-n"),
}
"""How the fields of ``TrainConfig`` are given, where that is not the usual way."""


class TrainArguments(ProcessFlags, frozen=True, kw_only=True):
    """Train an agent on an environment, into a new run directory.

    A setting comes from its flag, or else from the TOML file, the agent's preset for the environment, or the
    defaults; the values below are those that would be used. Ctrl-C or SIGTERM finishes, saves and prints how
    to resume; a second one exits at once.
    """

    name: Annotated[str, Flag(metavar="NAME", default="default: the environment's")] = ""
    """Name of the run."""

    run_version: Annotated[str, Flag(metavar="VERSION")] = "v1"
    """Version of the run: runs go to RUNS-DIR/NAME/VERSION."""

    runs_dir: Annotated[str, Flag(metavar="DIR")] = "runs"
    """The directory of all runs."""

    config: Annotated[str, Flag(metavar="FILE.toml")] = ""
    """A file of settings, named like these flags; those of the agent may be in a table [agent_settings]."""


class _OwnSettings(msgspec.Struct, frozen=True):
    agent_settings: dict[str, Any] = {}
    """Keyword arguments for the agent's factory, such as learning_rate=0.001."""


class ResumeArguments(ProcessFlags, frozen=True, kw_only=True):
    """Resume a run from its newest checkpoint.

    Weights, optimizer, replay, generators, counters and the best evaluation are restored from the checkpoint.
    Steps after the checkpoint are trained again; their old rows stay in the files, marked as an abandoned
    future. With -n, a run that has reached its total continues to a larger one.
    """

    run: RunPath
    """The run's directory, or that of a version or name: then its newest run."""

    total_timesteps: Annotated[
        Count | None, Flag(short="-n", metavar="INT", default="default: the run's")
    ] = None
    """Environment steps to train for, including those that the run has."""

    device: Annotated[str | None, Flag(metavar="STR", default="default: the run's")] = None
    """Device of the learner: cpu, cuda, cuda:1, mps."""

    torch_threads: Annotated[Count | None, Flag(metavar="INT", default="default: the run's")] = None
    """Number of torch's threads."""


def parse_train(args: Sequence[str]) -> tuple[TrainConfig, TrainArguments]:
    """Read the command line of ``stoker train``.

    Returns:
        The checked config, and the arguments that are not in it; their ``name`` is filled in.

    Raises:
        ConfigError: A flag, a key of the TOML file, a name or a value cannot be used.
    """
    words = [word for word in args if word not in ("-h", "--help")]
    wants_help = len(words) < len(args)
    path = _last(words, "--config")
    where = f"--config {path}" if path else "train"
    values = read_toml(Path(path), "--config ") if path else {}
    if "import" in values:
        values["imports"] = values.pop("import")
    for key in ("max_time", "grace"):
        if type(values.get(key)) in (int, float):  # seconds need no quotes
            values[key] = str(values[key])
    agent = _last(words, "--agent") or values.get("agent", "dqn")
    if not isinstance(agent, str):
        raise ConfigError(f"{where}: agent={agent!r} is not a name")
    options = _options(agent)
    try:
        values |= given_values("train", options, words)
    except ConfigError:
        if not wants_help:
            raise
    own = {key: values.pop(key) for key in TrainArguments.__struct_fields__ if key in values}
    arguments = settings_from(own, TrainArguments, where)
    config = config_from({"env": "", "agent": agent, **values}, where)
    if wants_help:
        used = msgspec.structs.asdict(arguments) | msgspec.structs.asdict(config)
        if isinstance(config.agent_settings, msgspec.Struct):
            used |= msgspec.structs.asdict(config.agent_settings)
        print(help_text("train", TrainArguments, options, used))
        raise SystemExit(0)
    if not config.env:
        raise ConfigError(
            "name an environment, such as `stoker train CartPole-v1` (see `stoker train --help`)"
        )
    return config, msgspec.structs.replace(arguments, name=arguments.name or safe_name(config.env))


def _last(args: Sequence[str], flag: str) -> str:
    """The last value that a flag has among the words, "" without one."""
    found = ""
    for word, after in zip(args, [*args, ""][1:], strict=True):
        name, equals, text = word.partition("=")
        if name == flag:
            found = text if equals else after
    return found


def _options(agent: str) -> list[Option]:
    """The options of ``stoker train``, the agent's settings among them."""
    training = [option for option in options_of(TrainConfig, **_FLAGS) if option.field != "agent_settings"]
    own = _OwnSettings if is_own(agent) else config_type(agent)
    return [*training, *options_of(TrainArguments), *options_of(own)]


async def train(args: Sequence[str]) -> int:
    """``stoker train``."""
    config, arguments = parse_train(args)
    from stoker.cli.driving import Driver, Guard
    from stoker.cli.printing import from_here
    from stoker.cli.stored import discard
    from stoker.runs import TrainingRun
    from stoker.trainer.making import env_for

    with Guard(arguments.limits()) as guard:
        env_for(config).close()  # before torch is imported, so that a wrong name is reported at once
        agent = _checked_agent(config)
        root = Path(arguments.runs_dir)
        is_new_root = not await to_thread.run_sync(root.exists)
        run = await TrainingRun.create(arguments.name, arguments.run_version, root=root)
        driver = Driver(config, run, agent, guard, arguments)
        driver.say(f"training {config.agent} on {config.env}; run: {from_here(run.directory)}")
        try:
            return await driver.drive()
        except (ConfigError, MissingDependency):  # some need a session to be found; then nothing was trained
            await to_thread.run_sync(discard, run, is_new_root)
            raise


async def resume(args: Sequence[str]) -> int:
    """``stoker resume``."""
    arguments = parse("resume", ResumeArguments, args)
    from stoker.cli.driving import Guard

    with Guard(arguments.limits()) as guard:
        return await _resume(arguments, guard)


async def _resume(arguments: ResumeArguments, guard: Guard) -> int:
    from stoker.cli.driving import Driver, json_line
    from stoker.cli.printing import command, from_here
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
    driver = Driver(config, run, agent, guard, arguments)
    driver.say(f"resuming {config.agent} on {config.env}; run: {from_here(run.directory)}")
    if not reached:
        driver.say("there is no checkpoint: it starts from the beginning")
    return await driver.drive()


def _with_changes(config: TrainConfig, arguments: ResumeArguments) -> TrainConfig:
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
