"""From a config to its parts: environment, agent, recorders. Free of torch until the environment exists."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium
import msgspec

from stoker.agents.protocol import LearningAgent
from stoker.agents.registry import AGENTS, agent_for_actions, agents_with_preset, make_agent
from stoker.envs import stack_frames
from stoker.envs.gym import make_named
from stoker.envs.joint import CheckedJointEnv, shared_spaces
from stoker.envs.masks import with_action_mask
from stoker.envs.pettingzoo import make_pettingzoo
from stoker.envs.protocol import JOINT
from stoker.envs.registering import register_by, register_known
from stoker.envs.results import close_unused
from stoker.envs.wrapping import wrapped
from stoker.errors import ConfigError, StokerError
from stoker.protocol import Spaces
from stoker.raising import described
from stoker.trainer.config import TrainConfig

if TYPE_CHECKING:
    from stoker.recorders import Recorder


def env_for(config: TrainConfig) -> Any:
    """Make one environment as the config describes it, with its own spaces.

    For stoker's agents a mask of actions in its ``info`` becomes a part of its observations. One that several
    agents play together is a ``CheckedJointEnv``.

    Raises:
        ConfigError: The environment is unknown or cannot be made.
    """
    if not config.env:
        raise ConfigError(
            "the run names no environment, because its actors were remote: `stoker serve` continues it"
        )
    for name in config.imports:
        register_by(name)
    if plays_jointly(config):
        _check_joint(config)
        return make_pettingzoo(config.env, config.env_kwargs)
    if config.self_play:
        raise ConfigError(
            f"self_play=True: env={config.env!r} is no game of several agents: name one, such as "
            f"{JOINT}pettingzoo.classic.connect_four_v3"
        )
    register_known(config.env)
    _check_version(config.env)
    make = partial(_wrapped, config)
    env = make() if config.frame_stack == 1 else stack_frames(make, config.frame_stack)()
    return with_action_mask(env) if config.agent in AGENTS else env


def with_render_mode(config: TrainConfig, mode: str) -> TrainConfig:
    """The config of an environment that is seen."""
    return msgspec.structs.replace(config, env_kwargs={**config.env_kwargs, "render_mode": mode})


def plays_jointly(config: TrainConfig) -> bool:
    """Whether several agents play the environment of a config together."""
    return config.env.startswith(JOINT)


_WRAP = "; to wrap it name a function that makes it wrapped, as in pettingzoo:module:factory"
_JOINT: dict[str, tuple[Any, str]] = {
    "lockstep": (
        False,
        ": a resume learns all of the journal, to the bit, but cannot continue an episode in which some "
        "agents wait for their outcomes, and begins new ones",
    ),
    "frame_stack": (1, _WRAP),
    "wrappers": ((), _WRAP),
    "actors": ("tasks", ""),
    "sync_interval": (None, ""),
    "vectorize": ("none", ""),
}
"""The settings that mean nothing to joint environments, their only values, and what else to say."""


def _check_joint(config: TrainConfig) -> None:
    for name, (only, more) in _JOINT.items():
        value = getattr(config, name)
        if value != only and (name, value) != ("vectorize", "auto"):
            raise ConfigError(
                f"{name}={value!r} does not work with env={config.env!r}, whose agents act together: use "
                f"{name}={only!r}{more}"
            )


def _wrapped(config: TrainConfig) -> Any:
    env = make_named(config.env, config.env_kwargs)
    return wrapped(env, config.wrappers)


def agent_for(config: TrainConfig) -> LearningAgent:
    """Make the agent that a config describes, for the spaces of its environment.

    Raises:
        ConfigError: The environment or the agent is unknown, or they do not fit.
    """
    return agent_and_spaces_for(config)[0]


def check_has_data(config: TrainConfig) -> None:
    """Raise ``ConfigError`` if the agent learns from a data set alone, and the config names none."""
    entry = AGENTS.get(config.agent)
    if entry is not None and entry.offline_only and not config.offline:
        raise ConfigError(
            f"agent={config.agent!r} learns from a data set alone: give one, as in `stoker train --offline "
            f"DATA --agent {config.agent}`, or to `Trainer.train_offline`"
        )


def agent_and_spaces_for(config: TrainConfig) -> tuple[LearningAgent, Any, Any]:
    """As ``agent_for``, with the environment's spaces of observations and actions."""
    spaces = spaces_for(config)
    agent = make_agent(config.agent, *spaces, config.agent_settings, config.seed, config.device)
    return agent, *spaces


def fitting_agent(config: TrainConfig) -> str:
    """The agent to train where none is named, by the action space of the config's environment.

    Raises:
        ConfigError: The environment is unknown or cannot be made.
    """
    return agent_for_actions(spaces_for(config)[1])


def spaces_for(config: TrainConfig) -> tuple[Any, Any]:
    """The spaces of a config's actors: those that it holds, or those of its environment.

    Raises:
        ConfigError: The environment is unknown or cannot be made.
    """
    if config.spaces is not None:
        return msgspec.convert(config.spaces, Spaces).gymnasium()
    with probed(config) as env:
        if isinstance(env, CheckedJointEnv):
            return shared_spaces(env, env.agents)
        return env.observation_space, env.action_space


@contextmanager
def probed(config: TrainConfig) -> Generator[Any]:
    """One environment of a config, to look at before a training begins; closed at the end.

    Raises:
        ConfigError: The environment is unknown or cannot be made.
    """
    try:
        env = env_for(config)
    except StokerError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"env={config.env!r} cannot be made: {described(error)}") from error
    try:
        yield env
    finally:
        close_unused(env)


def _check_version(env: str) -> None:
    """Refuse an id without its version, which would be another one in another release, and has no preset."""
    versions = [name for name in gymnasium.registry if name.rpartition("-v")[0] == env]
    if versions:
        newest = max(versions, key=lambda name: int(name.rpartition("-v")[2]))
        agents = agents_with_preset(newest)
        preset = f" There is a preset for {', '.join(agents)} on it." if agents else ""
        raise ConfigError(f"env={env!r} names no version: did you mean {newest!r}?{preset}")


def recorders_for(config: TrainConfig) -> list[Recorder]:
    """The recorders behind the names in ``track``.

    Raises:
        MissingDependency: A recorder's package is not installed; the message names the extra.
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
