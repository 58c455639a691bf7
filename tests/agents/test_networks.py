from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from stoker.agents.networks import MLP, NatureCNN, as_floats, seeded_conv, seeded_linear
from stoker.errors import ConfigError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 3), (3, 5), (4, 1)])
def test_weights_are_orthogonal_and_biases_zero(inputs: int, outputs: int) -> None:
    layer = seeded_linear(inputs, outputs, generator(), gain=0.5)
    weights = layer.weight.detach()
    square = weights @ weights.T if outputs <= inputs else weights.T @ weights
    assert torch.allclose(square, 0.25 * torch.eye(len(square)), atol=1e-6)
    assert not layer.bias.any()
    filters = seeded_conv(2, 6, 3, 1, generator()).weight.detach().flatten(1)
    assert torch.allclose(filters @ filters.T, 2 * torch.eye(6), atol=1e-5)


def test_the_generator_decides_and_no_other_is_touched() -> None:
    before = torch.get_rng_state()
    first, same, other = (
        [p.detach() for p in MLP((4, 8, 2), "tanh", generator(seed), 1.0).parameters()] for seed in (1, 1, 2)
    )
    assert all(map(torch.equal, first, same))
    assert not torch.equal(first[0], other[0])
    images = [NatureCNN((1, 36, 36), generator(1)).state_dict() for _ in range(2)]
    assert all(torch.equal(images[0][name], images[1][name]) for name in images[0])
    assert torch.equal(torch.get_rng_state(), before)


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
    ours = NatureCNN(shape, generator())
    features = ours(images)
    assert features.shape == (2, NatureCNN.n_features) == (2, 512)
    if shape == (84, 84, 4):
        assert torch.allclose(NatureCNN((4, 84, 84), generator())(images.permute(0, 3, 1, 2)), features)
    features.sum().backward()
    assert all(p.grad is not None for p in ours.parameters())


@pytest.mark.parametrize("shape", [(4,), (84, 84), (3, 35, 84), (1, 4, 84, 84), (84, 35, 3)], ids=str)
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"nature_cnn.*cannot see observations \[.*network='mlp'"):
        NatureCNN(shape, generator())


def test_bytes_are_brought_to_one() -> None:
    assert as_floats(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])
    assert as_floats(torch.tensor([True, False])).tolist() == [1, 0]
    assert as_floats(torch.tensor([300])).tolist() == [300]
