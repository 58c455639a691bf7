"""What a replay holds of an environment's spaces: arrays in the spaces' own dtypes, shapes and nesting.

Used by ``stoker.replay.ring``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from stoker.errors import ConfigError
from stoker.replay.nesting import ArraySpec, Nest
from stoker.replay.transition import TransitionSpec

__all__ = ["transition_of_spaces"]

_KINDS = "Box, Discrete, MultiBinary and MultiDiscrete"


def transition_of_spaces(
    observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]
) -> TransitionSpec:
    """What a transition of an environment with these spaces holds.

    A Discrete value is an int64, whichever integer its space names: what tensors are indexed with.

    Args:
        observation_space: a Box, Discrete, MultiBinary or MultiDiscrete, or a Dict or Tuple of these.
        action_space: one of the first four.

    Raises:
        ConfigError: A space is of another kind, or of a dtype that torch lacks; the message names the place.
    """
    action = _array(action_space)
    if action is None:
        raise ConfigError(f"a replay cannot hold actions of {action_space}: it takes {_KINDS}")
    return TransitionSpec(_nest(observation_space, "observation_space"), action)


def _nest(space: gymnasium.Space[Any], name: str) -> Nest:
    if isinstance(space, spaces.Dict):
        inner = cast("Mapping[str, gymnasium.Space[Any]]", cast("Any", space).spaces)
        return {key: _nest(value, f"{name}[{key!r}]") for key, value in inner.items()}
    if isinstance(space, spaces.Tuple):
        members = cast("Sequence[gymnasium.Space[Any]]", cast("Any", space).spaces)
        return tuple(_nest(value, f"{name}[{i}]") for i, value in enumerate(members))
    array = _array(space)
    if array is None:
        raise ConfigError(
            f"a replay cannot hold {name}, a {space}: it takes {_KINDS}, and Dict and Tuple of these"
        )
    return array


def _array(space: gymnasium.Space[Any]) -> ArraySpec | None:
    """The one array that a value of the space is; None for other kinds of space."""
    if isinstance(space, spaces.Discrete):
        return ArraySpec(torch.int64)
    if isinstance(space, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete):
        dtype, shape = cast("Any", space).dtype, cast("Any", space).shape
        try:
            # by its name: in this machine's byte order
            held = torch.as_tensor(np.empty(0, np.dtype(dtype.name))).dtype
        except TypeError as error:
            raise ConfigError(
                f"a replay cannot hold values of {space}: torch has no {dtype.name}; use float32 or another "
                "dtype that it has"
            ) from error
        return ArraySpec(held, tuple(int(length) for length in shape))
    return None
