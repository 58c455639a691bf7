"""What a new training is on: its environment, or its data set. Found before torch is imported."""

from __future__ import annotations

from typing import Any

from anyio import to_thread

from stoker.errors import ConfigError
from stoker.trainer.config import TrainConfig
from stoker.trainer.data_config import MEANS_NOTHING_OFFLINE, check_mix, refuse_offline


async def fitted(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """The config of a new run, made to fit its environment or data set, and what was decided.

    Raises:
        ConfigError: The environment or the data set cannot be used.
    """
    if config.offline:
        from stoker.trainer.preparing import prepared

        return await to_thread.run_sync(prepared, config)
    from stoker.trainer.making import probed
    from stoker.trainer.vectorizing import decided

    with probed(config):  # before torch is imported, so that a wrong name is reported at once
        pass
    choice = await decided(config)
    return choice.config, [choice.line()]


def settle_offline(values: dict[str, Any]) -> None:
    """Refuse what means nothing with, or without, a data set; the environment of evaluations becomes ``env``.

    Raises:
        ConfigError: As said.
    """
    env, eval_env = values.get("env", ""), values.pop("eval_env", "")
    if "mix" in values:
        check_mix(values["mix"], values.get("warm_data", ""))
    if not values.get("offline"):
        if eval_env:
            raise ConfigError(f"--eval-env {eval_env} is for trainings on a data set: add --offline DATA")
        return
    if eval_env and env not in ("", eval_env):
        raise ConfigError(f"{env} --eval-env {eval_env}: give one environment, which is for evaluations")
    values["env"] = eval_env or env
    for name in MEANS_NOTHING_OFFLINE:
        if name in values:
            refuse_offline(name, values[name])
