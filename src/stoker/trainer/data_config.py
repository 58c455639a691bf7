"""The checks of what a config says about data sets. Free of torch, as configs are."""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec

from stoker.agents.config import OffPolicyConfig
from stoker.agents.registry import AGENTS, config_type, is_own
from stoker.errors import ConfigError
from stoker.runs.layout import absolute, runs_below

MEANS_NOTHING_OFFLINE = (
    "num_envs", "vectorize", "lockstep", "actor_timeout_s", "on_silent_actor", "opt_interval",
    "warmup_period", "max_staleness", "actors", "workers", "cluster",
    "envs_per_worker", "worker_cpus", "sync_interval", "queue_capacity", "warm_data",
)  # fmt: skip
"""The settings of a training that are about actors."""

_KINDS = ("minari:", "run:")
_MIX = 0.5


def check_data(config: Any) -> None:
    """Refuse settings that do not go with a data set to train on, or with prior data.

    Args:
        config: a ``TrainConfig``, which is being made.

    Raises:
        ConfigError: The message names the setting.
    """
    if config.warm_data:
        _check_warm_data(config.agent, config.warm_data)
    elif config.mix != _MIX:
        check_mix(config.mix, config.warm_data)
    if not config.offline:
        if config.ends is not None and not config.warm_data:
            raise ConfigError(f"ends={config.ends!r} is about a data set: name one with offline")
        return
    on_policy = [name for name in AGENTS if "rollout_steps" in config_type(name).__struct_fields__]
    if config.agent in on_policy:
        able = [name for name in AGENTS if name not in on_policy]
        raise ConfigError(
            f"offline={config.offline!r}: {config.agent} learns from what its own policy does, not from a "
            f"data set; choose one of {', '.join(able)}"
        )
    for field in msgspec.structs.fields(config):
        if field.name in MEANS_NOTHING_OFFLINE and (value := getattr(config, field.name)) != field.default:
            refuse_offline(field.name, value)


def refuse_offline(name: str, value: Any) -> NoReturn:
    """Refuse a setting that is about actors, where there are none."""
    raise ConfigError(
        f"{name}={value!r} is about actors, and a training on a data set has none: leave it out"
    )


def check_mix(mix: Any, warm_data: str) -> None:
    """Refuse a share of prior data where there are none.

    Raises:
        ConfigError: As said.
    """
    if not warm_data:
        raise ConfigError(
            f"mix={mix!r} is the share of prior data: name them with warm_data, or leave it out"
        )


def absolute_source(source: str) -> str:
    """The name of a data set with its absolute path: a resume may be in another working directory.

    The directory of several runs becomes that of the newest one, which later is another run: the training's
    own, for example.
    """
    kind = next((kind for kind in _KINDS if source.startswith(kind)), "")
    path = absolute(source.removeprefix(kind))
    if kind != "minari:" and runs_below(path):
        from stoker.runs import TrainingRun  # brings numpy

        path = TrainingRun.find(path).directory
    return f"{kind}{path}"


def _check_warm_data(agent: str, source: str) -> None:
    if is_own(agent) or issubclass(config_type(agent), OffPolicyConfig):
        return
    able = [
        name
        for name, entry in AGENTS.items()
        if issubclass(entry.config_type, OffPolicyConfig) and not entry.offline_only
    ]
    raise ConfigError(
        f"warm_data={source!r}: {agent} learns from what it plays alone: leave it out, or use "
        f"{', '.join(able[:-1])} or {able[-1]}"
    )
