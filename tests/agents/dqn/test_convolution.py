"""The network for images against one put together from torch's own parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stoker.agents.dqn.convolution import NatureCNN
from stoker.agents.dqn.network import frozen_copy
from stoker.agents.packing import PackedWeights
from stoker.errors import ConfigError

SHAPES = {"channels last": (36, 44, 2), "channels first": (2, 36, 44)}


def network(shape: tuple[int, ...] = (2, 36, 44), seed: int = 0, dueling: bool = False) -> NatureCNN:
    return NatureCNN(shape, torch.uint8, 3, torch.Generator().manual_seed(seed), dueling=dueling)


def images(shape: tuple[int, ...] = (2, 36, 44), count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, *shape), generator=generator).to(torch.uint8)


def textbook(net: NatureCNN, n_outputs: int) -> nn.Sequential:
    """Mnih et al. (2015), Methods: 32 filters of 8 x 8, 64 of 4 x 4, 64 of 3 x 3, 512 hidden units."""
    n_features = net.hidden.in_features
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
    net = network(SHAPES[layout])
    observations = images(SHAPES[layout])
    first = observations.permute(0, 3, 1, 2) if layout == "channels last" else observations
    with torch.no_grad():
        assert torch.allclose(net(observations), textbook(net, 3)(first / 255), atol=1e-5)


def test_the_sizes_of_the_paper() -> None:
    net = NatureCNN((84, 84, 4), torch.uint8, 6, torch.Generator())
    assert net.hidden.in_features == 7 * 7 * 64
    assert [layer.weight.shape for layer in net.convolutions] == [
        (32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3),
    ]  # fmt: skip


@pytest.mark.parametrize("dueling", [False, True], ids=["plain", "dueling"])
def test_its_gradient_is_written_over_the_one_before(dueling: bool) -> None:
    net = network(dueling=dueling)
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
    assert frozen_copy(network()).activations(images())[-1].grad_fn is None
    assert network()(images()[:0]).shape == (0, 3)


def test_the_seed_decides_the_weights_and_global_generators_are_not_touched() -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, same, other = (PackedWeights(network(seed=seed)).values for seed in (3, 3, 4))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((84, 84, 4), torch.float32),
        ((84, 84), torch.uint8),
        ((4,), torch.uint8),
        ((4, 84, 84, 3), torch.uint8),
        ((35, 84, 3), torch.uint8),
        ((3, 84, 35), torch.uint8),
        ((84, 3, 84), torch.uint8),
        ((84, 84, 84), torch.uint8),
    ],
    ids=["floats", "no channels", "vector", "stacked colors", "low", "narrow", "channels between", "cube"],
)
def test_what_is_no_image_is_refused_and_it_says_what_it_takes(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    with pytest.raises(ConfigError) as refusal:
        NatureCNN(shape, dtype, 3, torch.Generator())
    message = str(refusal.value)
    assert f"{dtype} {list(shape)}: it takes uint8 images [height, width, channels]" in message
    assert "at least 36 high and wide" in message
