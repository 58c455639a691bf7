from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces as gym_spaces
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from stoker.agents.actions import BoxActions, DiscreteActions, MultiDiscreteActions
from stoker.agents.spaces import AgentSpaces
from stoker.errors import ConfigError, InvalidExperience
from stoker.replay import UniformReplay
from stoker.types import EpisodeStatus, Experience

F32_MAX = float(np.finfo(np.float32).max)
GOOD = np.zeros(3, np.float32)

BOTH = (DiscreteActions, BoxActions)


def of(seen: Any, acted: Any) -> AgentSpaces[Any]:
    return AgentSpaces("DQN", seen, acted, BOTH)


FLOATS = of(gym_spaces.Box(-1, 1, (3,), np.float32), gym_spaces.Discrete(4, start=-1))
HALVES = of(gym_spaces.Box(-1, 1, (3,), np.float16), gym_spaces.Discrete(4))
BYTES = of(gym_spaces.Box(0, 255, (3,), np.uint8), gym_spaces.Discrete(4))
SCALAR = of(gym_spaces.Box(-1, 1, (), np.float64), gym_spaces.Discrete(4))
BOOLS = of(gym_spaces.Box(0, 1, (3,), bool), gym_spaces.Discrete(4))


def experience(
    observation: Any = GOOD, action: Any = 0, reward: Any = 1.0, next_observation: Any = GOOD
) -> Experience:
    return Experience(observation, action, reward, next_observation, EpisodeStatus.CONTINUING)


TAKEN: list[tuple[AgentSpaces[Any], Any]] = [
    (FLOATS, np.array([1, 2, 3], np.float32)),
    (FLOATS, np.array([1, 2, 3], np.float64)),
    (FLOATS, np.array([1, 2, 3], np.float16)),
    (FLOATS, np.array([6e4, -6e4, 6e4], np.float16)),
    (FLOATS, np.array([1, 2, 3])),
    (FLOATS, np.array([True, False, True])),
    (FLOATS, [0.5, 1, 2]),
    (FLOATS, (0.5, 1, 2)),
    (FLOATS, torch.tensor([1.0, 2.0, 3.0])),
    (FLOATS, np.array([F32_MAX, -F32_MAX, 0], np.float32)),
    (FLOATS, np.array([F32_MAX, -1e30, 0])),
    (FLOATS, np.arange(6, dtype=np.float32)[::2]),
    (HALVES, np.array([6e4, -6e4, 6e4], np.float16)),
    (BYTES, np.array([0, 1, 255], np.uint8)),
    (BYTES, [0, 1, 255]),
    (BYTES, np.array([0, 1, 255], np.int64)),
    (SCALAR, 0.5),
    (SCALAR, np.float32(0.5)),
    (SCALAR, np.array(0.5)),
    (BOOLS, np.array([True, False, True])),
    (BOOLS, [0, 1, 0]),
]

REFUSED: list[tuple[AgentSpaces[Any], Any, str]] = [
    (FLOATS, np.zeros(4, np.float32), r"shape \[4\].*give float32 \[3\]"),
    (FLOATS, np.zeros((1, 3), np.float32), r"shape \[1, 3\]"),
    (FLOATS, np.float32(0), r"shape \[\]"),
    (FLOATS, 0.5, r"observation=0.5 .* has shape \[\]"),
    (FLOATS, [], r"shape \[0\]"),
    (FLOATS, None, "=None .* has dtype object"),
    (FLOATS, "left", "='left' .* has dtype <U4"),
    (FLOATS, ["a", "b", "c"], "dtype <U1"),
    (FLOATS, {"x": 1}, "dtype object"),
    (FLOATS, np.array([1, None, 2]), "dtype object"),
    (FLOATS, np.zeros(3, np.complex64), "dtype complex64"),
    (FLOATS, [[1, 2], 3, 4], "not an array"),
    (FLOATS, torch.zeros(3, requires_grad=True), "not an array"),
    (FLOATS, np.array([0, np.nan, 1], np.float32), r"observation\[1\] is nan"),
    (FLOATS, np.array([0, 1, np.inf], np.float32), r"observation\[2\] is inf"),
    (FLOATS, np.array([-np.inf, 1, 0], np.float64), r"observation\[0\] is -inf"),
    (FLOATS, np.array([np.inf, -np.inf, 0], np.float16), r"observation\[0\] is inf"),
    (FLOATS, np.array([np.inf, np.nan, 0], np.float32), r"observation\[0\] is inf"),
    (FLOATS, np.array([0, 1e39, 0]), r"observation\[1\] is 1e\+39.*3.4\d*e\+38"),
    (FLOATS, [0, float("nan"), 0], r"observation\[1\] is nan"),
    (FLOATS, torch.tensor([0, torch.nan, 0]), r"observation\[1\] is nan"),
    (HALVES, np.array([0, np.inf, 0], np.float16), r"observation\[1\] is inf"),
    (BYTES, np.array([0.0, 1.0, 2.0]), "dtype float64"),
    (BYTES, [0, 256, 1], r"observation\[1\] is 256: give uint8 \[3\].*from 0 to 255"),
    (BYTES, [0, 1, -1], r"observation\[2\] is -1"),
    (BYTES, np.zeros(2, np.uint8), r"shape \[2\]"),
    (SCALAR, np.nan, "observation is nan"),
    (SCALAR, [0.5], r"shape \[1\]"),
    (BOOLS, [0, 2, 0], r"observation\[1\] is 2.*from 0 to 1"),
]


def test_observations_that_fit_are_taken_and_stored_unchanged() -> None:
    for spaces, observation in TAKEN:
        check_taken(spaces, observation)


def check_taken(spaces: AgentSpaces[Any], observation: Any) -> None:
    spaces.observations.check(observation, "observation")
    spaces.check_experience(experience(observation, next_observation=observation))
    replay = UniformReplay(1, spaces.observations.shape, spaces.observations.spec.dtype)
    replay.add(experience(observation, next_observation=observation))
    expected = np.asarray(observation, dtype=np.float64)
    for stored in (replay.sample(1).observations, torch.as_tensor(spaces.observations.stack([observation]))):
        assert stored.dtype == spaces.observations.spec.dtype
        np.testing.assert_allclose(stored[0].numpy().astype(np.float64), expected, rtol=1e-7)


def test_observations_that_do_not_fit_are_refused() -> None:
    for spaces, observation, named in REFUSED:
        check_refused(spaces, observation, named)


def check_refused(spaces: AgentSpaces[Any], observation: Any, named: str) -> None:
    good = np.zeros(spaces.observations.shape, np.bool_ if spaces is BOOLS else np.uint8)
    with pytest.raises(InvalidExperience, match=named):
        spaces.observations.check(observation, "observation")
    with pytest.raises(InvalidExperience, match=named):
        spaces.check_experience(experience(observation, next_observation=good))
    with pytest.raises(
        InvalidExperience, match=f"next_{named}" if named.startswith("observation") else named
    ):
        spaces.check_experience(experience(good, next_observation=observation))


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]), 3, elements=st.floats(width=16, allow_nan=True)
    ),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_floats_are_taken_if_and_only_if_all_are_finite(array: np.ndarray, largest: bool) -> None:
    if largest and array.dtype != np.float16:
        array[0] = F32_MAX
    try:
        FLOATS.observations.check(array, "observation")
        taken = True
    except InvalidExperience:
        taken = False
    assert taken == bool(np.isfinite(array).all())


def test_actions_in_range_are_taken() -> None:
    for action in [-1, 0, 2, np.int64(2), np.int8(-1), np.uint8(0), np.array(1), np.array(2, np.uint16)]:
        FLOATS.check_experience(experience(action=action))


def test_unfit_actions_are_refused() -> None:
    for action, named in [
        (-2, "action=-2 is out of range: give an int from -1 to 2"),
        (3, "action=3 is out of range"),
        (np.int64(3), "action=3 is out of range"),
        (np.array(3), "action=3 is out of range"),
        (10**30, "out of range"),
        (1.0, r"action=1.0 \(float\) is not an integer: give an int from -1 to 2"),
        (np.float32(1), r"\(float32\) is not an integer"),
        (True, r"action=True \(bool\) is not an integer"),
        (np.bool_(1), "is not an integer"),
        (np.array(1, np.bool_), "is not an integer"),
        (np.array([1]), r"action=array\(\[1\]\) \(ndarray\) is not an integer"),
        (np.array(1.0), "not an integer"),
        ("1", r"action='1' \(str\) is not an integer"),
        (None, "action=None .* is not an integer"),
        ([1], r"\(list\) is not an integer"),
    ]:
        with pytest.raises(InvalidExperience, match=named):
            FLOATS.check_experience(experience(action=action))


def test_finite_rewards_are_taken() -> None:
    for reward in [0.0, -3, True, np.float32(1), np.float64(1), np.int64(-2), F32_MAX]:
        FLOATS.check_experience(experience(reward=reward))


def test_unfit_rewards_are_refused() -> None:
    for reward, named in [
        (float("nan"), "reward=nan is not finite"),
        (float("inf"), "reward=inf is not finite"),
        (np.float32("-inf"), "not finite"),
        (1e39, r"reward=1e\+39 is not finite as float32"),
        (10**400, "not finite as float32"),
        ("1", r"reward='1' \(str\) is not a number"),
        (None, "reward=None .* is not a number"),
        (np.array([1.0]), "is not a number"),
    ]:
        with pytest.raises(InvalidExperience, match=named):
            FLOATS.check_experience(experience(reward=reward))


def test_floats_are_stored_in_single_precision_and_integers_as_they_are() -> None:
    for dtype, stored in [
        (np.float16, torch.float32),
        (np.float32, torch.float32),
        (np.float64, torch.float32),
        (np.uint8, torch.uint8),
        (np.int16, torch.int16),
        (np.int64, torch.int64),
        (bool, torch.bool),
    ]:
        box = gym_spaces.Box(0, 1, (2, 3), dtype)
        spaces = of(box, gym_spaces.Discrete(2))
        assert (spaces.observations.spec.shape, spaces.observations.spec.dtype) == ((2, 3), stored)


def test_other_spaces_are_refused() -> None:
    for observation_space, action_space, named in [
        (
            gym_spaces.Text(3),
            gym_spaces.Discrete(2),
            r"observe Text\(.*\): it takes a Box.*of floats, integers or bools; Discrete, .*Dict and Tuple",
        ),
        (
            gym_spaces.Dict(a=gym_spaces.Tuple([gym_spaces.Sequence(gym_spaces.Discrete(2))])),
            gym_spaces.Discrete(2),
            r"observe observation\['a'\]\[0\], a Sequence.*it takes a Box",
        ),
        (gym_spaces.Dict({}), gym_spaces.Discrete(2), r"observe Dict\(\): it has no numbers; it takes a Box"),
        (gym_spaces.Box(0, 1, (0,)), gym_spaces.Discrete(2), "at least one number"),
        (
            gym_spaces.Box(0, 1, (1,)),
            gym_spaces.MultiBinary(3),
            r"act in MultiBinary.*use PPO \(--",
        ),
        (gym_spaces.Box(0, 1, (1,)), gym_spaces.Text(3), "act in Text(?!.*PPO)"),
        (gym_spaces.Box(0, 1, (1,)), gym_spaces.Box(0, 9, (2,), np.int64), "act in Box.*at least one float"),
        (gym_spaces.Box(0, 1, (1,)), gym_spaces.Box(0, 1, (0,)), "act in Box"),
    ]:
        with pytest.raises(ConfigError, match=named):
            of(observation_space, action_space)


def test_an_agent_names_the_action_spaces_that_it_takes() -> None:
    box = gym_spaces.Box(0, 1, (1,))
    with pytest.raises(
        ConfigError,
        match=r"DQN cannot act in Box.*a Discrete space, .*; use PPO or SAC or TD3 or IQL or AWAC \(--agent",
    ):
        AgentSpaces("DQN", box, box, [DiscreteActions])
    with pytest.raises(
        ConfigError,
        match=r"act in Discrete.*takes a Box of .* float; use DQN or .*PPO or .*\(--agent dqn or",
    ):
        AgentSpaces("SAC", box, gym_spaces.Discrete(2), [BoxActions])


SEEN = gym_spaces.Box(-1, 1, (2,), np.float32)
IN_A_BOX = of(SEEN, gym_spaces.Box(-1, 1, (3,), np.float32))


def act(action: Any) -> Experience:
    row = np.zeros(2, np.float32)
    return Experience(row, action, 0.0, row, EpisodeStatus.CONTINUING)


def test_actions_in_a_box_are_taken() -> None:
    for action in [
        np.zeros(3, np.float32),
        np.array([0.1, -5.0, 7.0]),  # what is beyond the bounds was done all the same
        np.zeros(3, np.int64),
        [0.0, 0.5, 1],
        torch.zeros(3),
    ]:
        IN_A_BOX.check_experience(act(action))


def test_large_finite_actions_are_taken() -> None:
    with np.errstate(over="raise"):
        IN_A_BOX.check_experience(act(np.full(3, 3e38, np.float32)))
        IN_A_BOX.check_experience(act(np.full(3, 3e38)))
        of(SEEN, gym_spaces.Box(-1, 1, (3,), np.float64)).check_experience(act(np.full(3, 1e308)))
        wide = of(SEEN, gym_spaces.Box(-np.inf, np.inf, (40,), np.float32))
        wide.check_experience(act(np.full(40, 3e38, np.float32)))


def test_other_actions_in_a_box_are_refused() -> None:
    for action, named in [
        (np.zeros(2, np.float32), r"action=.* has shape \[2\]: give float32 \[3\]"),
        (0.5, r"action=0.5 \(float\) has shape \[\]"),
        (np.array([0.0, np.nan, 0.0]), r"action\[1\] is nan: .* each value finite"),
        (np.array([np.inf, -np.inf, 0.0], np.float32), r"action\[0\] is inf"),
        (np.array([0.0, 1e308, 0.0]), r"action\[1\] is 1e\+308: .* to 3.4\d*e\+38"),
        (np.array([True, False, True]), "dtype bool, which does not fit"),
        (np.zeros(3, np.complex64), "complex64"),
        (["a", "b", "c"], "which does not fit"),
        ([[1], [2, 3]], "is not an array"),
        (None, "=None .* has dtype object"),
    ]:
        with pytest.raises(InvalidExperience, match=named):
            IN_A_BOX.check_experience(act(action))


NUMBERS = AgentSpaces("PPO", SEEN, gym_spaces.MultiDiscrete([2, 3], start=[0, -1]), [MultiDiscreteActions])
SWITCHES = AgentSpaces("PPO", SEEN, gym_spaces.MultiBinary((2, 1)), [MultiDiscreteActions])


def test_several_numbers_in_range_are_taken() -> None:
    for spaces, action in [
        (NUMBERS, np.array([1, -1])),
        (NUMBERS, np.array([0, 1], np.int8)),
        (NUMBERS, [1, 1]),
        (NUMBERS, torch.tensor([1, 0])),
        (SWITCHES, np.array([[1], [0]], np.int8)),
        (SWITCHES, np.array([[True], [False]])),
    ]:
        spaces.check_experience(act(action))
        rows = np.array([action, action])
        assert spaces.actions.are_valid(rows) == (rows.dtype.kind == "i")  # else it looks at each


def test_other_numbers_are_refused() -> None:
    for spaces, action, named in [
        (NUMBERS, np.array([2, 0]), r"action\[0\] is 2: give an int from 0 to 1 there"),
        (NUMBERS, np.array([0, -2]), r"action\[1\] is -2: give an int from -1 to 1"),
        (NUMBERS, np.array([[1, 0]]), r"has shape \[1, 2\]: give int64 \[2\]"),
        (NUMBERS, np.array([1.0, 0.0]), "has dtype float64, which does not fit: give int64"),
        (NUMBERS, 1, r"action=1 \(int\) has shape \[\]"),
        (NUMBERS, None, "has dtype object"),
        (SWITCHES, np.array([[1], [2]], np.int8), r"action\[1, 0\] is 2: give an int from 0 to 1"),
    ]:
        with pytest.raises(InvalidExperience, match=named):
            spaces.check_experience(act(action))
        assert not spaces.actions.are_valid(np.array([action, action]))


def test_several_numbers_come_in_the_environments_form() -> None:
    chosen = np.array([[1.0, 0.0], [0.0, 2.0]])
    column = NUMBERS.actions.column(chosen)
    assert (column.dtype, column.tolist()) == (np.int64, [[1, -1], [0, 1]])
    assert all(gym_spaces.MultiDiscrete([2, 3], start=[0, -1]).contains(row) for row in column)
    assert NUMBERS.actions.are_chosen(column, chosen)
    assert not NUMBERS.actions.are_chosen(column[::-1], chosen)
    assert [NUMBERS.actions.is_chosen(row, chosen[0].tolist()) for row in column] == [True, False]
    (pressed,) = SWITCHES.actions.for_env(np.array([[1.0, 0.0]]))
    assert (pressed.dtype, pressed.tolist()) == (np.int8, [[1], [0]])


def test_they_are_described_in_plain_types() -> None:
    assert IN_A_BOX.describe() == {
        "observation_space": {"shape": [2], "dtype": "float32"},
        "action_space": {"shape": [3]},
    }
    assert of(SEEN, gym_spaces.Discrete(3, start=2)).describe()["action_space"] == {"n": 3, "start": 2}


def test_what_is_chosen_comes_in_the_environments_form() -> None:
    chosen = np.array([[0.5, -7.0, 7.0]])
    (action,) = IN_A_BOX.actions.for_env(chosen)
    assert action.dtype == np.float32
    assert action.tolist() == [0.5, -1.0, 1.0]
    assert of(SEEN, gym_spaces.Discrete(3, start=2)).actions.for_env(np.array([[0.0], [2.0]])) == [2, 4]
