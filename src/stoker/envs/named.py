"""Environments by name, as a config has it: a Gymnasium id, ``module:id``, or ``module:factory``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

import gymnasium

from stoker.envs.gym import flattened, make_gym, make_raw
from stoker.errors import ConfigError
from stoker.importing import import_named, imported_callable, split_name

__all__ = ["make_named"]


def make_named(name: str, kwargs: Mapping[str, Any], *, flatten: bool) -> Any:
    """Make the environment that a config names.

    Args:
        name: an id that is registered with Gymnasium; ``"module:id"``, whose module registers it;
            or ``"module:factory"``, a class or function that makes an environment, plain or async.
        kwargs: keyword arguments for ``gymnasium.make`` or for the factory.
        flatten: make one vector of observations that are no Box, as ``make_gym`` does.

    Raises:
        ConfigError: The name means nothing, or what it names makes no environment.
    """
    if ":" not in name or _is_registered(name):
        return make_gym(name, **kwargs) if flatten else make_raw(name, **kwargs)
    factory = imported_callable(name, "env")
    try:
        inspect.signature(factory).bind(**kwargs)
    except TypeError as error:
        given = ", ".join(kwargs) or "no arguments"
        raise ConfigError(f"env={name!r} cannot be called with {given}: {error}; see env_kwargs") from None
    except ValueError:  # a callable written in C tells nothing of its arguments
        pass
    env = factory(**kwargs)
    missing = [
        part
        for part in ("reset", "step", "observation_space", "action_space")
        if getattr(env, part, None) is None
    ]
    if missing:
        raise ConfigError(
            f"env={name!r} made a {type(env).__name__}, which is no environment: it has no "
            f"{', '.join(missing)}"
        )
    if flatten and isinstance(env, gymnasium.Env):
        return flattened(cast("gymnasium.Env[Any, Any]", env), name)
    return env


def _is_registered(name: str) -> bool:
    """Import the module of ``"module:id"``, and see whether Gymnasium then knows the id, in any version."""
    module, env_id = split_name(name, "env")
    found = import_named(module, f"env={name!r}")
    if hasattr(found, env_id.partition(".")[0]):
        return env_id in gymnasium.registry
    return "-" in env_id or "/" in env_id or env_id in gymnasium.registry  # else no name of Python's
