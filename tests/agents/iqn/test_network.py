"""The written-out gradients of IQN's networks against autograd's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from stoker.agents import IQNConfig
from stoker.agents.iqn.network import ConvolutionalQuantiles, PerceptronQuantiles, QuantileNetwork
from stoker.agents.observations import observations_of
from stoker.agents.packing import PackedWeights


def by_autograd(net: QuantileNetwork, observations: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
    """Quantiles ``[N, B, n_actions]`` with autograd's graph, from the network's own weights."""
    features = net.encoded(observations)[-1]
    embedding = net.head.embedding(net.head.cosines(fractions)).relu().view(*fractions.shape, -1)
    outputs = net.head.layers((embedding * features).flatten(0, 1))
    return (net.joined(outputs) if net.dueling else outputs).view(*fractions.shape, -1)


@pytest.mark.parametrize("dueling", [False, True], ids=["plain", "dueling"])
@pytest.mark.parametrize("kind", ["one layer", "three layers", "normalized", "images"])
def test_gradients_are_those_of_autograd_and_values_the_mean_at_the_midpoints(
    kind: str, dueling: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    sizes = (8,) if kind == "one layer" else (16, 8, 12)
    config = IQNConfig(
        hidden_sizes=sizes, dueling=dueling, normalize_observations=kind == "normalized", n_cosines=5,
        n_acting_quantiles=3,
    )  # fmt: skip
    if kind == "images":
        net = ConvolutionalQuantiles(
            observations_of("IQN", Box(0, 255, (2, 36, 40), np.uint8)), 4, config, generator
        )
        observations = torch.randint(256, (3, 2, 36, 40), generator=generator).to(torch.uint8)
    else:
        net = PerceptronQuantiles(observations_of("IQN", Box(-1, 1, (2, 3))), 4, config, generator)
        observations = torch.randn((3, 2, 3), generator=generator)
    if config.normalize_observations:
        net.set_moments(torch.arange(6.0), torch.arange(1.0, 7.0))
    fractions = torch.rand((7, 3), generator=generator)
    slopes = torch.randn((7, 3, 4), generator=generator)
    expected = by_autograd(net, observations, fractions)
    gradients = torch.autograd.grad(expected, list(net.parameters()), slopes)
    PackedWeights(net, has_gradients=True).gradients.fill_(torch.nan)  # what was there before does not count
    with torch.no_grad():
        made = net.run(observations, fractions)
        net.backward(made, slopes)
        midpoints = torch.tensor([1 / 6, 3 / 6, 5 / 6]).unsqueeze(1).expand(3, 3)
        assert torch.allclose(net(observations), by_autograd(net, observations, midpoints).mean(0), atol=1e-6)
    assert torch.allclose(made.quantiles, expected, atol=1e-6)
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-5)
