"""When a trainer does what: limits and periods of a training, as a value that TOML holds. Free of torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Self, cast

import msgspec

from stoker.envs.protocol import Stepping
from stoker.errors import ConfigError
from stoker.settings import Count, Natural, Settings, read_toml, settings_from
from stoker.trainer.evaluation_settings import EvaluationSettings
from stoker.types import AnyPath, PlaceName

__all__ = ["TrainerConfig"]


class TrainerConfig(Settings, frozen=True, kw_only=True):
    """How a ``Trainer`` trains. Of a period or limit 0 and None both mean never.

    Raises:
        ConfigError: A value is out of range; the message names it.
    """

    max_opts: Natural | None = None
    """Optimization steps after which ``train`` ends, exactly."""

    max_steps: Natural | None = None
    """Environment steps after which ``train`` ends, exactly, over all actors."""

    opt_interval: Natural | None = 1
    """Environment steps per optimization step."""

    warmup_period: Natural | None = 0
    """Environment steps before the first optimization step."""

    eval_interval: Natural | None = 0
    """Optimization steps between evaluations."""

    record_interval: Natural | None = 1_000
    """Optimization steps between records of the metrics."""

    save_interval: Natural | None = 0
    """Optimization steps between checkpoints; what the training ends with is saved in any case."""

    num_envs: Count = 8
    """How many environments are played at the same time, each by an actor."""

    seed: Natural | None = 42
    """Episodes are seeded from it; none: not at all."""

    stepping: Stepping = "auto"
    """Where environments are stepped that are played by tasks: inline, each in a thread, or auto."""

    actors: PlaceName = "tasks"
    """Where actors live: tasks, threads or processes."""

    sync_interval: Count | None = None
    """Optimization steps after which an actor with its own policy refreshes it."""

    max_staleness: Natural | None = None
    """The most optimization steps that a policy may be behind when its transition is learned."""

    evaluation: EvaluationSettings = EvaluationSettings()
    """How policies are evaluated."""

    def __post_init__(self) -> None:
        super().__post_init__()
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
            ConfigError: The file cannot be read, has an unknown key or a value of a wrong type or range.
        """
        return settings_from(read_toml(Path(path)), cls, str(path))

    def save(self, path: AnyPath) -> None:
        """Write it to a TOML file, whole or not at all. Blocks.

        Raises:
            WriteFailed: The disk refused.
        """
        from stoker.writer import files  # brings torch

        data = self.to_toml().encode()
        files.write_atomically(Path(path), lambda file: file.write(data))

    def to_toml(self) -> str:
        """The text that ``load`` reads; None, which TOML lacks, is left out, or "none" if need be."""
        values = cast("dict[str, Any]", msgspec.to_builtins(self))
        tables = cast(
            "dict[str, dict[str, Any]]", {key: v for key, v in values.items() if isinstance(v, dict)}
        )
        lines = _lines({key: value for key, value in values.items() if key not in tables})
        lines += ['seed = "none"'] if self.seed is None else []
        for name, table in tables.items():
            lines += ["", f"[{name}]", *_lines(table)]
        return "\n".join(lines) + "\n"


def _lines(values: dict[str, Any]) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]


def _toml(value: bool | float | str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return json.dumps(value)  # for these types TOML writes what JSON writes
