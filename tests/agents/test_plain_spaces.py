"""Spaces are kept in a checkpoint and made again."""

from __future__ import annotations

import io
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text, Tuple

from stoker import space_kinds
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
    plain = torch.load(file, weights_only=True)
    made = space_from(plain, gymnasium.spaces)
    assert made == space
    assert (made.dtype, made.shape) == (space.dtype, space.shape)
    if isinstance(space, Dict):
        assert list(made) == list(space)
    ours = space_from(plain)
    assert not isinstance(ours, Space)
    assert (str(ours), str(plain_space(ours))) == (str(space), str(plain))
    kind = getattr(space_kinds, type(space).__name__)
    for each in (space, ours):
        assert isinstance(each, kind)
        assert isinstance(each, space_kinds.Space)
        assert isinstance(each, space_kinds.Box) is (kind is space_kinds.Box)


def test_a_kind_of_a_users_own_is_of_the_kind_that_it_derives_from() -> None:
    class Angle(Box):
        pass

    assert isinstance(Angle(-1.0, 1.0, (2,)), space_kinds.Box)
    assert not isinstance(Text(3), space_kinds.Box)


def test_another_space_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cannot hold the space Text"):
        plain_space(Dict({"word": Text(3)}))
