"""Wrappers of environments by name, from a config or a command line: Gymnasium's, or a user's own.

Guarantee: a wrapper that cannot be applied is one ``ConfigError`` of one line. Importing this does not import
Gymnasium.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from stoker.errors import ConfigError
from stoker.importing import imported_callable, signature_of, split_name
from stoker.settings import Settings

_PARTS = ("reset", "step", "observation_space", "action_space")


class EnvWrapper(Settings, frozen=True):
    """A wrapper and its arguments, as a config names them.

    Raises:
        ConfigError: The name is not of the form ``module:Class``, or the arguments hold values that JSON
            lacks.
    """

    name: str
    """The wrapper, as ``module:Class``; a function that takes an environment and returns one will do, too."""

    kwargs: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it
    """Keyword arguments, beside the environment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        split_name(self.name, "wrapper")
        try:
            json.dumps(self.kwargs, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"wrapper={self.name!r}: kwargs={self.kwargs!r} cannot be kept in config.json ({error}): "
                "give numbers, text, lists"
            ) from None

    def __str__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.kwargs.items())
        return f"{self.name}({arguments})" if arguments else self.name


def wrapped(env: Any, wrappers: Iterable[EnvWrapper]) -> Any:
    """Put an environment into wrappers, the first one innermost.

    If one of them cannot be applied, the environment is closed.

    Raises:
        ConfigError: A wrapper does not exist, is no wrapper of single environments, does not take its
            arguments, or refuses the environment.
    """
    try:
        for wrapper in wrappers:
            env = _applied(wrapper, env)
    except ConfigError:
        from stoker.envs.results import close_unused  # brings Gymnasium

        close_unused(env)
        raise
    return env


def missing_parts(env: Any) -> str:
    """What an object lacks to be an environment with spaces, for messages; "": nothing."""
    return ", ".join(part for part in _PARTS if getattr(env, part, None) is None)


def _applied(wrapper: EnvWrapper, env: Any) -> Any:
    import gymnasium.error

    what = f"wrapper={wrapper.name!r}"
    make = imported_callable(wrapper.name, "wrapper")
    _check_kind(make, what)
    kwargs = _with_tuples(wrapper.kwargs)
    try:
        signature_of(make).bind(env, **kwargs)
    except TypeError as error:
        given = ", ".join(kwargs) or "no arguments"
        raise ConfigError(
            f"{what} cannot be called with an environment and {given}: {error}; its arguments are the table "
            "kwargs of its [[wrapper]] in the file that --config names"
        ) from None
    refusals = (gymnasium.error.Error, ImportError, AssertionError, AttributeError, TypeError, ValueError)
    try:
        outer = make(env, **kwargs)
    except refusals as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{what} cannot wrap {env}: {type(error).__name__}: {text}") from error
    if missing := missing_parts(outer):
        raise ConfigError(f"{what} made a {type(outer).__name__}, which lacks {missing}: it is not a wrapper")
    return outer


def _check_kind(make: Any, what: str) -> None:
    """Refuse classes of which Gymnasium knows that they do not wrap a single environment."""
    import gymnasium
    from gymnasium.vector import VectorEnv

    if not isinstance(make, type):
        return
    if issubclass(make, VectorEnv):
        raise ConfigError(f"{what} is for vector environments: name a wrapper of single ones")
    if issubclass(make, gymnasium.Env) and not issubclass(make, gymnasium.Wrapper):
        raise ConfigError(f"{what} is an environment, not a wrapper: give it as the environment")


def _with_tuples(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Lists as tuples: JSON and TOML lack these, and Gymnasium's wrappers check for them."""

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, cast("list[Any]", value))) if isinstance(value, list) else value

    return {key: tuples(value) for key, value in kwargs.items()}
