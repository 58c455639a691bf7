"""The Q-networks against ones put together from torch's own parts."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import nn

from stoker.agents import DQNConfig
from stoker.agents.dqn.network import ConvolutionalQ, PerceptronQ
from stoker.agents.observations import Observations, observations_of
from stoker.agents.packing import PackedWeights

SHAPES = {"channels last": (36, 44, 2), "channels first": (2, 36, 44)}


def box(shape: tuple[int, ...], dtype: Any = np.float32) -> Observations:
    return observations_of("DQN", Box(0, 1, shape, dtype))


def network(hidden: tuple[int, ...] = (16, 8)) -> PerceptronQ:
    return PerceptronQ(box((2, 3)), 4, DQNConfig(hidden_sizes=hidden), torch.Generator().manual_seed(0))


def test_it_is_a_perceptron_with_relu_between_layers() -> None:
    net = network()
    observations = torch.randn((5, 2, 3), generator=torch.Generator().manual_seed(1))
    (w0, b0), (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in net.mlp.layers)
    hidden = torch.relu(torch.relu(observations.flatten(1) @ w0.T + b0) @ w1.T + b1)
    assert torch.allclose(net(observations), hidden @ w2.T + b2, atol=1e-6)


def test_without_hidden_layers_it_is_linear() -> None:
    net = network(hidden=())
    observations = torch.ones((1, 2, 3))
    assert torch.allclose(
        net(2 * observations) - net(observations), net(observations) - net(0 * observations)
    )


def test_a_dueling_head_adds_advantages_around_their_mean_to_the_value_of_the_state() -> None:
    net = PerceptronQ(box((2,)), 3, DQNConfig(hidden_sizes=(), dueling=True), torch.Generator())
    with torch.no_grad():
        net.mlp.layers[0].weight.copy_(torch.tensor([[10.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 6.0]]))
        net.mlp.layers[0].bias.zero_()
    # V = 10, A = (1, 2, 6), mean A = 3; V = 0, A = (0, 0, 3), mean A = 1
    observations = torch.tensor([[1.0, 1.0], [0.0, 0.5]])
    assert net(observations).tolist() == [[8.0, 9.0, 13.0], [-1.0, -1.0, 2.0]]


def test_what_all_advantages_share_changes_no_value() -> None:
    net = PerceptronQ(
        box((4,)), 3, DQNConfig(hidden_sizes=(8,), dueling=True), torch.Generator().manual_seed(0)
    )
    observations = torch.randn((5, 4), generator=torch.Generator().manual_seed(1))
    before = net(observations)
    with torch.no_grad():
        net.mlp.layers[-1].bias[1:] += 7
    assert torch.allclose(net(observations), before, atol=1e-5)
    with torch.no_grad():
        net.mlp.layers[-1].bias[0] += 7
    assert torch.allclose(net(observations), before + 7, atol=1e-5)


def test_bytes_are_scaled_and_other_integers_are_not() -> None:
    net, values = network(), torch.full((1, 2, 3), 51)
    assert torch.allclose(net(values.to(torch.uint8)), net(values / 255))
    assert torch.equal(net(values), net(values.float()))


@pytest.mark.parametrize("dueling", [False, True], ids=["plain", "dueling"])
@pytest.mark.parametrize("normalizes", [False, True], ids=["raw", "normalized"])
@pytest.mark.parametrize("hidden", [(), (16, 8)])
def test_its_gradient_is_that_of_autograd(hidden: tuple[int, ...], normalizes: bool, dueling: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    config = DQNConfig(hidden_sizes=hidden, normalize_observations=normalizes, dueling=dueling)
    net = PerceptronQ(box((2, 3)), 4, config, generator)
    if normalizes:
        net.set_moments(torch.arange(6.0), torch.arange(1.0, 7.0))
    observations = torch.randn((9, 2, 3), generator=generator)
    slopes = torch.randn((9, 4), generator=generator)
    net(observations).backward(slopes)
    expected = [parameter.grad.clone() for parameter in net.parameters()]
    PackedWeights(net, has_gradients=True).gradients.fill_(torch.nan)  # what was there before does not count
    with torch.no_grad():
        net.backward(net.activations(observations), slopes)
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-5, atol=1e-6)


def convolutional(shape: tuple[int, ...] = (2, 36, 44), dueling: bool = False) -> ConvolutionalQ:
    return ConvolutionalQ(box(shape, np.uint8), 3, DQNConfig(dueling=dueling), torch.Generator())


def images(shape: tuple[int, ...] = (2, 36, 44), count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, *shape), generator=generator).to(torch.uint8)


def textbook(net: ConvolutionalQ, n_outputs: int) -> nn.Sequential:
    """Mnih et al. (2015), Methods: 32 filters of 8 x 8, 64 of 4 x 4, 64 of 3 x 3, 512 hidden units."""
    n_features = net.trunk.images[0].hidden.in_features
    state = torch.get_rng_state()
    plain = nn.Sequential(
        nn.Conv2d(2, 32, 8, stride=4), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=1), nn.ReLU(), nn.Flatten(), nn.Linear(n_features, 512), nn.ReLU(),
        nn.Linear(512, n_outputs),
    )  # fmt: skip
    torch.set_rng_state(state)
    with torch.no_grad():
        for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
            theirs.copy_(ours)
    return plain


@pytest.mark.parametrize("layout", SHAPES)
def test_its_values_are_the_textbooks(layout: str) -> None:
    net = convolutional(SHAPES[layout])
    observations = images(SHAPES[layout])
    first = observations.permute(0, 3, 1, 2) if layout == "channels last" else observations
    with torch.no_grad():
        assert torch.allclose(net(observations), textbook(net, 3)(first / 255), atol=1e-5)


def test_the_sizes_of_the_paper() -> None:
    net = ConvolutionalQ(box((84, 84, 4), np.uint8), 6, DQNConfig(), torch.Generator())
    assert net.trunk.images[0].hidden.in_features == 7 * 7 * 64
    assert [layer.weight.shape for layer in net.trunk.images[0].convolutions] == [
        (32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3),
    ]  # fmt: skip


@pytest.mark.parametrize("dueling", [False, True], ids=["plain", "dueling"])
def test_its_gradient_is_written_over_the_one_before(dueling: bool) -> None:
    net = convolutional(dueling=dueling)
    observations, slopes = images(), torch.randn((3, 3), generator=torch.Generator().manual_seed(2))
    plain = textbook(net, 3 + dueling)
    outputs = plain(observations / 255)
    if dueling:
        outputs = outputs[:, :1] + outputs[:, 1:] - outputs[:, 1:].mean(1, keepdim=True)
    outputs.backward(slopes)
    gradients = PackedWeights(net, has_gradients=True).gradients.fill_(7)
    with torch.no_grad():
        activations = net.activations(observations)
        assert torch.allclose(activations[-1], outputs, atol=1e-5)
        net.backward(activations, slopes)
    expected = torch.cat([parameter.grad.flatten() for parameter in plain.parameters()])
    assert torch.allclose(gradients, expected, atol=1e-4)


def test_a_frozen_copy_keeps_no_notes_for_a_gradient() -> None:
    frozen = copy.deepcopy(convolutional()).requires_grad_(requires_grad=False)
    assert frozen.activations(images())[-1].grad_fn is None
    assert convolutional()(images()[:0]).shape == (0, 3)
