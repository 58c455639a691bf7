"""Spaces are kept in a checkpoint and made again."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text, Tuple

from stoker.agents.plain_spaces import plain_space, space_from
from stoker.errors import ConfigError


@pytest.mark.parametrize(
    "space",
    [
        Box(0, 255, (8, 8, 3), np.uint8),
        Box(np.array([-1.0, -np.inf]), np.array([0.1, 3.0]), dtype=np.float64),
        Box(0, 1, (4,), np.bool_),
        Box(-2.0, 2.0, (), np.float32),
        Discrete(5, start=-2),
        MultiDiscrete([2, 3], start=[1, 0]),
        MultiDiscrete(np.array([[2, 3], [4, 5]])),
        MultiBinary(4),
        MultiBinary([2, 3]),
        Dict([("z", Discrete(2)), ("a", Tuple([Box(-1.0, 1.0, (2,)), Dict({"b": MultiBinary(1)})]))]),
    ],
    ids=str,
)
def test_a_space_survives_a_checkpoint(space: Space[Any]) -> None:
    file = io.BytesIO()
    torch.save(plain_space(space), file)
    file.seek(0)
    made = space_from(torch.load(file, weights_only=True))
    assert made == space
    assert (made.dtype, made.shape) == (space.dtype, space.shape)
    if isinstance(space, Dict):
        assert list(made) == list(space)


def test_another_space_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cannot hold the space Text"):
        plain_space(Dict({"word": Text(3)}))
