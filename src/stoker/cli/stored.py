"""What a run that is on disk was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from stoker.errors import ConfigError, RunBroken
from stoker.runs import TrainingRun

if TYPE_CHECKING:
    from stoker.trainer import TrainConfig

__all__ = ["read_train_config"]


async def read_train_config(run: TrainingRun) -> TrainConfig:
    """The config that ``stoker train`` wrote into a run.

    Raises:
        RunBroken: It is missing, or of something that this stoker cannot train, such as an unknown agent.
    """
    from stoker.trainer import config_from

    path = run.directory / "config.json"
    stored = await run.read_config()
    if not isinstance(stored, Mapping):
        raise RunBroken(path, "not the config of a training: it holds no settings by name")
    try:
        return config_from(cast("Mapping[str, Any]", stored), "config")
    except ConfigError as error:
        raise RunBroken(path, f"cannot be trained or scored by this stoker: {error}") from error
