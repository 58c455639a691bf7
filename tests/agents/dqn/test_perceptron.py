from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stoker.agents.dqn.network import frozen_copy
from stoker.agents.dqn.perceptron import Perceptron
from stoker.agents.packing import PackedWeights


def network(
    seed: int = 0, hidden: tuple[int, ...] = (16, 8), dtype: torch.dtype = torch.float32
) -> Perceptron:
    return Perceptron((2, 3), dtype, 4, hidden, torch.Generator().manual_seed(seed))


def weights(of: Perceptron) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in of.parameters()])


def test_it_is_a_perceptron_with_relu_between_layers() -> None:
    net = network()
    observations = torch.randn((5, 2, 3), generator=torch.Generator().manual_seed(1))
    (w0, b0), (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in net.layers)
    hidden = torch.relu(torch.relu(observations.flatten(1) @ w0.T + b0) @ w1.T + b1)
    assert torch.allclose(net(observations), hidden @ w2.T + b2, atol=1e-6)


def test_without_hidden_layers_it_is_linear() -> None:
    net = network(hidden=())
    observations = torch.ones((1, 2, 3))
    assert torch.allclose(
        net(2 * observations) - net(observations), net(observations) - net(0 * observations)
    )


def test_a_dueling_head_adds_advantages_around_their_mean_to_the_value_of_the_state() -> None:
    net = Perceptron((2,), torch.float32, 3, (), torch.Generator(), dueling=True)
    with torch.no_grad():
        net.layers[0].weight.copy_(torch.tensor([[10.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 6.0]]))
        net.layers[0].bias.zero_()
    # V = 10, A = (1, 2, 6), mean A = 3; V = 0, A = (0, 0, 3), mean A = 1
    observations = torch.tensor([[1.0, 1.0], [0.0, 0.5]])
    assert net(observations).tolist() == [[8.0, 9.0, 13.0], [-1.0, -1.0, 2.0]]


def test_what_all_advantages_share_changes_no_value() -> None:
    net = Perceptron((4,), torch.float32, 3, (8,), torch.Generator().manual_seed(0), dueling=True)
    observations = torch.randn((5, 4), generator=torch.Generator().manual_seed(1))
    before = net(observations)
    with torch.no_grad():
        net.layers[-1].bias[1:] += 7
    assert torch.allclose(net(observations), before, atol=1e-5)
    with torch.no_grad():
        net.layers[-1].bias[0] += 7
    assert torch.allclose(net(observations), before + 7, atol=1e-5)


def test_bytes_are_scaled_and_other_integers_are_not() -> None:
    values = torch.full((1, 2, 3), 51)
    floats = network()
    assert torch.allclose(network(dtype=torch.uint8)(values.to(torch.uint8)), floats(values / 255))
    assert torch.equal(network(dtype=torch.int64)(values), floats(values.float()))


def test_the_seed_decides_the_weights() -> None:
    assert torch.equal(weights(network(3)), weights(network(3)))
    assert not torch.equal(weights(network(3)), weights(network(4)))


def test_global_generators_are_not_touched() -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    network()
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_weights_are_distributed_as_those_of_linear_layers() -> None:
    net = Perceptron((100,), torch.float32, 2, (1_000,), torch.Generator().manual_seed(0))
    first = net.layers[0].weight.detach()
    assert first.abs().max().item() == pytest.approx(1 / math.sqrt(100), rel=1e-3)
    assert first.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert first.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=1e-2)


def test_a_frozen_copy_has_memory_of_its_own_and_no_gradients() -> None:
    net = network()
    copy = frozen_copy(net)
    assert torch.equal(weights(net), weights(copy))
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert all(parameter.requires_grad for parameter in net.parameters())
    with torch.no_grad():
        net.layers[0].bias.add_(1)
    assert not torch.equal(weights(net), weights(copy))


@pytest.mark.parametrize("dueling", [False, True], ids=["plain", "dueling"])
@pytest.mark.parametrize("normalizes", [False, True], ids=["raw", "normalized"])
@pytest.mark.parametrize("hidden", [(), (5,), (16, 8), (7, 7, 7)])
def test_its_gradient_is_that_of_autograd(hidden: tuple[int, ...], normalizes: bool, dueling: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    net = Perceptron((2, 3), torch.float32, 4, hidden, generator, normalizes=normalizes, dueling=dueling)
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
