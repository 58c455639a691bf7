"""Masks of actions from ``info["action_mask"]`` as a part of observations, which agents and journals see."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from stoker.errors import ConfigError
from stoker.plain import shown

MASK = "action_mask"
"""The key of a mask in an info, and in a Dict of observations."""


class ActionMaskObservation(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gives observations ``{"observation": ..., "action_mask": ...}``.

    The mask is ``info["action_mask"]`` as int8 ``[n]``: 1 for each action that is allowed, 0 for the others.
    For a MultiDiscrete space it has an entry for each choice, number by number, or is a tuple of the masks of
    the numbers; for a MultiBinary space each number has two. After the last step of an episode it may be
    missing.

    Args:
        env: an environment with Discrete, MultiDiscrete or MultiBinary actions.

    Raises:
        ConfigError: It has other actions; or later, by ``reset`` and ``step``: the info has no such mask.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._n = n_choices(env.action_space)
        if not self._n:
            raise ConfigError(
                f"an action mask needs Discrete, MultiDiscrete or MultiBinary actions, not {env.action_space}"
            )
        self.observation_space = mask_space(env.observation_space, self._n)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """See ``gymnasium.Env``."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._masked(observation, info, "reset"), info

    def step(self, action: Any) -> Any:
        """See ``gymnasium.Env``."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            info = with_any_mask(info, self._n)
        return self._masked(observation, info, "step"), reward, terminated, truncated, info

    def _masked(self, observation: Any, info: Mapping[str, Any], method: str) -> dict[str, Any]:
        return masked(observation, info, self.action_space, f"{type(self.unwrapped).__name__}.{method}")


def mask_space(space: gymnasium.Space[Any], n: int) -> spaces.Dict:
    """The space of observations of ``space`` with a mask of n choices."""
    return spaces.Dict({"observation": space, MASK: spaces.MultiBinary(n)})


def with_any_mask(info: Mapping[str, Any], n: int) -> Mapping[str, Any]:
    """The last info of an episode; if it has no mask, with one that allows all."""
    return info if MASK in info else {**info, MASK: np.ones(n, np.int8)}


def masked(observation: Any, info: Mapping[str, Any], action_space: Any, where: str) -> dict[str, Any]:
    """An observation with the mask of its info, as ``ActionMaskObservation`` gives it.

    Args:
        observation: without the mask.
        info: that of the same step.
        action_space: of whom it is for.
        where: names the info's origin in messages.

    Raises:
        ConfigError: The info has no mask of that length.
    """
    n = n_choices(action_space)
    mask = mask_in(info)
    if mask is None or mask.shape != (n,):
        given = f"{MASK}={shown(info[MASK])}" if MASK in info else f"no {MASK}"
        raise ConfigError(
            f"the info of {where} has {given}: give 0 or 1 for each of the {n} choices of {action_space}"
        )
    return {"observation": observation, MASK: mask}


def with_action_mask(env: Any) -> Any:
    """The environment, in an ``ActionMaskObservation`` if the info of a first reset has a mask.

    An environment whose reset raises, or returns something else, stays as it is: its player meets the error.
    """
    if not isinstance(env, gymnasium.Env) or not n_choices(cast("Any", env).action_space):
        return cast("Any", env)
    plain = cast("gymnasium.Env[Any, Any]", env)
    if MASK in getattr(plain.observation_space, "spaces", ()):
        return plain
    try:
        _, info = plain.reset()
        return ActionMaskObservation(plain) if MASK in info else plain
    except Exception:  # noqa: BLE001 - it comes again
        return plain


def without_mask(env: VectorEnv[Any, Any, Any], name: str) -> VectorEnv[Any, Any, Any]:
    """A vector environment in a form of its own, if the info of a first reset has no mask.

    Raises:
        ConfigError: It has one, which agents would not see; the environment is closed.
    """
    vector: Any = env
    parts: Any = getattr(vector.single_observation_space, "spaces", ())
    if n_choices(vector.single_action_space) and MASK not in parts:
        _, info = vector.reset()
        if MASK in info:
            vector.close()
            raise ConfigError(
                f"the vector form of env={name!r} has an {MASK} in its info, which agents see in "
                "observations alone: use vectorize='sync'"
            )
    return env


def n_choices(space: Any) -> int:
    """The length of a mask of these actions; 0: they have none."""
    kind: type = space.__class__
    if issubclass(kind, spaces.Discrete):
        return int(space.n)
    if issubclass(kind, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    return 2 * math.prod(space.shape) if issubclass(kind, spaces.MultiBinary) else 0


def mask_in(info: Mapping[str, Any]) -> NDArray[np.int8] | None:
    """The mask in an info, flat, as a copy; None: there is none of numbers."""
    given: Any = info.get(MASK)
    parts: Iterable[Any] = given if given.__class__ is tuple else (given,)
    try:
        return np.concatenate([np.ravel(part) for part in parts]).astype(np.int8)
    except (TypeError, ValueError):
        return None
