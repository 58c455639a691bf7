"""``stoker train`` and ``stoker resume``: turn flags into a config, and train.

For ``train`` flags come before the TOML file, the agent's preset for the environment, and the defaults.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

import msgspec
from anyio import to_thread

from stoker.agents.registry import AGENTS, agents_with_preset
from stoker.cli.fitting import fitted, settle_offline
from stoker.cli.help import leave_with_help
from stoker.cli.limits import TrainingCommand
from stoker.cli.options import Flag, options_of
from stoker.cli.parsing import RunPath, given_values
from stoker.cli.seeds import seeds_from
from stoker.cli.training_flags import FLAGS, options_of_agents, settings_type, values_of_file, without_help
from stoker.errors import ConfigError, MissingDependency
from stoker.runs.layout import is_group, place_of, safe_name
from stoker.settings import Count, NonNegative, settings_from
from stoker.trainer.cluster_config import moved
from stoker.trainer.config import TrainConfig, config_from, name_of
from stoker.trainer.durations import with_schedule
from stoker.types import PlaceName

if TYPE_CHECKING:
    from stoker.agents.protocol import LearningAgent
    from stoker.cli.driving import Driver
    from stoker.runs import TrainingRun

_FLAGS = FLAGS | {
    "env": Flag(metavar="ENV", default="required, here or in the TOML file", is_positional=True),
    "offline": Flag(metavar="DATA"),
    "agent": Flag(default="default: dqn, sac or ppo, by the environment's actions"),
    "total_timesteps": Flag(short="-n"),
    "workers": Flag(metavar="N|N..M"),
    "cluster": Flag(metavar="auto|local|HOST:PORT"),
}
"""Fields of ``TrainConfig`` whose flags differ from their names and types."""


_REPLACED = (
    "total_timesteps", "device", "torch_threads", "warm_data",
    "actors", "num_envs", "workers", "cluster", "envs_per_worker", "worker_cpus",
)  # fmt: skip
"""Settings that a resume may replace."""


class Train(TrainingCommand, frozen=True, kw_only=True):
    """Train an agent on an environment, into a new run directory.

    A setting comes from its flag, or else from the TOML file, the agent's preset for the environment, or the
    defaults; the values below are those that would be used. Ctrl-C or SIGTERM finishes, saves and prints how
    to resume; a second one exits at once. Without --agent, DQN learns Discrete actions, SAC those of a Box
    with finite bounds, and PPO all others. With --offline the agent learns from a data set, and all steps are
    optimization steps.
    """

    name: Annotated[str, Flag(metavar="NAME", default="default: the environment's")] = ""
    """Name of the run."""

    run_version: Annotated[
        str, Flag(metavar="VERSION", default="default: v1; with --seeds the first that is free")
    ] = ""
    """Version of the run: runs go to RUNS-DIR/NAME/VERSION."""

    seeds: Annotated[str, Flag(metavar="SEEDS")] = ""
    """Train a run for each of these seeds, as 0-4 or 0,3,7, in a new version."""

    jobs: Annotated[Count, Flag(metavar="N")] = 1
    """With --seeds: how many to train at once, each in a separate process."""

    runs_dir: Annotated[str, Flag(metavar="DIR")] = "runs"
    """The directory of all runs."""

    policy: Annotated[tuple[str, ...], Flag(metavar="NAME=PATTERN[:AGENT]", repeats=True)] = ()
    """Of an environment of several agents: a policy for those whose names fit, such as 'red=adversary_*:ppo';
    repeat it for each. Steps and periods then count joint steps, and `stoker resume` continues them all."""

    eval_env: Annotated[str, Flag(metavar="ENV")] = ""
    """With --offline: the environment of evaluations; left out, there are none."""

    restart_learner: bool = False
    """Train on the Ray cluster itself, and start again after each failure and each lost node; the runs
    directory is on storage that all nodes share. Ctrl-C leaves the training; `stoker stop` ends it."""

    config: Annotated[str, Flag(metavar="FILE.toml")] = ""
    """A file of settings, named like these flags; those of the agent may be in a table [agent_settings]."""

    training: TrainConfig
    """The settings, from flags, file, preset and defaults."""

    @classmethod
    def from_words(cls, name: str, words: Sequence[str]) -> Self:
        """As for any command; the agent that the words or the file name adds its settings to the flags."""
        given, wants_help = without_help(words)
        path = _last(given, "--config")
        where = f"--config {path}" if path else name
        values = values_of_file(path)
        for key in ("max_time", "grace"):
            if type(values.get(key)) in (int, float):  # seconds need no quotes
                values[key] = str(values[key])
        agent = _last(given, "--agent") or values.get("agent")
        if not agent:
            agent = _fitting_in_time(name, given, values, wants_help)
        if not isinstance(agent, str):
            raise ConfigError(f"{where}: agent={agent!r} is not a name")
        options = [*options_of(TrainConfig, **_FLAGS), *options_of(cls), *options_of(settings_type(agent))]
        try:
            words_say = given_values(name, options, given)
            _check_seeds(words_say, values)
            values |= words_say
            settle_offline(values)
        except ConfigError:
            if not wants_help:  # which comes before any mistake
                raise
        own = {key: values.pop(key) for key in cls.__struct_fields__ if key in values}
        training = config_from({"env": "", "agent": agent, **values}, where)
        own |= {"name": own.get("name") or safe_name(name_of(training)), "training": training}
        command = settings_from(own, cls, where)
        if wants_help:
            leave_with_help(name, cls, options, command, training, training.agent_settings)
        if training.cluster != "auto" and training.actors != "ray" and not command.restart_learner:
            raise ConfigError(f"--cluster {training.cluster}: no actors play there: add --actors ray")
        if not (training.env or training.offline):
            raise ConfigError(
                f"name an environment, such as `stoker {name} CartPole-v1` (see `stoker {name} --help`)"
            )
        return command

    async def __call__(self) -> int:
        if self.restart_learner:
            return await self._train_elsewhere()
        if self.policy:
            from stoker.cli.groups import train_policies

            place = self.name, self.run_version or "v1", self.runs_dir
            return await train_policies(self, self.training, self.policy, *place)
        if self.seeds:
            from stoker.cli.sweep import train_seeds

            name = place_of(self.name, self.run_version or "v1", self.runs_dir).parent
            seeds = seeds_from(self.seeds)
            return await train_seeds(self, self.training, seeds, self.jobs, name, self.run_version)
        from stoker.cli.driving import Driver

        with Driver(self) as driver:
            return await self.train_with(driver)

    async def _train_elsewhere(self) -> int:
        from stoker.cli.detached import train_elsewhere

        for flag, value in (("--policy", self.policy), ("--seeds", self.seeds)):
            if value:
                raise ConfigError(f"{flag} --restart-learner: a learner elsewhere trains one run")
        config, _ = await fitted(self.training)
        _checked_agent(config)
        return await train_elsewhere(
            self, config, place_of(self.name, self.run_version or "v1", self.runs_dir)
        )

    async def train_with(self, driver: Driver) -> int:
        """Train one seed; the exit code."""
        from stoker.cli.printing import from_here
        from stoker.cli.stored import discard
        from stoker.runs import TrainingRun
        from stoker.trainer.players import cluster_for
        from stoker.trainer.training import trainer_config
        from stoker.trainer.vectorizing import LEAST_ENVS

        root = Path(self.runs_dir)
        config, said = await fitted(self.training)
        agent = _checked_agent(config)
        async with cluster_for(trainer_config(config)):
            is_new_root = not await to_thread.run_sync(root.exists)
            run = await TrainingRun.create(self.name, self.run_version or "v1", root=root)
            driver.say(f"training {config.agent} on {name_of(config)}; run: {from_here(run.directory)}")
            if config.offline or (self.training.vectorize == "auto" and config.num_envs >= LEAST_ENVS):
                driver.say("\n".join(said))
            try:
                return await driver.drive(config, run, agent)
            except (ConfigError, MissingDependency):  # some need a session to be found; nothing was trained
                await to_thread.run_sync(discard, run, is_new_root)
                raise


class Resume(TrainingCommand, frozen=True, kw_only=True):
    """Resume a run where it ended, however it ended.

    Weights, optimizer, replay, generators, counters and the best evaluation are restored from the newest
    checkpoint, and the steps that the journal holds behind it are learned again. With -n, a run that has
    reached its total continues to a larger one. A version that `stoker train --seeds` made is resumed as a
    whole: each seed that has not all its steps, and those that have not begun.
    """

    run: RunPath
    """The run's directory, or that of a version or name: then its newest run, or all seeds of its sweep."""

    total_timesteps: Annotated[
        Count | None, Flag(short="-n", metavar="INT", default="default: the run's")
    ] = None
    """Steps to train for, including those that the run has; optimization steps if it is on a data set."""

    device: Annotated[str | None, Flag(metavar="STR", default="default: the run's")] = None
    """Device of the learner: cpu, cuda, cuda:1, mps."""

    torch_threads: Annotated[Count | None, Flag(metavar="INT", default="default: the run's")] = None
    """Number of torch's threads."""

    warm_data: Annotated[str | None, Flag(metavar="DATA", default="default: where they were")] = None
    """Where the prior data of a run with --warm-data are now."""

    roll_forward: bool = True
    """Learn again what the journal holds behind the checkpoint; else those steps are played and trained anew,
    and their old rows stay in the files, marked as an abandoned future."""

    strict: bool = False
    """Fail where the journal behind the checkpoint cannot be read, instead of going on from there."""

    jobs: Annotated[Count | None, Flag(metavar="N", default="default: as many as before")] = None
    """Of a version that --seeds made: how many to train at once."""

    actors: Annotated[
        PlaceName | None, Flag(metavar="{tasks,threads,processes,ray}", default="default: the run's")
    ] = None
    """Where actors run from here on: tasks, threads, processes, or ray for a cluster."""

    num_envs: Annotated[Count | None, Flag(metavar="INT", default="default: the run's")] = None
    """Number of concurrent environments from here on; with lockstep that of the run."""

    workers: Annotated[int | str | None, Flag(metavar="N|N..M", default="default: the run's")] = None
    """With ray: workers on the cluster; any number may take over, of any cluster."""

    cluster: Annotated[str | None, Flag(metavar="ADDRESS", default="default: the run's")] = None
    """With ray: the cluster: auto, local, or HOST:PORT."""

    envs_per_worker: Annotated[Count | None, Flag(metavar="INT", default="default: the run's")] = None
    """With ray: environments of each worker."""

    worker_cpus: Annotated[NonNegative | None, Flag(metavar="FLOAT", default="default: the run's")] = None
    """With ray: CPUs that the cluster sets aside for each worker."""

    restart_learner: bool = False
    """Follow the training of the run on its Ray cluster, or resume it there: see `stoker train`."""

    async def __call__(self) -> int:
        from stoker.cli.driving import Driver
        from stoker.cli.stored import group_at, sweep_at

        if self.strict and not self.roll_forward:
            raise ConfigError("--strict --no-roll-forward: give one of them")
        if (group := await to_thread.run_sync(group_at, self.run)) is not None:
            from stoker.cli.groups import resume_policies

            return await resume_policies(self, group, self.changed)
        if (version := await to_thread.run_sync(sweep_at, self.run)) is not None:
            from stoker.cli.sweep import resume_seeds

            fields = {name: getattr(self, name) for name in (*_REPLACED, "roll_forward", "strict")}
            return await resume_seeds(self, version, self.jobs, self.changed, fields)
        if self.jobs is not None:
            raise ConfigError(f"--jobs {self.jobs}: {self.run} is not a version that --seeds made")
        if self.restart_learner:
            return await self._resume_elsewhere()
        with Driver(self) as driver:
            return await self.resume_with(driver)

    async def _resume_elsewhere(self) -> int:
        from stoker.cli.detached import resume_elsewhere
        from stoker.cli.stored import open_trained

        if self.strict or not self.roll_forward:
            flag = "--strict" if self.strict else "--no-roll-forward"
            raise ConfigError(
                f"{flag} --restart-learner: a learner elsewhere rolls forward; resume it here once"
            )
        run, config = await open_trained(self.run)
        return await resume_elsewhere(self, self.changed(config), run)

    async def resume_with(self, driver: Driver) -> int:
        """Resume one run; the exit code."""
        from stoker.cli.driving import FACTS
        from stoker.cli.printing import command, from_here, say_json
        from stoker.cli.stored import open_trained

        run, config = await open_trained(self.run)
        if is_group(run.directory.parent):
            raise ConfigError(
                f"{from_here(run.directory)} is one policy of several: resume all of them with "
                f"`{command(['stoker', 'resume', str(run.directory.parent)])}`"
            )
        if config.spaces is not None and not config.offline:
            raise ConfigError(
                f"{from_here(run.directory)} learns from remote actors: continue it with the command "
                f"that began it, like `{command(_serving(run, config))}`"
            )
        config = self.changed(config)
        reached = run.newest_step()
        if reached < config.total_timesteps:
            from stoker.runs import TrainingRun
            from stoker.trainer.players import cluster_for
            from stoker.trainer.training import trainer_config

            async with cluster_for(trainer_config(config)):
                run = await TrainingRun.resume(run.directory)
                run.is_new = not await to_thread.run_sync(run.has_begun)  # but for a config
                agent = _checked_agent(config)
                verb = "training" if run.is_new else "resuming"
                driver.say(f"{verb} {config.agent} on {name_of(config)}; run: {from_here(run.directory)}")
                if not (reached or run.is_new or (self.roll_forward and run.journal.segments())):
                    driver.say("no checkpoint yet: the training starts from the beginning")
                roll_forward = "strict" if self.strict else self.roll_forward
                return await driver.drive(config, run, agent, roll_forward=roll_forward)
        if self.total_timesteps is not None:
            raise ConfigError(f"-n {self.total_timesteps}: the run has {reached} steps; give more than that")
        again = command(["stoker", "resume", str(run.directory), "-n", str(2 * reached)])
        text = f"{from_here(run.directory)} has all its {reached:,} steps; to continue: {again}"
        print(text, file=sys.stderr if self.json else sys.stdout)
        if self.json:
            found = run.metadata
            facts = (str(run.directory), found.total_steps, found.total_episodes, 0.0, found.best_value)
            say_json(dict(zip(FACTS, facts, strict=True)))
        return 0

    def changed(self, config: TrainConfig) -> TrainConfig:
        """The config of a run, with what the flags replace."""
        given = {name: getattr(self, name) for name in _REPLACED}
        changes = {name: value for name, value in given.items() if value is not None}
        changed = config_from(moved(config, changes), "resume")
        settings = with_schedule(changed.agent_settings, changed.total_timesteps, config.total_timesteps)
        return msgspec.structs.replace(changed, agent_settings=settings)


def _serving(run: TrainingRun, config: TrainConfig) -> list[str]:
    """The command that continues a run of remote actors."""
    of = ["--env", config.env] if config.env else ["--spaces", "FILE.json"]
    return ["stoker", "serve", *of, "--name", run.metadata.name, "--run-version", run.metadata.version]


def _fitting_in_time(command: str, given: Sequence[str], values: dict[str, Any], wants_help: bool) -> str:
    """The agent for the environment, found within the time that ``--max-time`` leaves."""
    if not (max_time := _last(given, "--max-time") or values.get("max_time")):
        return _fitting(command, given, values, wants_help)
    from stoker.cli.fitting_time import in_time

    with in_time(max_time):
        return _fitting(command, given, values, wants_help)


def _fitting(command: str, given: Sequence[str], values: dict[str, Any], wants_help: bool) -> str:
    """The agent for the environment that the words or the file name; without one the first of all.

    Raises:
        ConfigError: The environment cannot be made, or a flag is no agent's; not for help.
    """
    options = [*options_of(TrainConfig, **_FLAGS), *options_of(Train), *options_of_agents()]
    try:
        found = {**values, **given_values(command, options, given)}
        if wants_help and (tuned := agents_with_preset(found.get("env", ""))):
            return tuned[0]  # help appears without Gymnasium where that is possible
        if found.get("offline"):
            from stoker.trainer.preparing import fitting_agent_of_data

            return fitting_agent_of_data(found["offline"], found.get("ends"))
        if found.get("env"):
            from stoker.trainer.making import fitting_agent

            known = {name: value for name, value in found.items() if name in TrainConfig.__struct_fields__}
            first = next(iter(AGENTS))  # any will do: the environment is the same
            if found.get("policy") or found.get("self_play"):
                return "ppo"  # which stands opponents that change
            return fitting_agent(config_from({**known, "agent": first}, command))
    except ConfigError:
        if not wants_help:
            raise
    return next(iter(AGENTS))


def _check_seeds(given: Mapping[str, Any], in_file: dict[str, Any]) -> None:
    """Refuse flags that exclude each other; what flags say replaces what the file says.

    Raises:
        ConfigError: One seed and several, or what goes with several only.
    """
    if "seed" in given and "seeds" in given:
        raise ConfigError(f"--seed {given['seed']} --seeds {given['seeds']}: give one of them")
    if isinstance(seeds := in_file.get("seeds"), list):  # as TOML has them; a text has ranges
        in_file["seeds"] = ",".join(map(str, cast("list[Any]", seeds)))
    if "seed" in given:
        for name in ("seeds", "jobs"):
            in_file.pop(name, None)
    if "seeds" in given:
        in_file.pop("seed", None)
    both = {**in_file, **given}
    if "seed" in both and "seeds" in both:
        raise ConfigError(f"seed = {both['seed']!r}, seeds = {both['seeds']!r}: give one of them")
    if "seeds" in both:
        seeds_from(both["seeds"])
        if both.get("policy"):
            raise ConfigError(
                f"--seeds {both['seeds']} --policy: a sweep has one score for each seed, a group several: "
                "train a group for each; `stoker plot runs/NAME --group-by version` averages each policy"
            )
        if both.get("metrics_port") is not None:
            raise ConfigError(
                f"--seeds {both['seeds']} --metrics-port {both['metrics_port']}: each seed is a process, and "
                "they cannot share a port; `stoker dash` shows them all"
            )
    elif "jobs" in both:
        raise ConfigError(f"--jobs {both['jobs']}: give --seeds, too, as in --seeds 0-4 --jobs 2")


def _last(args: Sequence[str], flag: str) -> str:
    """The last value that a flag has among the words, "" without one."""
    found = ""
    for word, after in zip(args, [*args, ""][1:], strict=True):
        name, equals, text = word.partition("=")
        if name == flag:
            found = text if equals else after
    return found


def _checked_agent(config: TrainConfig) -> LearningAgent:
    """The agent, once everything else that the config asks for is known to be usable. Writes nothing.

    Raises:
        ConfigError: The agent, a setting of the session or the prior data cannot be used.
        MissingDependency: A tracker's package is not installed.
    """
    from stoker.session import SessionConfig
    from stoker.trainer.making import agent_for, check_has_data, recorders_for, set_torch_threads
    from stoker.trainer.training import session_settings

    check_has_data(config)
    SessionConfig(**session_settings(config))
    recorders_for(config)
    set_torch_threads(config)
    agent = agent_for(config)
    if config.warm_data:
        from stoker.trainer.parts import NamedDataset
        from stoker.trainer.warming import check_prior_spaces

        check_prior_spaces(agent, NamedDataset(config.warm_data, config.ends), config.mix)
    return agent
