"""Which spaces of an environment an agent cannot have been made for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

from stoker.envs.misfits import misfit

SEEN = Box(-1.0, 1.0, (2,), np.float32)


@pytest.mark.parametrize(
    ("env", "agent"),
    [
        (Box(-1.0, 1.0, (3,), np.float32), SEEN),
        (Box(0, 255, (2,), np.uint8), SEEN),
        (Discrete(2), SEEN),
        (Discrete(3), Discrete(2)),
        (Discrete(2, start=1), Discrete(2)),
        (MultiDiscrete([2, 3]), MultiDiscrete([3, 2])),
        (MultiDiscrete([2], start=[1]), MultiDiscrete([2])),
        (MultiBinary(2), MultiBinary(3)),
        (Dict(a=SEEN, b=Discrete(2)), Dict(a=SEEN)),
        (Dict(a=Dict(b=Discrete(2))), Dict(a=Dict(b=Discrete(3)))),
        (Tuple([SEEN, Discrete(2)]), Tuple([Discrete(2), SEEN])),
        (Text(3, charset="ab"), SEEN),
    ],
)
def test_what_looks_otherwise(env: Any, agent: Any) -> None:
    for spaces, what in (
        (((env, SEEN), (agent, SEEN)), "observation"),
        (((SEEN, env), (SEEN, agent)), "action"),
    ):
        assert f"its {what} space is {env}" in (misfit(*spaces) or "")


@pytest.mark.parametrize(
    ("env", "agent"),
    [
        (Box(-np.inf, np.inf, (2,), np.float64), SEEN),
        (Dict(a=SEEN, b=Discrete(2)), Dict(b=Discrete(2), a=SEEN)),
        (Tuple([SEEN, MultiBinary(2)]), Tuple([SEEN, MultiBinary(2)])),
        (None, SEEN),
    ],
)
def test_what_looks_the_same(env: Any, agent: Any) -> None:
    assert misfit((env, SEEN), (agent, SEEN)) is None
