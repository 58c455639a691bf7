"""Settings of a ``Trainer``, and their TOML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from stoker.envs.protocol import Stepping
from stoker.errors import ConfigError
from stoker.settings import Count, Natural, NonNegative, Settings, read_toml, settings_from
from stoker.trainer.cluster_config import check_cluster
from stoker.trainer.evaluation import EvaluationSettings
from stoker.types import AnyPath, PlaceName


class TrainerConfig(Settings, frozen=True, kw_only=True):
    """How a ``Trainer`` trains. For a period or a limit, 0 and None both mean never."""

    max_opts: Natural | None = None
    """``train`` ends after exactly this many optimization steps."""

    max_steps: Natural | None = None
    """``train`` ends after exactly this many environment steps, over all actors."""

    opt_interval: Natural | None = 1
    """Environment steps per optimization step."""

    warmup_period: Natural | None = 0
    """Environment steps before the first optimization step."""

    eval_interval: Natural | None = 0
    """Optimization steps between evaluations."""

    record_interval: Natural | None = 1_000
    """Optimization steps between records of the metrics."""

    save_interval: Natural | None = 0
    """Optimization steps between checkpoints; the final state is always saved."""

    num_envs: Count = 8
    """Number of concurrent environments, each played by one actor."""

    seed: Natural | None = 42
    """The seed from which episode seeds are derived; none: unseeded."""

    stepping: Stepping = "auto"
    """Where tasks step their environments: inline, each in a thread, or auto."""

    actors: PlaceName = "tasks"
    """Where actors run: tasks, threads, processes, or ray for a cluster."""

    workers: int | str | None = None
    """With ray: workers on the cluster, as 4 or "4..64"; none: as many as ``num_envs`` needs. Else threads or
    processes that share the environments of a ``vector_factory``; none: one per processor."""

    cluster: str = "auto"
    """With ray: the cluster: auto, local, or HOST:PORT; see ``stoker.distributed.Cluster.connect``."""

    envs_per_worker: Count = 8
    """With ray: environments of each worker; ``num_envs`` is the product."""

    worker_cpus: NonNegative = 1.0
    """With ray: CPUs that the cluster sets aside for each worker."""

    sync_interval: Count | None = None
    """Optimization steps after which an actor refreshes its own copy of the policy."""

    max_staleness: Natural | None = None
    """The most optimization steps that a policy may lag when its transition is learned."""

    evaluation: EvaluationSettings = EvaluationSettings()
    """How policies are evaluated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_cluster(self)
        for name in ("opt_interval", "warmup_period", "eval_interval", "record_interval", "save_interval"):
            msgspec.structs.force_setattr(self, name, getattr(self, name) or 0)
        for name in ("max_opts", "max_steps"):
            msgspec.structs.force_setattr(self, name, getattr(self, name) or None)
        if self.max_opts is not None and not self.opt_interval:
            raise ConfigError(
                f"max_opts={self.max_opts} is never reached with opt_interval=0: limit max_steps instead"
            )

    @classmethod
    def load(cls, path: AnyPath) -> Self:
        """Read a config from a TOML file. Blocks.

        Raises:
            ConfigError: The file cannot be read, has an unknown key, or a value of a wrong type or range.
        """
        return settings_from(read_toml(Path(path)), cls, str(path))

    def save(self, path: AnyPath) -> None:
        """Write the config to a TOML file, whole or not at all. Blocks.

        Raises:
            WriteFailed: The disk refused.
        """
        from stoker.writer import files  # brings torch

        data = self.to_toml().encode()
        files.write_atomically(Path(path), lambda file: file.write(data))

    def to_toml(self) -> str:
        """The text that ``load`` reads. None, which TOML lacks, is left out, or "none" if not the default."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        evaluation = values.pop("evaluation")
        lines = [*_toml(values), "", "[evaluation]", *_toml(evaluation)]
        return "\n".join(lines) + "\n"


def _toml(values: Mapping[str, Any]) -> list[str]:
    """Lines of TOML, which writes these types as JSON does."""
    return [
        f"{key} = {json.dumps('none' if value is None else value)}"
        for key, value in values.items()
        if value is not None or key == "seed"
    ]
