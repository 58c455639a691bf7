"""Observations of every space: what is refused, what is packed into rows, and what networks see of it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Sequence, Text, Tuple
from gymnasium.vector.utils import concatenate, create_empty_array
from torch import nn

from stoker.agents import DQN, PPO, DQNConfig, PPOConfig
from stoker.agents.dqn.network import ConvolutionalQ, PerceptronQ
from stoker.agents.networks import NumpyPass
from stoker.agents.observations import PackedObservations, observations_of
from stoker.errors import ConfigError, InvalidExperience
from stoker.types import ActMode, EpisodeStatus, Experience

ROBOT = Dict(
    {
        "position": Box(-5, 5, (2,), np.float64),
        "inventory": Tuple((Discrete(3, start=1), MultiBinary(2))),
        "deep": Dict({"ram": Box(0, 255, (2,), np.uint8), "grid": MultiDiscrete([[2, 3]], start=[[0, -1]])}),
    }
)
CAMERA = Dict(
    {
        "camera": Box(0, 255, (36, 40, 3), np.uint8),
        "planes": Box(0, 1, (6, 5, 4), np.bool_),
        "strip": Box(0, 255, (2, 2, 5), np.uint8),
        "gear": Discrete(5),
        "speed": Box(-1, 1, (), np.float32),
        "action_mask": MultiBinary(3),
    }
)
SPACES: list[gymnasium.Space[Any]] = [
    Discrete(7, start=-2),
    MultiDiscrete([3, 4], start=[1, 0]),
    MultiBinary((2, 3)),
    Tuple((Discrete(32), Discrete(11), Discrete(2))),
    ROBOT,
    CAMERA,
]
GENERATOR = torch.Generator


def packed(space: gymnasium.Space[Any], n_choices: int = 3) -> PackedObservations:
    found = observations_of("DQN", space, n_choices)
    assert isinstance(found, PackedObservations)
    return found


def sampled(space: gymnasium.Space[Any], count: int) -> list[Any]:
    space.seed(0)
    return [space.sample() for _ in range(count)]


def test_a_row_holds_numbers_and_bits_then_the_places_of_choices() -> None:
    observations = packed(ROBOT)
    assert [(part.name, part.kind) for part in observations.parts] == [
        ("deep/grid", "choices"),
        ("deep/ram", "numbers"),
        ("inventory/0", "choices"),
        ("inventory/1", "bits"),
        ("position", "numbers"),
    ]
    seen = {
        "position": np.array([0.5, -2.0]),
        "inventory": (3, np.array([0, 1], np.int8)),
        "deep": {"ram": np.array([51, 255], np.uint8), "grid": np.array([[1, 1]])},
    }
    observations.check(seen, "observation")
    numbers = [0.2, 1.0, 0.0, 1.0, 0.5, -2.0]  # ram, bits, position
    row = observations.stack([seen])
    assert row.dtype == np.float32
    np.testing.assert_allclose(row, [[*numbers, 6 + 1, 6 + 2 + 2, 6 + 5 + 2]])
    vector = observations.rows.vector(observations.rows.floats(torch.as_tensor(row)))
    np.testing.assert_allclose(vector, [[*numbers, 0, 1, 0, 0, 1, 0, 0, 1]])
    assert observations.n_inputs == 14


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_parts_come_back_from_rows_and_numpy_reads_rows_as_torch_does(space: gymnasium.Space[Any]) -> None:
    observations, seen = packed(space), sampled(space, 9)
    rows = observations.stack(seen)
    together = torch.as_tensor(rows)
    assert together.dtype == observations.spec.dtype
    assert tuple(together.shape) == (9, *observations.spec.shape)
    named = observations.named(together)
    for part in observations.parts:
        values: Any = seen
        for key in part.name.split("/") if part.where else ():
            values = [value[int(key) if isinstance(value, tuple) else key] for value in values]
        values = np.array(values)
        if part.kind == "mask":
            np.testing.assert_array_equal(rows[:, observations.mask], values)
            continue
        if part.counts:
            values -= part.values.low  # type: ignore[union-attr]
        elif part.kind == "numbers":
            values = values.astype(np.float32) / np.float32(part.divisor)
        np.testing.assert_array_equal(named[part.name].numpy(), values)
    flat = observations.rows.flat(together, observations.rows.floats(together))
    assert flat.shape == (9, observations.n_inputs)
    assert flat.dtype == torch.float32
    np.testing.assert_array_equal(
        observations.rows.flat_array(rows, observations.rows.float_columns(rows)), flat.numpy()
    )


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_columns_give_the_rows_of_their_observations(space: gymnasium.Space[Any]) -> None:
    observations, seen = packed(space), sampled(space, 5)
    assert observations.stack([]).shape == (0, *observations.shape)
    if isinstance(space, Tuple):
        return  # columns are arrays or dicts
    columns = concatenate(space, seen, create_empty_array(space, 5))
    np.testing.assert_array_equal(observations.stack(columns), observations.stack(seen))
    assert observations.are_valid(columns)
    assert not observations.are_valid(seen)
    if isinstance(columns, dict):
        first = next(iter(columns))
        assert not observations.are_valid({**columns, "other": columns[first]})
        assert not observations.are_valid({key: part for key, part in columns.items() if key != first})
    else:
        assert not observations.are_valid(columns + 99)
        assert not observations.are_valid(columns[..., None])


GOOD = {
    "position": np.zeros(2),
    "inventory": (1, np.zeros(2, np.int8)),
    "deep": {"ram": np.zeros(2, np.uint8), "grid": np.zeros((1, 2), np.int64)},
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"position": np.zeros(3)}, r"observation\['position'\]=.* has shape \[3\]: give float32 \[2\]"),
        ({"position": np.array([0, np.nan])}, r"observation\['position'\]\[1\] is nan"),
        (
            {"inventory": (4, GOOD["inventory"][1])},
            r"\['inventory'\]\[0\]=4 is not one of its values: .* from 1 to 3",
        ),
        ({"inventory": (1.5, GOOD["inventory"][1])}, r"\['inventory'\]\[0\]=1.5 is not one of its values"),
        ({"inventory": (10**30, GOOD["inventory"][1])}, r"\['inventory'\]\[0\]=1000+ is not one of its"),
        (
            {"inventory": (None, GOOD["inventory"][1])},
            r"\['inventory'\]\[0\]=None .* is not made of numbers",
        ),
        (
            {"inventory": (1, np.array([0, 2]))},
            r"\['inventory'\]\[1\]\[1\]=2 is not one of its values: .* 0 to 1",
        ),
        ({"inventory": (np.inf, GOOD["inventory"][1])}, r"\['inventory'\]\[0\]=inf is not one of its values"),
        ({"inventory": ("a", GOOD["inventory"][1])}, r"\['inventory'\]\[0\]='a' .* is not made of numbers"),
        ({"inventory": (1,)}, r"observation\['inventory'\] is a tuple of 1: give a tuple of 2"),
        ({"deep": {"ram": GOOD["deep"]["ram"]}}, r"observation\['deep'\] lacks 'grid'"),  # type: ignore[index]
        ({"deep": 3}, r"observation\['deep'\] is a int: give a dict with the keys 'grid', 'ram'"),
        ({"speed": 1.0}, "observation has 'speed', but only the keys"),
    ],
)
def test_a_refusal_names_the_part(change: dict[str, Any], named: str) -> None:
    agent = DQN(ROBOT, Discrete(2))
    agent.check_observation(GOOD)
    agent.check_observation({**GOOD, "inventory": (np.float32(2), np.array([0.0, 1.0]))})
    with pytest.raises(InvalidExperience, match=named):
        agent.check_observation({**GOOD, **change})
    step = Experience(GOOD, 0, 0.0, {**GOOD, **change}, EpisodeStatus.CONTINUING)
    with pytest.raises(InvalidExperience, match="next_observation" + named.removeprefix("observation")[:8]):
        agent.check_experience(step)


def test_a_discrete_observation_out_of_range_is_refused() -> None:
    agent = DQN(Discrete(4, start=2), Discrete(2))
    for observation in (2, np.int64(5), np.array(3), np.uint8(4)):
        agent.check_observation(observation)
    for observation, named in (
        (6, "observation=6 is not one of its values: give an int from 2 to 5"),
        ([2], "shape"),
    ):
        with pytest.raises(InvalidExperience, match=named):
            agent.check_observation(observation)


@pytest.mark.parametrize(
    ("space", "named"),
    [
        (Text(3), r"DQN cannot observe Text.*: it takes a Box.*Discrete, .*Dict and Tuple of these.*wrap"),
        (Dict({"a": Tuple([Sequence(Discrete(2))])}), r"observe observation\['a'\]\[0\], a Sequence"),
        (Dict({}), r"observe Dict\(\): it has no numbers"),
        (Dict({"action_mask": MultiBinary(3)}), "it has no numbers"),
        (Dict({"a": Box(0, 1, (2,)), "action_mask": MultiBinary(4)}), "has 4 numbers for 3 actions.*rename"),
        (Dict({"a/b": Discrete(2), "a": Dict({"b": Discrete(2)})}), "two of its parts are named 'a/b'"),
        (Discrete(1 << 25), "too many.*as a Box"),
    ],
)
def test_a_space_that_cannot_be_observed_is_one_error(space: gymnasium.Space[Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        DQN(space, Discrete(3))


# Networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space", [Box(-1, 1, (3,)), Box(0, 255, (10, 10, 3), np.uint8)], ids=["box", "image"]
)
def test_a_mask_beside_observations_is_no_input(space: Box) -> None:
    masked = Dict({"observation": space, "action_mask": MultiBinary(3)})
    agents = [DQN(each, Discrete(3), DQNConfig(final_epsilon=0.0), seed=1) for each in (space, masked)]
    seen = sampled(space, 4)
    with_masks = [{"observation": each, "action_mask": np.ones(3, np.int8)} for each in seen]
    weights = [agent.policy().weights()["weights"] for agent in agents]
    assert torch.equal(*weights)
    assert agents[0].policy().act(seen, ActMode.EXPLOIT) == agents[1].policy().act(
        with_masks, ActMode.EXPLOIT
    )


def test_numbers_are_normalized_and_bits_choices_and_images_are_not() -> None:
    for space in (ROBOT, CAMERA):
        observations, rows = packed(space), torch.as_tensor(packed(space).stack(sampled(space, 6)))
        n = observations.n_statistics
        config = DQNConfig(normalize_observations=True, hidden_sizes=(8,))
        for kind in (PerceptronQ, ConvolutionalQ) if space is CAMERA else (PerceptronQ,):
            network = kind(observations, 3, config, GENERATOR())
            network.set_moments(torch.full((n,), 0.5), torch.full((n,), 4.0))
            floats = observations.rows.floats(rows)
            numbers = torch.as_tensor(observations.rows.is_normalized)
            expected = torch.where(numbers, (floats - 0.5) * 4, floats)
            expected[:, numbers] = expected[:, numbers].clamp(-10, 10)
            prepared = network.prepared(rows)
            if kind is ConvolutionalQ:
                assert torch.equal(observations.rows.floats(prepared), expected)
                assert torch.equal(prepared[:, 4 * n :], rows[:, 4 * n :])
            else:
                assert torch.equal(prepared, observations.rows.flat(rows, expected))
                assert np.allclose(NumpyPass(network).inputs(rows.numpy()), prepared)


@pytest.mark.parametrize("is_normalizing", [False, True], ids=["raw", "normalizing"])
def test_images_and_what_is_beside_them_are_put_together(is_normalizing: bool) -> None:
    observations, seen = packed(CAMERA), sampled(CAMERA, 3)
    config = DQNConfig(hidden_sizes=(16, 8), normalize_observations=is_normalizing)
    network = ConvolutionalQ(observations, 3, config, GENERATOR().manual_seed(0))
    nature, small = network.trunk.images
    assert [tuple(layer.weight.shape) for layer in small.convolutions] == [(16, 4, 3, 3)]
    assert (nature.hidden.out_features, small.hidden.out_features) == (256, 128)
    first, second = network.trunk.layers
    with torch.no_grad():
        scaled = [torch.tensor(np.array([each["camera"] for each in seen])).movedim(-1, 1) / 255]
        scaled.append(torch.tensor(np.array([each["planes"] for each in seen])).movedim(-1, 1).float())
        features = []
        for part, images in zip((nature, small), scaled, strict=True):
            values = images
            for convolution in part.convolutions:
                values = torch.relu(convolution(values))
            features.append(torch.relu(part.hidden(values.flatten(1))))
        speed = torch.tensor([[float(each["speed"])] for each in seen])
        gear = nn.functional.one_hot(torch.tensor([int(each["gear"]) for each in seen]), 5)
        strip = torch.tensor(np.array([each["strip"] for each in seen])).flatten(1) / 255
        together = torch.cat([speed, gear, strip, *features], dim=1)
        expected = network.head(torch.relu(second(torch.relu(first(together)))))
        rows = torch.as_tensor(observations.stack(seen))
        assert torch.allclose(network(rows), expected, atol=1e-5)


def test_a_stack_of_color_images_is_seen_as_channels() -> None:
    stack = observations_of("DQN", Box(0, 255, (2, 10, 9, 3), np.uint8))
    network = ConvolutionalQ(stack, 3, DQNConfig(), GENERATOR().manual_seed(0))
    images = torch.randint(256, (2, 2, 10, 9, 3), generator=GENERATOR()).to(torch.uint8)
    (encoder,) = network.trunk.images
    with torch.no_grad():
        channels = torch.cat([images[:, 0].movedim(-1, 1), images[:, 1].movedim(-1, 1)], dim=1) / 255
        features = torch.relu(encoder.hidden(torch.relu(encoder.convolutions[0](channels)).flatten(1)))
        assert torch.allclose(network(images), network.head(features), atol=1e-5)


class TakesParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.policy, self.value = nn.Embedding(3, 4), nn.Linear(6, 2), nn.Linear(6, 1)

    def forward(self, parts: dict[str, torch.Tensor]) -> Any:
        features = torch.cat([self.embedding(parts["inventory/0"]), parts["position"]], dim=1)
        return self.policy(features), self.value(features)[:, 0]


def test_a_network_of_a_users_own_takes_parts_by_name() -> None:
    config = PPOConfig(rollout_steps=8, batch_size=4, n_epochs=1, normalize_observations=True)
    agent, seen = PPO(ROBOT, Discrete(2), config, network=TakesParts()), sampled(ROBOT, 9)
    policy = agent.policy()
    actions, extras = policy.act(seen[:8], ActMode.EXPLORE)
    before = policy.weights()["weights"]
    agent.observe(
        [
            Experience(seen[row], actions[row], 1.0, seen[row + 1], EpisodeStatus.CONTINUING, 0, extras[row])
            for row in range(8)
        ]
    )
    assert agent.learn() is not None
    agent.publish(policy)
    assert not torch.equal(before, policy.weights()["weights"])
    other = agent.with_settings({"learning_rate": 1e-3, "normalize_observations": True})
    assert other is not None
    other.load_state_dict(agent.state_dict())
    asked = r"it takes observations a dict of .*'inventory/0': int64 \[2\].*'position': float32 \[2, 2\]"
    with pytest.raises(ConfigError, match=asked):
        PPO(ROBOT, Discrete(2), network=nn.Linear(3, 2))


def test_a_saved_agent_fits_only_the_same_parts() -> None:
    one, other = (DQN(Dict({"a": Discrete(3), "b": Box(-1, 1, (width,))}), Discrete(2)) for width in (2, 3))
    with pytest.raises(ConfigError, match="observation_space does not fit"):
        one.load_state_dict(other.state_dict())
