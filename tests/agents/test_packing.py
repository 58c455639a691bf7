"""Packed weights are the network's own, and Adam on them is torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from stoker.agents.packing import PackedAdam, PackedWeights


def network(seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    layers = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        for buffer in layers.buffers():
            buffer.copy_(torch.rand(buffer.shape, generator=generator))
    return layers


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_the_parameters_are_views_and_keep_their_values() -> None:
    module = network(1)
    before = weights(module)
    packed = PackedWeights(module)
    assert torch.equal(packed.values, before)
    packed.values.mul_(2)
    assert torch.equal(weights(module), 2 * before)
    with torch.no_grad():
        module[2].bias.fill_(7)
    assert packed.values[-2:].tolist() == [7, 7]


def test_autograd_adds_to_the_packed_gradients() -> None:
    module, twin = network(1), network(1)
    gradients = PackedWeights(module, has_gradients=True).gradients
    inputs = torch.randn((4, 3), generator=torch.Generator().manual_seed(2))
    module(inputs).square().sum().backward()
    twin(inputs).square().sum().backward()
    assert torch.equal(gradients, torch.cat([parameter.grad.flatten() for parameter in twin.parameters()]))


def test_weights_and_buffers_are_copied_and_blended() -> None:
    source, destination = network(1), network(2)
    old, new = PackedWeights(destination), PackedWeights(source)
    expected = 0.25 * weights(source) + 0.75 * weights(destination)
    source[1].num_batches_tracked = source[1].num_batches_tracked.float()
    destination[1].num_batches_tracked = destination[1].num_batches_tracked.float()
    old, new = PackedWeights(destination), PackedWeights(source)
    mean = 0.25 * source[1].running_mean + 0.75 * destination[1].running_mean
    old.blend_from(new, 0.25)
    assert torch.allclose(weights(destination), expected, atol=1e-7)
    assert torch.allclose(destination[1].running_mean, mean, atol=1e-7)
    old.copy_from(new)
    assert torch.equal(weights(destination), weights(source))
    assert torch.equal(destination[1].running_mean, source[1].running_mean)


def test_adam_is_torchs() -> None:
    module, twin = network(1), network(1)
    packed = PackedWeights(module, has_gradients=True)
    ours = PackedAdam(packed)
    theirs = torch.optim.Adam(twin.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(3)

    def step(ours: PackedAdam, packed: PackedWeights) -> None:
        gradients = packed.gradients
        gradients.copy_(torch.randn(gradients.shape, generator=generator))
        for parameter, gradient in zip(twin.parameters(), packed.views(gradients), strict=True):
            parameter.grad = gradient.clone()
        ours.step(0.01)
        theirs.step()

    for _ in range(5):
        step(ours, packed)
    assert torch.allclose(weights(module), weights(twin), atol=1e-6)


def test_moments_without_gradients_vanish_before_they_are_subnormal_and_change_no_weight() -> None:
    packed = PackedWeights(network(1), has_gradients=True)
    twin = nn.Parameter(packed.values.clone())
    ours, theirs = PackedAdam(packed), torch.optim.Adam([twin], lr=0.01, fused=True)
    moments = [ours.state_dict()[name] for name in ("mean", "square")]
    gradients = torch.randn(packed.gradients.shape, generator=torch.Generator().manual_seed(3))
    gradients *= 10.0 ** torch.arange(len(gradients)).remainder(16).neg()
    for step in range(1_500):
        packed.gradients.copy_(gradients if step < 9 else torch.zeros_like(gradients))
        twin.grad = packed.gradients.clone()
        ours.step(0.01)
        theirs.step()
        for each in moments:
            assert (each[each != 0].abs() >= torch.finfo(torch.float32).tiny).all()
    assert not moments[0].any()
    assert theirs.state[twin]["exp_avg"].all()  # torch's are stuck there
    assert torch.equal(packed.values, twin)


@pytest.mark.parametrize("steps", [0, 3])
def test_a_saved_adam_goes_on_bit_by_bit(steps: int) -> None:
    packed = PackedWeights(network(1), has_gradients=True)
    gradients = packed.gradients
    gradients.copy_(torch.randn(gradients.shape, generator=torch.Generator().manual_seed(4)))
    adam = PackedAdam(packed)
    for _ in range(steps):
        adam.step(0.01)
    saved, values = copy.deepcopy(adam.state_dict()), packed.values.clone()
    adam.step(0.01)
    expected = packed.values.clone()
    packed.values.copy_(values)
    adam.load_state_dict(saved)
    adam.step(0.01)
    assert torch.equal(packed.values, expected)
