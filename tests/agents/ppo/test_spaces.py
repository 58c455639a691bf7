from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from stoker.agents.ppo.spaces import PPOSpaces
from stoker.errors import ConfigError, InvalidExperience
from stoker.types import EpisodeStatus, Experience

Box, Discrete = gymnasium.spaces.Box, gymnasium.spaces.Discrete
SEEN = Box(-1, 1, (2,), np.float32)
IN_A_BOX = PPOSpaces(SEEN, Box(-1, 1, (3,), np.float32))


def experience(action: Any, reward: Any = 0.0, **changes: Any) -> Experience:
    row = np.zeros(2, np.float32)
    values = {"observation": row, "next_observation": row, **changes}
    return Experience(action=action, reward=reward, status=EpisodeStatus.CONTINUING, **values)


@pytest.mark.parametrize(
    ("seen", "acted", "named"),
    [
        (Discrete(3), Discrete(2), "PPO cannot observe Discrete.*it takes a Box"),
        (gymnasium.spaces.Dict({"a": SEEN}), Discrete(2), "PPO cannot observe Dict.*FlattenObservation"),
        (Box(0, 1, (0,)), Discrete(2), "at least one number"),
        (SEEN, gymnasium.spaces.MultiBinary(3), "PPO cannot act in MultiBinary.*Discrete space.*, or a Box"),
        (SEEN, gymnasium.spaces.MultiDiscrete([2, 3]), "PPO cannot act in MultiDiscrete"),
        (SEEN, Box(0, 9, (2,), np.int64), "PPO cannot act in Box.*at least one float"),
        (SEEN, Box(0, 1, (0,)), "PPO cannot act in Box"),
    ],
    ids=["discrete", "dict", "empty", "binary", "multi", "integers", "no-action"],
)
def test_unfit_spaces_are_refused(seen: Any, acted: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        PPOSpaces(seen, acted)


@pytest.mark.parametrize(
    "action",
    [
        np.zeros(3, np.float32),
        np.array([0.1, -5.0, 7.0]),  # what is beyond the bounds was done all the same
        np.zeros(3, np.int64),
        [0.0, 0.5, 1],
        torch.zeros(3),
    ],
    ids=["float32", "float64", "int64", "list", "tensor"],
)
def test_actions_in_a_box_are_taken(action: Any) -> None:
    IN_A_BOX.check_experience(experience(action))


def test_large_finite_actions_are_taken() -> None:
    with np.errstate(over="raise"):
        IN_A_BOX.check_experience(experience(np.full(3, 3e38, np.float32)))
        IN_A_BOX.check_experience(experience(np.full(3, 1e308)))
        wide = PPOSpaces(SEEN, Box(-np.inf, np.inf, (40,), np.float32))
        wide.check_experience(experience(np.full(40, 3e38, np.float32)))


@pytest.mark.parametrize(
    ("action", "named"),
    [
        (np.zeros(2, np.float32), r"action .* is float32 \[2\], which does not fit: give float32 \[3\]"),
        (0.5, r"float64 \[\]"),
        (np.array([0.0, np.nan, 0.0]), "not finite"),
        (np.array([np.inf, -np.inf, 0.0], np.float32), "not finite"),
        (np.zeros(3, np.complex64), "complex64"),
        (["a", "b", "c"], "which does not fit"),
        ([[1], [2, 3]], "is not an array"),
        (None, r"object \[\]"),
    ],
    ids=["shape", "scalar", "nan", "inf", "complex", "text", "ragged", "none"],
)
def test_other_actions_in_a_box_are_refused(action: Any, named: str) -> None:
    with pytest.raises(InvalidExperience, match=named):
        IN_A_BOX.check_experience(experience(action))


@pytest.mark.parametrize("spaces", [IN_A_BOX, PPOSpaces(SEEN, Discrete(3))], ids=["box", "discrete"])
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"observation": np.zeros(3)}, r"^observation .*shape \[3\]"),
        ({"next_observation": np.array([0.0, np.nan])}, r"next_observation\[1\] is nan"),
        ({"reward": "1"}, "reward '1' is a str, not a number"),
        ({"reward": 1e39}, "reward 1e.39 is not finite as float32"),
        ({"reward": float("nan")}, "reward nan is not finite"),
    ],
    ids=["observation", "next", "text", "large", "nan"],
)
def test_what_is_unfit_besides_the_action_is_refused(
    spaces: PPOSpaces, changes: dict[str, Any], named: str
) -> None:
    action = np.zeros(3, np.float32) if spaces is IN_A_BOX else 1
    spaces.check_experience(experience(action))
    spaces.check_experience(experience(action, np.float32(2)))
    with pytest.raises(InvalidExperience, match=named):
        spaces.check_experience(experience(action, **changes))


def test_they_are_described_in_plain_types() -> None:
    assert IN_A_BOX.describe() == {
        "observation_space": {"shape": [2], "dtype": "float32"},
        "action_space": {"shape": [3]},
    }
    assert PPOSpaces(SEEN, Discrete(3, start=2)).describe()["action_space"] == {"n": 3, "start": 2}


def test_what_is_chosen_comes_in_the_environments_form() -> None:
    chosen = np.array([[0.5, -7.0, 7.0]])
    (action,) = IN_A_BOX.actions.for_env(chosen)
    assert action.dtype == np.float32
    assert action.tolist() == [0.5, -1.0, 1.0]
    assert PPOSpaces(SEEN, Discrete(3, start=2)).actions.for_env(np.array([[0.0], [2.0]])) == [2, 4]
