"""When a trainer does what: limits and periods of a training, as a value that TOML holds. Free of torch."""

from __future__ import annotations

import difflib
import json
import math
from pathlib import Path
from typing import Any, Self, cast, get_args

import msgspec

from stoker.envs.protocol import Stepping
from stoker.errors import ConfigError
from stoker.trainer.evaluation_settings import EvaluationSettings
from stoker.trainer.toml import read_toml
from stoker.types import AnyPath, PlaceName

__all__ = ["TrainerConfig"]

_PERIODS = ("opt_interval", "warmup_period", "eval_interval", "record_interval", "save_interval")
_LIMITS = ("max_opts", "max_steps")
_LEAST = {"num_envs": 1, "seed": 0, "sync_interval": 1, "max_staleness": 0}
_CHOICES: dict[str, tuple[str, ...]] = {"stepping": get_args(Stepping), "actors": get_args(PlaceName)}
_NONE = "none"


class TrainerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a ``Trainer`` trains. Of a period or limit 0 and None both mean never.

    Raises:
        ConfigError: A value is out of range; the message names it.
    """

    max_opts: int | None = None
    """Optimization steps after which ``train`` ends, exactly."""

    max_steps: int | None = None
    """Environment steps after which ``train`` ends, exactly, over all actors."""

    opt_interval: int | None = 1
    """Environment steps per optimization step."""

    warmup_period: int | None = 0
    """Environment steps before the first optimization step."""

    eval_interval: int | None = 0
    """Optimization steps between evaluations."""

    record_interval: int | None = 1_000
    """Optimization steps between records of the metrics."""

    save_interval: int | None = 0
    """Optimization steps between checkpoints; what the training ends with is saved in any case."""

    num_envs: int = 8
    """How many environments are played at the same time, each by an actor."""

    seed: int | None = 42
    """Episodes are seeded from it; none: not at all."""

    stepping: Stepping = "auto"
    """Where environments are stepped that are played by tasks: inline, each in a thread, or auto."""

    actors: PlaceName = "tasks"
    """Where actors live: tasks, threads or processes."""

    sync_interval: int | None = None
    """Optimization steps after which an actor with its own policy refreshes it."""

    max_staleness: int | None = None
    """The most optimization steps that a policy may be behind when its transition is learned."""

    evaluation: EvaluationSettings = EvaluationSettings()
    """How policies are evaluated."""

    def __post_init__(self) -> None:
        for name in _PERIODS:
            value = getattr(self, name)
            if value is None:
                msgspec.structs.force_setattr(self, name, 0)
            elif type(value) is not int or value < 0:
                raise ConfigError(f"{name}={value!r}: give an int of at least 0; 0 or None means never")
        for name in _LIMITS:
            value = getattr(self, name)
            if value == 0 and type(value) is int:
                msgspec.structs.force_setattr(self, name, None)
            elif value is not None and (type(value) is not int or value < 0):
                raise ConfigError(f"{name}={value!r}: give an int of at least 1; 0 or None means no limit")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name != "num_envs":
                continue
            if type(value) is not int or value < least:
                raise ConfigError(f"{name}={value!r}: give an int of at least {least}")
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ConfigError(f"{name}={value!r}: choose one of {', '.join(choices)}")
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
        return cls.from_values(read_toml(Path(path)), str(path))

    @classmethod
    def from_values(cls, values: dict[str, Any], where: str = "config") -> Self:
        """A config from plain values, names with underscores or dashes.

        Raises:
            ConfigError: A key is unknown, or a value of a wrong type or range; the message names it.
        """
        flat = {key: None if value == _NONE else value for key, value in _underscored(values).items()}
        _refuse_unknown(flat, cls, where)
        if isinstance(nested := flat.get("evaluation"), dict):
            _refuse_unknown(cast("dict[str, Any]", nested), EvaluationSettings, f"{where}: [evaluation]")
        try:
            return msgspec.convert(flat, cls)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{where}: {error}") from error

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


def _underscored(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key.replace("-", "_"): _underscored(cast("dict[str, Any]", value))
        if isinstance(value, dict)
        else value
        for key, value in values.items()
    }


def _refuse_unknown(values: dict[str, Any], config: type[msgspec.Struct], where: str) -> None:
    for key in values:
        if key not in config.__struct_fields__:
            close = difflib.get_close_matches(key, config.__struct_fields__, n=1)
            hint = (
                f"did you mean {close[0]!r}?" if close else f"known are {', '.join(config.__struct_fields__)}"
            )
            raise ConfigError(f"{where}: unknown key {key!r}: {hint}")
