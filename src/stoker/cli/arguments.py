"""The words of ``stoker train`` and ``stoker resume``.

For ``train`` flags come before TOML, the preset and the defaults. Its words are parsed twice: first to learn
agent, environment and config file, then with the settings that these bring as defaults, so that ``--help``
shows the values that would be used.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import tyro

from stoker.agents.registry import config_type, is_own
from stoker.cli.parsing import ASSIGNMENTS, RunPath, flag, gathered, parse, required, without_help
from stoker.errors import ConfigError
from stoker.runs.layout import safe_name
from stoker.settings import read_toml, settings_from
from stoker.trainer.config import TrainConfig, config_from, with_schedule

__all__ = ["ResumeArguments", "TrainArguments", "parse_train"]

_OWN_SETTINGS = tyro.conf.arg(
    help="Keyword arguments for the agent's factory, such as learning_rate=0.001: JSON values, or else text.",
    help_behavior_hint="(default: none)",
)
_LINE_FOR_SCRIPTS = "End standard output with one line of JSON, for scripts; all else goes to standard error."


class ProcessFlags(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long this process trains, and what it shows; the result does not depend on it."""

    max_time: Annotated[str | None, flag("TIME", "none")] = None
    """End this process, saved, when it is as old as that: 3600, 90s, 30m, 1h30m, 01:30:00."""

    grace: Annotated[str, tyro.conf.arg(metavar="TIME")] = "30s"
    """How long finishing may take after Ctrl-C or SIGTERM; then the process leaves with exit code 1."""

    progress: bool = True
    """Show how it goes: a live view on a terminal, else a line every few seconds."""


class RunPlace(ProcessFlags, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the run goes; the result does not depend on it."""

    name: Annotated[str, flag("NAME", "the environment's")] = ""
    """Name of the run."""

    run_version: Annotated[str, tyro.conf.arg(metavar="VERSION")] = "v1"
    """Version of the run: runs go to RUNS-DIR/NAME/VERSION."""

    runs_dir: Annotated[str, tyro.conf.arg(metavar="DIR")] = "runs"
    """The directory of all runs."""


class TrainArguments(TrainConfig, frozen=True, kw_only=True):
    """Train an agent on an environment, into a new run directory.

    A setting comes from its flag, or else from the TOML file, the agent's preset for the environment, or the
    defaults; the values below are those that would be used. Ctrl-C or SIGTERM finishes, saves and prints how
    to resume; a second one exits at once.
    """

    env: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="ENV", help_behavior_hint="(required, here or in the TOML file)"),
    ] = ""
    """The environment: a Gymnasium id such as CartPole-v1, module:id, or your own as module:factory."""

    imports: Annotated[
        tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE", help_behavior_hint="(default: none)")
    ] = ()
    """A module to import first, such as one that registers environments; may be given several times."""

    env_kwargs: Annotated[
        dict[str, Any], ASSIGNMENTS, tyro.conf.arg(help_behavior_hint="(default: none)")
    ] = {}  # noqa: RUF012 - msgspec copies it
    """Arguments of the environment, such as is_slippery=false: parsed as JSON, anything else is text."""

    total_timesteps: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 0
    """Environment steps to train for, over all environments and resumes."""

    place: Annotated[RunPlace, tyro.conf.arg(name="")] = RunPlace()

    config: Annotated[str | None, flag("FILE.toml", "none")] = None
    """A file of settings, named like these flags; those of the agent may be in a table [agent_settings]."""

    json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help=_LINE_FOR_SCRIPTS)] = False


class ResumeArguments(ProcessFlags, frozen=True, kw_only=True):
    """Resume a run from its newest checkpoint.

    Weights, optimizer, replay, generators, counters and the best evaluation are restored from the checkpoint.
    Steps after the checkpoint are trained again; their old rows stay in the files, marked as an abandoned
    future. With -n, a run that has reached its total continues to a larger one.
    """

    run: RunPath = ""

    total_timesteps: Annotated[
        int | None, tyro.conf.arg(aliases=["-n"], metavar="INT", help_behavior_hint="(default: the run's)")
    ] = None
    """Environment steps to train for, including those that the run has."""

    device: Annotated[str | None, flag("STR", "the run's")] = None
    """Device of the learner: cpu, cuda, cuda:1, mps."""

    torch_threads: Annotated[int | None, flag("INT", "the run's")] = None
    """Number of torch's threads."""

    json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help=_LINE_FOR_SCRIPTS)] = False


def parse_train(args: Sequence[str]) -> tuple[TrainConfig, TrainArguments]:
    """Read the command line of ``stoker train``.

    Returns:
        The checked config, and the arguments for what is not in it; their ``place.name`` is filled in.

    Raises:
        ConfigError: A flag, a key of the TOML file, a name or a value cannot be used.
    """
    args = gathered(args)
    named = _peek(args)
    where = f"--config {named.config}"
    from_file = read_toml(Path(named.config), "--config ") if named.config else {}
    place = _place_from(from_file, where)
    agent = named.agent or from_file.get("agent", "dqn")
    if not isinstance(agent, str):
        raise ConfigError(f"{where}: agent={agent!r} is not a name")
    kind, settings = _types_for(agent)

    def parsed(words: Sequence[str], base: TrainConfig | None) -> TrainArguments:
        default = kind() if base is None else _as_arguments(base, kind, settings, place)
        return parse("train", kind, words, default)

    env = _env_in(args, parsed) or from_file.get("env", "")
    base = config_from({**from_file, "env": env, "agent": agent}, where)
    arguments = parsed(args, base)
    required(arguments.env, "train", "an environment", "CartPole-v1")
    values = {name: getattr(arguments, name) for name in TrainConfig.__struct_fields__}
    values["agent_settings"] = msgspec.to_builtins(arguments.agent_settings)
    config = config_from(values, "train")
    in_file = "schedule_steps" in {**from_file, **from_file.get("agent_settings", {})}
    if not in_file and not any(word.replace("_", "-").startswith("--schedule-steps") for word in args):
        config = with_schedule(config, getattr(base.agent_settings, "schedule_steps", None))
    place = arguments.place
    place = msgspec.structs.replace(place, name=place.name or safe_name(config.env))
    return config, msgspec.structs.replace(arguments, place=place)


def _peek(args: Sequence[str]) -> argparse.Namespace:
    """The agent and the config file, wherever these flags are."""
    peeking = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    peeking.add_argument("--agent", nargs="?")
    peeking.add_argument("--config", nargs="?")
    try:
        return peeking.parse_known_args(args)[0]
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error} (see `stoker train --help`)") from None


def _env_in(args: Sequence[str], parsed: Any) -> str:
    """The environment that the words name, or an empty text."""
    words = without_help(args)
    try:
        return cast("TrainArguments", parsed(words, None)).env
    except ConfigError:
        if len(words) < len(args):
            return ""  # help was asked for: it comes first
        raise


def _types_for(agent: str) -> tuple[type[TrainArguments], type[Any]]:
    """The arguments' type with the agent's settings as flags, and the type of these settings."""
    if is_own(agent):
        return _with_settings(Annotated[dict[str, Any], ASSIGNMENTS, _OWN_SETTINGS], {}), dict
    # The settings are checked when flags, file and preset are put together, not while they are parsed.
    settings = msgspec.defstruct(
        "Settings",
        [],
        bases=(config_type(agent),),
        namespace={"__post_init__": lambda self: None},  # pyright: ignore[reportUnknownLambdaType]
        frozen=True,
        kw_only=True,
    )
    return _with_settings(Annotated[settings, tyro.conf.arg(name="")], settings()), settings


def _with_settings(kind: Any, default: Any) -> type[TrainArguments]:
    fields = [("agent_settings", kind, default)]
    made = msgspec.defstruct("Arguments", fields, bases=(TrainArguments,), frozen=True, kw_only=True)
    return cast("type[TrainArguments]", made)


def _as_arguments(
    base: TrainConfig, kind: type[TrainArguments], settings: type[Any], place: RunPlace
) -> TrainArguments:
    values = {name: getattr(base, name) for name in TrainConfig.__struct_fields__}
    own = base.agent_settings
    values["agent_settings"] = settings(**(own if isinstance(own, dict) else msgspec.structs.asdict(own)))
    return kind(**values, place=place)


def _place_from(values: dict[str, Any], where: str) -> RunPlace:
    """Take the fields of ``RunPlace`` out of the file's values."""
    own = {key: values.pop(key) for key in RunPlace.__struct_fields__ if key in values}
    for key in ("max_time", "grace"):
        if type(own.get(key)) in (int, float):  # seconds need no quotes
            own[key] = str(own[key])
    return settings_from(own, RunPlace, where)
