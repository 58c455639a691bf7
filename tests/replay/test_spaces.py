"""Replays made for spaces: dtypes, shapes and nesting as the spaces have them."""

from __future__ import annotations

import io
import tempfile
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings, strategies as st

from stoker.errors import ConfigError, InvalidExperience
from stoker.replay import ArraySpec, Batch, PrioritizedReplay, TransitionSpec, UniformReplay
from stoker.replay.storage import Storage
from stoker.types import EpisodeStatus, Experience
from stoker.writer import stage

STATUSES = [EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED]

CAMERA = spaces.Box(0, 255, (3, 4, 1), np.uint8)
ROBOT = spaces.Dict(
    {
        "camera": CAMERA,
        "arms": spaces.Tuple([spaces.Box(-1, 1, (2,), np.float64), spaces.MultiBinary(3)]),
        "gear": spaces.Discrete(5, start=-1),
    }
)
ACTIONS: dict[str, gymnasium.Space[Any]] = {
    "discrete": spaces.Discrete(4, start=2),
    "continuous": spaces.Box(-2, 2, (2, 3), np.float32),
    "number": spaces.Box(-2, 2, (), np.float32),
    "multi-discrete": spaces.MultiDiscrete([3, 5]),
    "multi-binary": spaces.MultiBinary((2, 2)),
}

shapes = st.lists(st.integers(0, 3), max_size=2).map(tuple)
boxes = st.builds(
    lambda shape, dtype: spaces.Box(0, 100, shape, dtype),
    shapes,
    st.sampled_from([np.uint8, np.int16, np.int64, np.float16, np.float32, np.float64]),
)
arrays = st.one_of(
    boxes,
    st.integers(1, 5).map(spaces.Discrete),
    st.integers(1, 4).map(spaces.MultiBinary),
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(spaces.MultiDiscrete),
)
nested = st.recursive(
    arrays,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["a", "b", "it's", "x['a']"]), inner, max_size=3).map(spaces.Dict),
        st.lists(inner, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=5,
)


def experiences_of(
    observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any], count: int, seed: int = 0
) -> list[Experience]:
    """Of samples of the spaces; a reward says which one it is."""
    observation_space.seed(seed)
    action_space.seed(seed)
    return [
        Experience(
            observation_space.sample(),
            action_space.sample(),
            float(number),
            observation_space.sample(),
            STATUSES[number % 3],
        )
        for number in range(count)
    ]


def assert_equal(stored: Any, value: Any, row: int) -> None:
    """The nesting, dtypes and values of a row are those of a space's sample."""
    if isinstance(value, dict):
        assert type(stored) is dict
        assert list(stored) == list(value)
        for key, inner in value.items():
            assert_equal(stored[key], inner, row)
    elif isinstance(value, tuple):
        assert type(stored) is tuple
        assert len(stored) == len(value)
        for mine, inner in zip(stored, value, strict=True):
            assert_equal(mine, inner, row)
    else:
        array = np.asarray(value)
        assert stored.dtype == torch.as_tensor(array).dtype
        np.testing.assert_array_equal(stored[row].numpy(), array)


def assert_rows(batch: Batch, experiences: list[Experience]) -> None:
    for row, number in enumerate(batch.rewards.tolist()):
        experience = experiences[int(number)]
        assert_equal(batch.observations, experience.observation, row)
        assert_equal(batch.actions, experience.action, row)
        assert_equal(batch.next_observations, experience.next_observation, row)
        assert batch.bootstrap_masks[row] == experience.status.bootstrap_mask


def flat(nest: Any) -> list[torch.Tensor]:
    if isinstance(nest, dict):
        return [leaf for inner in nest.values() for leaf in flat(inner)]
    return [leaf for inner in nest for leaf in flat(inner)] if isinstance(nest, tuple) else [nest]


def assert_same(left: tuple[Any, ...], right: tuple[Any, ...]) -> None:
    for ours, theirs in zip(flat(left), flat(right), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def on_a_device(replay: UniformReplay) -> UniformReplay:
    replay._storage = Storage(replay._spec, replay._storage._rows, is_host=False)
    replay._put_one = replay._storage.put_one
    return replay


@given(
    observation_space=nested,
    action_space=arrays,
    capacity=st.integers(1, 12),
    slices=st.lists(st.integers(0, 15), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
@settings(max_examples=120)
def test_what_is_put_in_comes_out_however_it_is_nested(
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    capacity: int,
    slices: list[int],
    seed: int,
) -> None:
    """One by one, several together, in columns, in a file, and through a saved state."""
    make = {"seed": seed, "capacity": capacity}
    for_spaces = UniformReplay.for_spaces
    one, many, columns = (for_spaces(observation_space, action_space, **make) for _ in range(3))
    mapped = for_spaces(observation_space, action_space, **make, memory_map=tempfile.gettempdir())
    device = on_a_device(for_spaces(observation_space, action_space, **make))
    experiences = experiences_of(observation_space, action_space, sum(slices), seed)
    first = 0
    for length in slices:
        given_now = experiences[first : first + length]
        first += length
        for replay in (many, mapped, device):
            replay.extend(given_now)
        for experience in given_now:
            one.add(experience)
            single = for_spaces(observation_space, action_space, 1)
            single.add(experience)
            columns.extend_columns(*single.sample(1))
    if not experiences:
        return
    assert len(one) == min(capacity, len(experiences))
    file = io.BytesIO()
    torch.save(stage(many.state_dict()), file)
    file.seek(0)
    loaded = for_spaces(observation_space, action_space, capacity)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    larger = for_spaces(observation_space, action_space, capacity + 3)
    larger.load_state_dict(many.state_dict())
    assert_rows(larger.sample(len(larger)), experiences)
    for _ in range(3):
        batch = one.sample(len(one))
        assert_rows(batch, experiences)
        for other in (many, columns, mapped, device, loaded):
            assert_same(other.sample(len(one)), batch)


@pytest.mark.parametrize("action_space", ACTIONS.values(), ids=ACTIONS)
def test_a_prioritized_replay_holds_the_same(action_space: gymnasium.Space[Any]) -> None:
    replay = PrioritizedReplay.for_spaces(ROBOT, action_space, 8, alpha=1.0, seed=2)
    experiences = experiences_of(ROBOT, action_space, 20)
    replay.extend(experiences)
    batch = replay.sample(8)
    assert_rows(batch.transitions, experiences)
    assert batch.indices.tolist() == batch.rewards.tolist()
    replay.update_priorities([15], [1e6])
    assert replay.sample(1).rewards.item() == 15
    resumed = PrioritizedReplay.for_spaces(ROBOT, action_space, 8, alpha=1.0)
    resumed.load_state_dict(stage(replay.state_dict()))
    assert_same(resumed.sample(8), replay.sample(8))


@pytest.mark.parametrize("action_space", ACTIONS.values(), ids=ACTIONS)
def test_actions_have_the_dtype_and_shape_of_their_space(action_space: gymnasium.Space[Any]) -> None:
    replay = UniformReplay.for_spaces(CAMERA, action_space, 10)
    experiences = experiences_of(CAMERA, action_space, 10)
    replay.extend(experiences)
    batch = replay.sample(10)
    assert batch.actions.shape == (10, *action_space.shape)
    assert batch.actions.dtype == torch.as_tensor(np.empty(0, action_space.dtype)).dtype
    assert batch.observations.dtype == torch.uint8
    assert_rows(batch, experiences)


def test_a_box_and_discrete_actions_are_the_plain_case() -> None:
    """The same rows, state and batches as of a replay that was given a shape and a dtype."""
    box = spaces.Box(-1, 1, (3,), np.float32)
    replays = UniformReplay.for_spaces(box, spaces.Discrete(2), 5, seed=1), UniformReplay(5, (3,), seed=1)
    for replay in replays:
        assert replay._spec.is_plain
        replay.extend(experiences_of(box, spaces.Discrete(2), 7))
    assert_same(replays[0].sample(5), replays[1].sample(5))
    replays[1].load_state_dict(replays[0].state_dict())
    assert list(replays[0].state_dict()) == list(replays[1].state_dict())


def test_a_replay_may_be_told_what_a_transition_holds_without_spaces() -> None:
    spec = TransitionSpec(
        {"position": ArraySpec(torch.float32, (2,)), "step": ArraySpec(torch.int32)}, ArraySpec(torch.float32)
    )
    replay = UniformReplay(3, spec)
    seen, then = {"position": [1, 2], "step": 3}, {"position": [4, 5], "step": 6}
    replay.add(Experience(seen, 0.5, 1.0, then, EpisodeStatus.TRUNCATED), 0.9)
    batch = replay.sample(1)
    assert batch.observations["position"].tolist() == [[1, 2]]
    assert batch.next_observations["step"].dtype == torch.int32
    assert (batch.actions.tolist(), batch.rewards.tolist()) == ([0.5], [1.0])
    assert batch.bootstrap_masks.item() == pytest.approx(0.9)


def test_a_state_has_a_column_for_each_array_under_a_name_that_says_where_it_lies() -> None:
    replay = UniformReplay.for_spaces(ROBOT, spaces.Discrete(2), 5)
    replay.extend(experiences_of(ROBOT, spaces.Discrete(2), 3))
    state = replay.state_dict()
    parts = ["['arms'][0]", "['arms'][1]", "['camera']", "['gear']"]
    assert {f"{field}{part}" for field in ("observations", "next_observations") for part in parts} < {*state}
    assert state["observations['camera']"].shape == (3, 3, 4, 1)
    assert state["observations['gear']"].dtype == torch.int64


def test_what_stands_for_an_array_is_converted_within_its_kind() -> None:
    space = spaces.Dict({"a": spaces.Box(0, 9, (2,), np.float32), "b": spaces.Box(0, 9, (), np.uint8)})
    replay = UniformReplay.for_spaces(space, spaces.MultiBinary(2), 5)
    replay.add(
        Experience(
            {"a": [1, 2], "b": 7}, [True, False], 1, {"b": np.int64(8), "a": torch.ones(2)}, STATUSES[0]
        )
    )
    batch = replay.sample(1)
    assert batch.observations["a"].tolist() == [[1, 2]]
    assert batch.observations["b"].tolist() == [7]
    assert batch.next_observations["b"].tolist() == [8]
    assert batch.actions.tolist() == [[1, 0]]
    assert batch.actions.dtype == torch.int8


def good() -> dict[str, Any]:
    (experience,) = experiences_of(ROBOT, ACTIONS["continuous"], 1, seed=5)
    return {
        "observation": experience.observation,
        "action": experience.action,
        "reward": experience.reward,
        "next_observation": experience.next_observation,
    }


def without(observation: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in observation.items() if name != key}


SEEN = good()["observation"]
REFUSED = [
    ({"observation": without(SEEN, "camera")}, "observation lacks 'camera'"),
    ({"next_observation": without(SEEN, "gear")}, "next_observation lacks 'gear'"),
    ({"observation": {**SEEN, "lidar": 1}}, "observation has 'lidar', but only"),
    ({"observation": SEEN["camera"]}, "observation is a ndarray: give a dict"),
    (
        {"observation": {**SEEN, "arms": SEEN["arms"][:1]}},
        r"observation\['arms'\] is a tuple of 1: give .* 2",
    ),
    (
        {"observation": {**SEEN, "camera": np.zeros((3, 4), np.uint8)}},
        r"observation\['camera'\] has shape \[3, 4\]: give uint8 \[3, 4, 1\]",
    ),
    (
        {"next_observation": {**SEEN, "camera": np.full((3, 4, 1), 256)}},
        r"next_observation\['camera'\] has values from 256 to 256: give uint8",
    ),
    (
        {"next_observation": {**SEEN, "camera": np.full((3, 4, 1), -1)}},
        r"next_observation\['camera'\] has values from -1 to -1: give uint8",
    ),
    (
        {"observation": {**SEEN, "camera": np.zeros((3, 4, 1))}},
        r"observation\['camera'\] is float64 and would",
    ),
    ({"observation": {**SEEN, "gear": -(2**63) - 1}}, r"observation\['gear'\] is object"),
    ({"observation": {**SEEN, "gear": None}}, r"observation\['gear'\] is object"),
    (
        {"observation": {**SEEN, "arms": ([1.0, 2.0], [[1], [0, 1]])}},
        r"observation\['arms'\]\[1\] cannot be read as an array",
    ),
    ({"action": np.zeros(6, np.float32)}, r"action has shape \[6\]: give float32 \[2, 3\]"),
    ({"action": 1}, r"action has shape \[\]: give float32 \[2, 3\]"),
    ({"reward": "much"}, "reward is str"),
    ({"reward": [1.0]}, r"reward has shape \[1\]: give float32 \[\]"),
]


@pytest.mark.parametrize(("wrong", "named"), REFUSED)
def test_an_unfit_experience_is_refused_by_its_place_and_nothing_is_stored(
    wrong: dict[str, Any], named: str
) -> None:
    replay = UniformReplay.for_spaces(ROBOT, ACTIONS["continuous"], 25)
    experiences = experiences_of(ROBOT, ACTIONS["continuous"], 50)
    replay.extend(experiences[:30])
    before = stage(replay.state_dict())
    bad = Experience(**{**good(), **wrong}, status=STATUSES[0])
    for n_before in (0, 1, 20):  # alone, of two, of many
        with pytest.raises(InvalidExperience, match=named):
            replay.extend([*experiences[30 : 30 + n_before], bad])
    with pytest.raises(InvalidExperience, match=named):
        replay.add(bad)
    after = replay.state_dict()
    assert before.keys() == after.keys()
    assert all(
        torch.equal(value, after[name]) if isinstance(value, torch.Tensor) else value == after[name]
        for name, value in before.items()
    )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"observations": {"camera": np.zeros((2, 3, 4, 1), np.uint8)}}, "observations lacks 'arms', 'gear'"),
        ({"next_observations": np.zeros((2, 3))}, "next_observations is a ndarray: give a dict"),
        ({"actions": np.zeros((2, 3), np.float32)}, r"actions has shape \[2, 3\]: give float32 \[2, 2, 3\]"),
        ({"rewards": np.zeros(3)}, r"rewards has shape \[3\]: give float32 \[2\]"),
    ],
)
def test_unfit_columns_are_refused_and_nothing_is_added(wrong: dict[str, Any], named: str) -> None:
    replay = UniformReplay.for_spaces(ROBOT, ACTIONS["continuous"], 25)
    replay.extend(experiences_of(ROBOT, ACTIONS["continuous"], 5))
    columns = replay.sample(2)._asdict()
    with pytest.raises(ConfigError, match=named):
        replay.extend_columns(**{**columns, **wrong})
    assert (len(replay), replay.n_added) == (5, 5)
    replay.extend_columns(**columns)
    assert (len(replay), replay.n_added) == (7, 7)


TEXT = spaces.Text(5)
UNHELD = [
    (
        TEXT,
        spaces.Discrete(2),
        r"hold observation_space, a Text.*Box, Discrete, MultiBinary and MultiDiscrete",
    ),
    (
        spaces.Dict({"a": spaces.Tuple([CAMERA, spaces.Sequence(CAMERA)])}),
        spaces.Discrete(2),
        r"hold observation_space\['a'\]\[1\], a Sequence.*, and Dict and Tuple of these",
    ),
    (CAMERA, TEXT, r"hold actions of Text.*it takes Box, Discrete, MultiBinary and MultiDiscrete$"),
    (CAMERA, spaces.Dict({"a": CAMERA}), r"hold actions of Dict"),
    (spaces.Box(0, 1, (2,), np.longdouble), spaces.Discrete(2), "torch has no .*; use float32"),
]


@pytest.mark.parametrize(("observation_space", "action_space", "named"), UNHELD)
@pytest.mark.parametrize("kind", [UniformReplay, PrioritizedReplay], ids=lambda kind: kind.__name__)
def test_spaces_that_cannot_be_held_are_refused(
    kind: Any, observation_space: Any, action_space: Any, named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        kind.for_spaces(observation_space, action_space, 10)


def test_a_state_of_other_spaces_is_refused_and_nothing_is_changed() -> None:
    replay = UniformReplay.for_spaces(ROBOT, spaces.Discrete(2), 5)
    replay.extend(experiences_of(ROBOT, spaces.Discrete(2), 3))
    plain = UniformReplay(5, (2,))
    with pytest.raises(ConfigError, match=r"lacks next_observations\['arms'\]\[0\], "):
        replay.load_state_dict(plain.state_dict())
    with pytest.raises(ConfigError, match="lacks next_observations, observations"):
        plain.load_state_dict(replay.state_dict())
    smaller = spaces.Dict({**ROBOT.spaces, "camera": spaces.Box(0, 255, (2,), np.uint8)})
    other = UniformReplay.for_spaces(smaller, spaces.Discrete(2), 5)
    with pytest.raises(ConfigError, match=r"observations\['camera'\] are torch.uint8 \[3, 3, 4, 1\]"):
        other.load_state_dict(replay.state_dict())
    assert (len(plain), len(other), len(replay)) == (0, 0, 3)
