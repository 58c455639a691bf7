from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import nn

from stoker.agents import DQNConfig, PPOConfig
from stoker.agents.dqn.network import PerceptronQ
from stoker.agents.encoders import Convolutions
from stoker.agents.networks import HIDDEN_GAIN, MLP, NumpyPass, as_floats, seeded
from stoker.agents.observations import Observations, observations_of
from stoker.agents.ppo.distributions import Categorical
from stoker.agents.ppo.network import ActorCritic, Towers


def box(shape: tuple[int, ...]) -> Observations:
    return observations_of("DQN", Box(-1, 1, shape))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 3), (3, 5), (4, 1)])
def test_weights_are_orthogonal_and_biases_zero(inputs: int, outputs: int) -> None:
    layer = seeded(nn.Linear(inputs, outputs, device="meta"), generator(), gain=0.5)
    weights = layer.weight.detach()
    square = weights @ weights.T if outputs <= inputs else weights.T @ weights
    assert torch.allclose(square, 0.25 * torch.eye(len(square)), atol=1e-6)
    assert not layer.bias.any()
    filters = seeded(nn.Conv2d(2, 6, 3, device="meta"), generator(), gain=2.0).weight.detach().flatten(1)
    assert torch.allclose(filters @ filters.T, 4 * torch.eye(6), atol=1e-5)


def test_without_a_gain_weights_are_distributed_as_those_of_torchs_layers() -> None:
    layer = seeded(nn.Linear(100, 1_000, device="meta"), generator())
    weights = layer.weight.detach()
    assert weights.abs().max().item() == pytest.approx(1 / math.sqrt(100), rel=1e-3)
    assert weights.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert weights.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=1e-2)
    assert layer.bias.abs().max().item() == pytest.approx(0.1, rel=1e-2)


def test_the_generator_decides_and_no_other_is_touched() -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for gain in (None, 1.0):
        first, same, other = (
            [p.detach() for p in MLP((4, 8, 2), "tanh", generator(seed), gain).parameters()]
            for seed in (1, 1, 2)
        )
        assert all(map(torch.equal, first, same))
        assert not torch.equal(first[0], other[0])
        images = [Convolutions((1, 36, 36), generator(1), gain, 512).state_dict() for _ in range(2)]
        assert all(torch.equal(images[0][name], images[1][name]) for name in images[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize(("activation", "module"), [("tanh", nn.Tanh), ("relu", nn.ReLU)])
def test_a_perceptron_is_layers_with_an_activation_between(activation: Any, module: type[nn.Module]) -> None:
    ours = MLP((4, 8, 6, 2), activation, generator(), 0.01)
    plain = nn.Sequential(ours.layers[0], module(), ours.layers[1], module(), ours.layers[2])
    rows = torch.randn((7, 4), generator=generator(1))
    assert torch.equal(ours(rows), plain(rows))
    assert ours.layers[2].weight.norm() < 0.1 < ours.layers[1].weight.norm()


def test_without_hidden_layers_it_is_linear() -> None:
    ours = MLP((4, 2), "tanh", generator(), 1.0)
    rows = torch.randn((3, 4), generator=generator())
    assert torch.allclose(ours(2 * rows), 2 * ours(rows))


@pytest.mark.parametrize("shape", [(4, 84, 84), (84, 84, 4), (3, 36, 50), (40, 36, 1)], ids=str)
def test_images_give_512_features(shape: tuple[int, ...]) -> None:
    images = torch.rand((2, *shape), generator=generator())
    ours = Convolutions(shape, generator(), HIDDEN_GAIN, 512)
    features = ours(images)
    assert features.shape == (2, 512)
    if shape == (84, 84, 4):
        same = Convolutions((4, 84, 84), generator(), HIDDEN_GAIN, 512)
        assert torch.allclose(same(images.permute(0, 3, 1, 2)), features)
    features.sum().backward()
    assert all(p.grad is not None for p in ours.parameters())


def test_bytes_are_brought_to_one() -> None:
    assert as_floats(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])
    assert as_floats(torch.tensor([True, False])).tolist() == [1, 0]
    assert as_floats(torch.tensor([300])).tolist() == [300]


def actor_critic(normalizes: bool, activation: Any, hidden: tuple[int, ...]) -> ActorCritic:
    config = PPOConfig(activation=activation, hidden_sizes=hidden, normalize_observations=normalizes)
    seen = box((2, 3))
    return ActorCritic(Towers(seen, 4, config, generator()), seen, Categorical(4), config)


@pytest.mark.parametrize("normalizes", [False, True], ids=["plain", "normalized"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("hidden", [(), (16,), (64, 32)], ids=str)
def test_numpy_computes_what_torch_does(normalizes: bool, activation: str, hidden: tuple[int, ...]) -> None:
    network = actor_critic(normalizes, activation, hidden)
    small = NumpyPass(network)
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.uint8, np.int64, np.bool_):
        observations = (rng.random((5, 2, 3)) * 200).astype(dtype)
        kept = observations.copy()
        with torch.no_grad():
            outputs = network(torch.from_numpy(observations))
        inputs = small.inputs(observations)
        for index, expected in enumerate(outputs):
            found = small.outputs(inputs, index).reshape(expected.shape)
            assert found.dtype == np.float32
            assert np.allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)
        assert np.array_equal(observations, kept)
        with torch.no_grad():  # later changes of the weights take effect
            for parameter in network.parameters():
                parameter.mul_(-0.5)
            if normalizes:
                network.set_moments(torch.full((6,), 90.0), torch.full((6,), 0.02))


def test_numpy_takes_no_rows_and_says_up_to_how_many_it_is_faster() -> None:
    network = PerceptronQ(box((4,)), 3, DQNConfig(hidden_sizes=(512, 512)), generator())
    small = NumpyPass(network)
    assert small.outputs(small.inputs(np.empty((0, 4), np.float32))).shape == (0, 3)
    assert small.most_rows == 1
