"""From a config to its parts: environment, agent, trackers. Free of torch until the environment is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stoker.agents.protocol import LearningAgent
from stoker.agents.registry import make_agent
from stoker.envs import make_gym, stack_frames
from stoker.trainer.config import TrainConfig

if TYPE_CHECKING:
    from stoker.recorders import Recorder

__all__ = ["agent_for", "env_for", "recorders_for", "set_torch_threads"]


def env_for(config: TrainConfig) -> Any:
    """Make one environment, as the config wants it seen.

    Raises:
        ConfigError: The environment is unknown, or cannot be made.
    """
    if config.frame_stack == 1:
        return make_gym(config.env)
    return stack_frames(lambda: make_gym(config.env), config.frame_stack)()


def agent_for(config: TrainConfig) -> LearningAgent:
    """Make the agent that a config describes, for the spaces of its environment.

    Raises:
        ConfigError: The environment or the agent is unknown, or they do not fit.
    """
    env = env_for(config)
    try:
        return make_agent(
            config.agent,
            env.observation_space,
            env.action_space,
            config.agent_settings,
            config.seed,
            config.device,
        )
    finally:
        env.close()


def recorders_for(config: TrainConfig) -> list[Recorder]:
    """The recorders behind the names in ``track``.

    Raises:
        ConfigError: What one of them needs is not installed; the message names the extra.
    """
    from stoker import recorders

    makers = {
        "console": recorders.ConsoleRecorder,
        "tensorboard": recorders.TensorBoardRecorder,
        "mlflow": recorders.MLflowRecorder,
        "wandb": recorders.WandbRecorder,
        "trackio": recorders.TrackioRecorder,
    }
    return [makers[name]() for name in dict.fromkeys(config.track)]


def set_torch_threads(config: TrainConfig) -> None:
    """Let torch compute with as many threads as the config says; before the agent's weights are drawn.

    The number of threads decides how a product is rounded: a replay must compute as the training did.
    """
    import torch

    torch.set_num_threads(config.torch_threads)
