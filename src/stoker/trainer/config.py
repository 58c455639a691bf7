"""Settings of a whole training. Free of torch: help and errors appear at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast

import msgspec
from msgspec import Meta

from stoker.agents.registry import agents_with_preset, config_type, is_own, preset, training_preset
from stoker.envs.protocol import Stepping
from stoker.envs.wrapping import EnvWrapper
from stoker.errors import ConfigError
from stoker.multi.standings import Choice
from stoker.runs.layout import is_run
from stoker.runs.metadata import read_metadata
from stoker.settings import (
    Count,
    Natural,
    NonNegative,
    Positive,
    Settings,
    refuse_unknown,
    settings_from,
)
from stoker.trainer.cluster_config import check_cluster, n_envs_on_cluster
from stoker.trainer.data_config import absolute_source, check_data
from stoker.trainer.durations import with_rollouts, with_schedule
from stoker.trainer.evaluation import LONGEST_EPISODE, BestBy
from stoker.types import PlaceName

Tracker: TypeAlias = Literal["console", "tensorboard", "mlflow", "wandb", "trackio"]

Vectorize: TypeAlias = Literal["auto", "none", "sync", "async", "native"]
"""How environments are stepped together; see ``stoker.trainer.vectorizing``.

- ``"none"``: each by an actor, at its own pace.
- ``"sync"``: all at once, one after the other, as arrays.
- ``"async"``: all at once, one process per environment.
- ``"native"``: all at once, by the vector form that the environment's author registered.
- ``"auto"``: the fastest of ``"none"``, ``"sync"`` and ``"native"`` in a few steps, for many environments.
"""


class TrainConfig(Settings, frozen=True, kw_only=True):
    """A training of one agent on one environment; the content of ``config.json``.

    Raises:
        ConfigError: A value is of a wrong type or out of range, no agent has that name, or ``env_kwargs`` or
            the settings of an agent of your own hold values that JSON lacks.
    """

    env: str
    """The environment: a Gymnasium id like CartPole-v1, module:id, module:factory or pettingzoo:MODULE. With
    a data set (offline) that of evaluations; empty: there are none."""

    offline: str = ""
    """Train on this data set instead of an environment; steps are then optimization steps."""

    ends: Literal["terminal", "timeout"] | None = None
    """What the ends of episodes are, for a data set that does not tell terminal from timeout."""

    agent: str = "dqn"
    """The agent: dqn, iqn, ppo, sac, td3, iql, awac, bc, cql, or your own as module:factory."""

    imports: tuple[str, ...] = ()
    """What registers environments: modules to import, or module:function to call."""

    env_kwargs: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it
    """Keyword arguments for making the environment."""

    wrappers: tuple[EnvWrapper, ...] = ()
    """Wrappers of each environment, as module:Class, the first one innermost; a file can give arguments."""

    num_envs: Count = 8
    """Number of concurrent environments."""

    vectorize: Vectorize = "auto"
    """Step all environments at once: none, sync, async, native (their own form), or auto (the fastest)."""

    total_timesteps: Count = 100_000
    """Environment steps to train for, over all environments and resumes."""

    seed: Natural = 42
    """Seed of the agent and the environments; evaluations have their own seeds."""

    checkpoint_freq: Natural = 10_000
    """Environment steps between checkpoints; 0: only the final one."""

    keep_checkpoints: Natural | None = 3
    """Number of step checkpoints to keep; none: all of them."""

    keep_every: Natural = 0
    """Never prune checkpoints at multiples of this many steps; 0: prune all."""

    keep_best: Count = 1
    """Number of the best evaluated policies to keep."""

    journal: bool = True
    """Write every transition to the run's journal: small checkpoints, and the training can be replayed."""

    keep_journal: Literal["needed", "all"] = "needed"
    """How much of the journal to keep: what the newest checkpoints need, or all."""

    lockstep: bool = False
    """Environments take turns with the learner: slower, but repeatable, and a resume is exact to the bit."""

    actor_timeout_s: Positive = 60.0
    """Seconds without an answer after which an environment is stuck."""

    on_silent_actor: Literal["warn", "restart", "fail"] = "warn"
    """What to do with a stuck environment: warn, restart it, or fail."""

    stall_timeout_s: Positive = 120.0
    """Seconds without progress of the learner or the disk after which the training fails."""

    eval_freq: Natural = 2_500
    """Environment steps between evaluations; 0: never."""

    eval_episodes: Count = 20
    """Episodes in an evaluation."""

    eval_max_episode_steps: Count | None = LONGEST_EPISODE
    """Truncate an evaluation's episode after this many steps; none: only its environment ends it."""

    stop_at_reward: float | None = None
    """End the training when an evaluation reaches this mean reward."""

    best_by: BestBy = "mean"
    """Compare evaluations by their mean, or by the lower_bound of its 95 % interval."""

    confirm_best: bool = False
    """Evaluate a policy again, on other seeds, before it becomes the best."""

    patience: Count | None = None
    """End the training after this many evaluations in a row without improvement; none: never."""

    record_freq: Natural = 1_000
    """Environment steps between records of the metrics; 0: never."""

    track: tuple[Tracker, ...] = ()
    """Recorders besides metrics.jsonl: console, tensorboard, mlflow, wandb, trackio."""

    device: str = "cpu"
    """Device of the learner: cpu, cuda, cuda:1, mps."""

    opt_interval: Count = 1
    """Environment steps per optimization step."""

    warmup_period: Natural = 0
    """Environment steps before the first optimization step."""

    max_staleness: Natural | None = None
    """The most optimization steps that a policy may lag when its transition is learned; none: no limit."""

    actors: PlaceName = "tasks"
    """Where actors run: tasks, threads, processes, or ray for a cluster."""

    workers: int | str | None = None
    """With ray: workers on the cluster, as 4, or 4..64 for as many of these as there is room for; none: as
    many as num_envs needs. Else threads or processes that share the environments stepped together."""

    cluster: str = "auto"
    """With ray: the cluster: auto (RAY_ADDRESS, or the one started here last), local, or HOST:PORT."""

    envs_per_worker: Count = 8
    """With ray: environments of each worker; num_envs is the product."""

    worker_cpus: NonNegative = 1.0
    """With ray: CPUs that the cluster sets aside for each worker."""

    sync_interval: Count | None = None
    """Optimization steps after which actors refresh their copies of the policy; none: tasks share one."""

    frame_stack: Count = 1
    """Number of last observations that the agent sees at once, the newest last."""

    queue_capacity: Count = 16
    """Steps that may wait for the learner; a smaller queue keeps the acting policy fresher."""

    stepping: Stepping = "auto"
    """Where environments are stepped: inline on the event loop, each in a thread, or auto."""

    torch_threads: Count = 1
    """Number of torch's threads; small networks are fastest with one."""

    warm_data: str = ""
    """Prior data, a share of each batch of an off-policy agent: a data set, or the directory of a run."""

    mix: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    """The share of warm_data in a batch, above 0 and below 1."""

    self_play: bool = False
    """Learn in games against frozen policies of the training's own past; evaluations are against a random
    opponent."""

    pool_freq: Count = 10_000
    """With self_play: environment steps between two policies that are frozen."""

    pool_keep: Count = 20
    """With self_play: number of frozen policies to keep."""

    choose: str = "latest:0.5,uniform:0.5"
    """With self_play: how opponents are chosen: latest, uniform, pfsp, or shares of these."""

    spaces: Any = None
    """The spaces of remote actors, as ``stoker serve`` keeps them, or of a data set; None: those of the
    environment."""

    reference_scores: Any = None
    """The scores of a random policy and of an expert, for normalized scores; None: there are none."""

    agent_settings: Any = None
    """The agent's settings, for example a DQNConfig; for an agent of your own, keyword arguments by name.
    Left out, they are the agent's defaults; presets are for ``config_from``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.agent_settings is None and not is_own(self.agent):
            # Spelled out: a reader of config.json takes the settings that it lacks from the preset.
            msgspec.structs.force_setattr(self, "agent_settings", config_type(self.agent)())
        check_cluster(self)
        self._check_vectorize()
        check_data(self)
        for name in ("offline", "warm_data"):
            if source := getattr(self, name):
                msgspec.structs.force_setattr(self, name, absolute_source(source))
        Choice.parse(self.choose)
        for name in ("env_kwargs", "agent_settings"):
            value = getattr(self, name)
            if isinstance(value, Mapping):  # as config.json gives it back, so that a resume is the same
                try:
                    plain = json.loads(json.dumps(msgspec.to_builtins(value), allow_nan=False))
                except (TypeError, ValueError) as error:
                    raise ConfigError(
                        f"{name}={value!r} cannot be kept in config.json ({error}): give numbers, text, lists"
                    ) from None
                msgspec.structs.force_setattr(self, name, plain)

    def _check_vectorize(self) -> None:
        is_together = self.vectorize not in ("auto", "none")
        is_shared = self.actors == "ray" or (is_together and self.actors != "tasks")
        if self.workers is not None and not is_shared:
            raise ConfigError(
                f"workers={self.workers} share environments that are stepped together: set vectorize='sync' "
                "or 'native', and actors='threads' or 'processes'; or actors='ray'"
            )
        if not is_together:
            return
        if self.actors == "tasks" or self.lockstep:
            blocking = alone_because(self)
        elif self.vectorize == "async":
            blocking = f"actors={self.actors!r}, since it has its own processes"
        else:
            blocking = None
        if blocking is None and self.vectorize == "native":
            if self.frame_stack > 1:
                blocking = f"frame_stack={self.frame_stack}"
            elif self.wrappers:
                blocking = f"wrappers, such as {self.wrappers[0].name}, which wrap single environments"
        if blocking is not None:
            raise ConfigError(
                f"vectorize={self.vectorize!r} does not work with {blocking}: use vectorize='none' or 'auto'"
            )


def name_of(config: TrainConfig) -> str:
    """What a training is on: its environment, or else its data set, by the name of the run if it is one."""
    source = Path(config.offline.removeprefix("minari:").removeprefix("run:"))
    if config.env or not is_run(source):
        return config.env or source.name
    return read_metadata(source).name


def alone_because(config: TrainConfig) -> str | None:
    """The setting with which ``"auto"`` gives each environment an actor of its own; None: there is none."""
    if config.lockstep:
        return "lockstep=True, where environments take turns"
    if config.actors != "tasks":
        return f"actors={config.actors!r}, where each actor has its own environment"
    if config.sync_interval is not None:
        return f"sync_interval={config.sync_interval}, where each actor has its own policy"
    return None


def config_from(values: Mapping[str, Any], where: str = "config") -> TrainConfig:
    """A config from plain values: training and agent settings side by side, or those in ``agent_settings``.

    Settings that are left out come from the agent's preset for the environment, then from the defaults;
    without a preset, rollouts have the size that ``with_rollouts`` gives them. Those of an agent of your own
    are in ``agent_settings`` alone. Dashes may stand for underscores.

    Raises:
        ConfigError: An unknown name, or a value of a wrong type or out of range; the message names it.
    """
    flat = _underscored(values)
    nested: Any = flat.pop("agent_settings", None) or {}
    if not isinstance(nested, Mapping):
        raise ConfigError(f"{where}: agent_settings={nested!r} is not a table of settings")
    settings = _underscored(cast("Mapping[str, Any]", nested))
    env, agent = flat.get("env", "" if flat.get("offline") else None), flat.get("agent", "dqn")
    if not isinstance(env, str):
        raise ConfigError(f'{where}: name the environment, as in env = "CartPole-v1"')
    if not isinstance(agent, str):
        raise ConfigError(f"{where}: agent={agent!r} is not a name")
    for flag, name in (("import", "imports"), ("wrapper", "wrappers")):  # as the flags are called
        if flag in flat:
            flat[name] = flat.pop(flag)
        if isinstance(flat.get(name), str):
            flat[name] = [flat[name]]
    if isinstance(flat.get("wrappers"), list | tuple):
        flat["wrappers"] = [_wrapper(value, where) for value in flat["wrappers"]]
    common = TrainConfig.__struct_fields__
    if is_own(agent):
        refuse_unknown(flat, common, where, f"settings of {agent} go into agent_settings")
        return settings_from({**flat, "agent_settings": settings}, TrainConfig, where)
    agent_config = config_type(agent)
    own = agent_config.__struct_fields__
    settings |= {key: flat.pop(key) for key in own if key in flat and key not in common}
    if flat.get("offline") and "schedule_counts" in own:
        settings.setdefault("schedule_counts", "opt_steps")
    way_out = f"not a setting of a training or of the agent {agent!r}"
    refuse_unknown(flat, common, where, way_out, near=own)
    refuse_unknown(settings, own, where, way_out, near=common)
    base = msgspec.to_builtins(preset(agent, env))
    decoded = settings_from({**base, **settings}, agent_config, where)
    # Its periods are in environment steps.
    tuned = {} if flat.get("offline") else training_preset(agent, env)
    if flat.get("actors") == "ray" and flat.get("workers") is not None:
        tuned = {name: value for name, value in tuned.items() if name != "num_envs"}
        if "num_envs" in flat and type(each := flat.get("envs_per_worker", 8)) is int:
            n_envs_on_cluster(flat["workers"], each, flat["num_envs"])  # also where it is the default
    config = settings_from({"env": env, **tuned, **flat}, TrainConfig, where)
    if "rollout_steps" not in settings and agent not in agents_with_preset(env):
        decoded = with_rollouts(decoded, config.total_timesteps, config.num_envs)
    if "schedule_steps" not in settings:
        decoded = with_schedule(decoded, config.total_timesteps, base.get("schedule_steps"))
    return msgspec.structs.replace(config, agent_settings=decoded)


def _wrapper(value: Any, where: str) -> EnvWrapper:
    """A wrapper from its name alone, or from a table with its arguments."""
    if isinstance(value, EnvWrapper):
        return value
    if not isinstance(value, str | Mapping):
        raise ConfigError(
            f"{where}: wrapper={value!r}: give module:Class, or a table of its name and its kwargs"
        )
    table = {"name": value} if isinstance(value, str) else cast("Mapping[str, Any]", value)
    if "name" not in table:
        raise ConfigError(f"{where}: wrapper={dict(table)!r} has no name: give one, as module:Class")
    return settings_from(table, EnvWrapper, f"{where}: wrapper")


def _underscored(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in values.items()}


def shared_settings(config: msgspec.Struct, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The settings of a config that another kind of config has, too.

    Without ``offline``, which is a data set here and a flag of sessions.
    """
    shared = set(kind.__struct_fields__).intersection(config.__struct_fields__) - {"offline"}
    return {name: getattr(config, name) for name in kind.__struct_fields__ if name in shared}
