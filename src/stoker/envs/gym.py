"""Environments by name, from a config or a command line: Gymnasium's, or what a user's module makes.

Guarantee: an environment that cannot be made is one ``ConfigError`` of one line that says what to do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import gymnasium
import gymnasium.error
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import VectorEnv

from stoker.envs.masks import with_action_mask
from stoker.envs.registering import package_of, register_known
from stoker.envs.wrapping import missing_parts
from stoker.errors import ConfigError
from stoker.importing import import_named, imported_callable, signature_of, split_name

ARGUMENT_ERROR = re.compile(r"unexpected keyword argument|missing \d+ required")
_MAKE_ARGUMENTS = ("max_episode_steps", "disable_env_checker")


def make_gym(env_name: str, *, render_mode: str | None = None, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Make a registered Gymnasium environment, with its own spaces.

    Only if its ``info`` holds an ``action_mask`` it gives observations with this mask: see
    ``ActionMaskObservation``. To see that, an environment with discrete actions is reset once. Gymnasium's
    own checker is off unless ``disable_env_checker=False`` is given, because it costs more than many a step.

    Args:
        env_name: an id such as ``"CartPole-v1"``, or ``"module:Id-v0"`` to import what registers it.
        render_mode: as in ``gymnasium.make``.
        **kwargs: for the environment's constructor, or ``max_episode_steps``.

    Raises:
        ConfigError: The name, its module, version or an argument is unknown, or a package that the
            environment needs is not installed.
    """
    return with_action_mask(_made(env_name, render_mode=render_mode, **kwargs))


def _made(env_name: str, *, render_mode: str | None = None, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    env_id = env_name
    if ":" in env_name:
        module, env_id = split_name(env_name, "env_name")
        import_named(module, f"env_name={env_name!r}")
    _check_known(env_id, env_name)
    if render_mode is not None:
        kwargs["render_mode"] = render_mode
    try:
        _check_render_mode(env_id, render_mode)
        return gymnasium.make(env_id, **{"disable_env_checker": True, **kwargs})
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        if isinstance(error, TypeError):
            if not ARGUMENT_ERROR.search(str(error)):
                raise  # a bug in the environment
            _check_arguments(env_id, env_name, kwargs)
        way_out = "; install the package it needs" if isinstance(error, ModuleNotFoundError) else ""
        reason = " ".join(str(error).split())
        raise ConfigError(f"env_name={env_name!r} cannot be made: {reason}{way_out}") from error


def make_named(name: str, kwargs: Mapping[str, Any]) -> Any:
    """Make the environment that a config names, with its own spaces.

    Args:
        name: an id that is registered with Gymnasium; ``"module:id"``, whose module registers it;
            or ``"module:factory"``, a class or function that makes an environment, plain or async.
        kwargs: keyword arguments for ``gymnasium.make`` or for the factory.

    Raises:
        ConfigError: The name is unknown, or what it names makes no environment.
    """
    is_registered = ":" not in name or _is_registered(name)
    return _made(name, **kwargs) if is_registered else _call_factory(name, kwargs)


def make_native(name: str, num_envs: int, kwargs: Mapping[str, Any]) -> VectorEnv[Any, Any, Any]:
    """Make an environment's own vector form, which its author registered as ``vector_entry_point``.

    Args:
        name: as for ``make_named``.
        num_envs: the number of sub-environments.
        kwargs: keyword arguments for ``gymnasium.make_vec``.

    Raises:
        ConfigError: There is no such form, or it cannot be made.
    """
    env_id = name.rpartition(":")[2]
    is_registered = ":" not in name or _is_registered(name)
    if is_registered:
        _check_known(env_id, name)
    if not is_registered or gymnasium.spec(env_id).vector_entry_point is None:
        raise ConfigError(
            f"env={name!r} has no vector form of its own (a vector_entry_point that is registered with "
            "Gymnasium): use vectorize='sync'"
        )
    try:
        return gymnasium.make_vec(env_id, num_envs, "vector_entry_point", **kwargs)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        if isinstance(error, TypeError) and not ARGUMENT_ERROR.search(str(error)):
            raise  # a bug in the environment
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"the vector form of env={name!r} cannot be made: {reason}; use vectorize='sync'"
        ) from error


def _is_registered(name: str) -> bool:
    """Import the module of ``"module:id"``, and see whether Gymnasium then knows the id, in any version."""
    module, env_id = split_name(name, "env")
    import_named(module, f"env={name!r}")
    return "-" in env_id or "/" in env_id or env_id in gymnasium.registry  # else it names a factory


def _call_factory(name: str, kwargs: Mapping[str, Any]) -> Any:
    factory = imported_callable(name, "env")
    try:
        signature_of(factory).bind(**kwargs)
    except TypeError as error:
        given = ", ".join(kwargs) or "no arguments"
        raise ConfigError(f"env={name!r} cannot be called with {given}: {error}; see env_kwargs") from None
    env = factory(**kwargs)
    if missing := missing_parts(env):
        raise ConfigError(
            f"env={name!r} made a {type(env).__name__}, which is not an environment: it has no {missing}"
        )
    return env


def _check_known(env_id: str, env_name: str) -> None:
    register_known(env_id)
    known = list(gymnasium.registry)
    versions = [name for name in known if _stem(name) == _stem(env_id)]
    if env_id in known or (versions and env_id == _stem(env_id)):
        return  # without a version Gymnasium takes the newest
    if versions:
        way_out = f"there is {_listed(versions)}"
    elif (package := package_of(env_id)) is not None and not package.is_installed:
        way_out = f"it comes with {package.package}: `pip install {package.package}`"
    elif close := difflib.get_close_matches(env_id, known, n=1, cutoff=0.6 if env_id == env_name else 0.8):
        way_out = f"did you mean {close[0]!r}?"
    elif env_id != env_name:
        way_out = f"importing the module registers no {env_id!r}"
    else:
        way_out = f"if a package registers it, install that and name its module, as in 'module:{env_id}'"
    raise ConfigError(f"env_name={env_name!r} is unknown: {way_out}")


def _creator(env_id: str) -> Any:
    """The class or function that makes the environment; None for an id without its version."""
    spec = gymnasium.registry.get(env_id)
    creator = None if spec is None else spec.entry_point
    return load_env_creator(creator) if isinstance(creator, str) else creator


def _check_render_mode(env_id: str, mode: str | None) -> None:
    if mode is None:
        return
    metadata: Any = getattr(_creator(env_id), "metadata", None)  # of a wrapper class it is a property
    modes: Any = cast("Any", metadata).get("render_modes") if isinstance(metadata, dict) else None
    if modes is None or mode in [*modes, *(f"{each}_list" for each in modes)]:  # ``make`` wraps for a list
        return
    if mode != "human" or not {"rgb_array", "rgb_array_list"}.intersection(modes):  # which it can show
        raise ConfigError(f"render_mode={mode!r} is not one that {env_id} has: choose {_listed(modes)}")


def _check_arguments(env_id: str, env_name: str, kwargs: Mapping[str, Any]) -> None:
    takes = signature_of(_creator(env_id) or gymnasium.make).parameters  # ``make`` takes any
    unknown = [name for name in kwargs if name not in takes and name not in _MAKE_ARGUMENTS]
    if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()):
        raise ConfigError(
            f"env_name={env_name!r} does not take {_listed(unknown)}: it takes "
            f"{_listed([*takes, 'max_episode_steps'])}"
        )


def _stem(env_id: str) -> str:
    return re.sub(r"-v\d+$", "", env_id)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
