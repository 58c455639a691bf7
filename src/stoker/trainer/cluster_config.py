"""The settings of actors on a Ray cluster: how many workers, of how many environments. Imports no Ray."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from stoker.errors import ConfigError

_C = TypeVar("_C", bound=msgspec.Struct)

_CLUSTER_SETTINGS = ("cluster", "envs_per_worker", "worker_cpus")
"""Settings that mean nothing to actors elsewhere; ``workers`` does."""


class WorkerRange(NamedTuple):
    """How many workers a training has: so many before the first of them play, and at most."""

    least: int
    most: int


def worker_range(workers: int | str) -> WorkerRange:
    """The range that ``"4..64"`` names; of a number, from one to that.

    Raises:
        ConfigError: It is none.
    """
    found = re.fullmatch(r"(\d{1,6})(?:\.\.(\d{1,6}))?", str(workers))
    least, most = (0, 0) if found is None else (int(found[1]) if found[2] else 1, int(found[2] or found[1]))
    if not 1 <= least <= most:
        raise ConfigError(
            f"workers={workers!r}: give a number, such as 4, or a range from the least to the most, "
            "such as 4..64"
        )
    return WorkerRange(least, most)


def n_envs_on_cluster(workers: int | str, envs_per_worker: int, num_envs: int | None = None) -> int:
    """How many environments the most workers play.

    Raises:
        ConfigError: There is no such number of workers, or ``num_envs`` is given and disagrees.
    """
    found = worker_range(workers).most * envs_per_worker
    if num_envs not in (None, found):
        raise ConfigError(
            f"num_envs={num_envs} disagrees with workers={workers!r} of envs_per_worker={envs_per_worker}, "
            f"which play {found}: give one of the two"
        )
    return found


def with_envs(config: _C, num_envs: int) -> _C:
    """A training's config with that many environments, in one worker."""
    on_cluster = getattr(config, "actors", "tasks") == "ray"
    changes: dict[str, Any] = {"workers": 1, "envs_per_worker": num_envs} if on_cluster else {"workers": None}
    return msgspec.structs.replace(config, num_envs=num_envs, **changes)


def moved(config: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a training's config with changes, also of where its actors are and how many.

    What follows from the changes is left out, to be settled anew: for example how many workers play, if the
    number of environments is another.

    Raises:
        ConfigError: A lockstep run's actors, of which each continues its episode, would be others.
    """
    if config.lockstep and changes.get("num_envs", config.num_envs) != config.num_envs:
        raise ConfigError(
            f"num_envs={changes['num_envs']}: in lockstep each of the run's {config.num_envs} actors "
            "continues its episode: leave it out"
        )
    values = {**msgspec.to_builtins(config), **changes}
    was, now = config.actors, values["actors"]
    if now == "ray":
        if {"workers", "envs_per_worker"} & set(changes):
            dropped = ["num_envs"]
        else:
            dropped = ["workers", "envs_per_worker"] if was != "ray" or "num_envs" in changes else []
    else:
        dropped = ["workers", *_CLUSTER_SETTINGS] if was == "ray" else []
    if was != now and values["vectorize"] == "async":  # whose processes are its own
        values["vectorize"] = "none"
    return {name: value for name, value in values.items() if name in changes or name not in dropped}


def check_cluster(config: Any) -> None:
    """Check the settings of a cluster, and settle how many environments and workers there are.

    With ``workers`` given, ``num_envs`` follows unless it is another than its default, and must then agree.
    Without, there are as many workers as ``num_envs`` needs.

    Args:
        config: a ``TrainConfig`` or ``TrainerConfig``, which is being made.

    Raises:
        ConfigError: The message names the setting.
    """
    defaults = {field.name: field.default for field in msgspec.structs.fields(config)}
    if config.workers is not None:
        is_number = worker_range(config.workers) and str(config.workers).isdecimal()
        msgspec.structs.force_setattr(config, "workers", int(config.workers) if is_number else config.workers)
    if config.actors != "ray":
        for name in ("envs_per_worker", "worker_cpus"):  # a learner may be on a cluster without its actors
            if (value := getattr(config, name)) != defaults[name]:
                raise ConfigError(f"{name}={value!r} is about actors on a cluster: set actors='ray', too")
        if isinstance(config.workers, str):
            raise ConfigError(f"workers={config.workers!r} is a range, for actors='ray': give a number")
        return
    if getattr(config, "lockstep", False):
        raise ConfigError(
            "lockstep=True: on a cluster actors act on copies of the policy, which a resume could not "
            "restore; use actors='tasks', or train without lockstep"
        )
    if config.workers is None:
        each = min(config.num_envs, config.envs_per_worker)
        if config.num_envs % each:
            raise ConfigError(
                f"num_envs={config.num_envs} is no multiple of envs_per_worker={each}: give a multiple, or "
                "the number of workers instead"
            )
        msgspec.structs.force_setattr(config, "envs_per_worker", each)
        msgspec.structs.force_setattr(config, "workers", config.num_envs // each)
    given = None if config.num_envs == defaults["num_envs"] else config.num_envs
    workers: int | str = config.workers or 1  # which is settled above
    num_envs = n_envs_on_cluster(workers, config.envs_per_worker, given)
    msgspec.structs.force_setattr(config, "num_envs", num_envs)
