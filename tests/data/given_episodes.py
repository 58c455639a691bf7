"""Episodes and spaces for the tests of data sets."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from stoker.data import DatasetInfo, Episode
from stoker.data.leaves import leaves_of, nested
from stoker.types import EpisodeStatus

NESTED = spaces.Dict(
    {
        "image": spaces.Box(0, 255, (4, 3, 2), np.uint8),
        "pair": spaces.Tuple(
            [spaces.Discrete(3, start=-1), spaces.Dict({"bits": spaces.MultiBinary([2, 3])})]
        ),
        "precise": spaces.Box(-np.inf, np.inf, (), np.float64),
    }
)
SPACES: dict[str, tuple[gymnasium.Space[Any], gymnasium.Space[Any]]] = {
    "pendulum": (spaces.Box(-8, 8, (3,)), spaces.Box(-2, 2, (1,))),
    "discrete": (spaces.Box(-1, 1, (2,)), spaces.Discrete(5, start=2)),
    "images": (spaces.Box(0, 255, (36, 33, 3), np.uint8), spaces.MultiDiscrete([3, 4], start=[1, -2])),
    "nested": (NESTED, spaces.Tuple([spaces.MultiBinary(3), spaces.Box(0, 9, (2,), np.int16)])),
}


def values(space: gymnasium.Space[Any], n: int, rng: np.random.Generator) -> Any:
    arrays: list[Any] = []
    for leaf in leaves_of(space, "values"):
        shape, kind = (n, *leaf.low.shape), np.dtype(leaf.space.dtype)
        if kind.kind == "f":
            array = np.clip(rng.normal(size=shape), leaf.low, leaf.high)
        else:
            array = rng.integers(leaf.low.astype(np.int64), leaf.high.astype(np.int64) + 1, shape)
        arrays.append(array.astype(kind))
    return nested(space, iter(arrays))


def episodes(name: str, lengths: tuple[int, ...] = (5, 1, 8), seed: int = 0) -> list[Episode]:
    rng = np.random.default_rng(seed)
    statuses = [EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED, EpisodeStatus.CONTINUING]
    return [
        Episode(
            observations=values(SPACES[name][0], length + 1, rng),
            actions=values(SPACES[name][1], length, rng),
            rewards=rng.normal(size=length),
            status=statuses[at % 3],
            seed=None if at == 1 else 7 + at,
            actor_id=["left", 3, "3"][at % 3],
            policy_versions=None if at == 2 else rng.integers(-1, 9, length).clip(at % 2 - 1),
        )
        for at, length in enumerate(lengths)
    ]


def info(name: str, **given: Any) -> DatasetInfo:
    spaces_of = {"observation_space": SPACES[name][0], "action_space": SPACES[name][1]}
    return DatasetInfo(**({"source": "here", "format": "journal"} | spaces_of | given))


def fields(found: list[Episode]) -> list[dict[str, Any]]:
    return [{name: getattr(each, name) for name in each.__struct_fields__} for each in found]
