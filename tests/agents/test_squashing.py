"""Actions within bounds: exact at the bounds, never beyond, with the densities of torch's distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, strategies as st
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from stoker.agents.actions import BoxActions
from stoker.agents.squashing import ActionScale, drawn, likeliest, squashed_sample

DTYPES = [np.float16, np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_the_bounds_are_reached_and_never_exceeded(dtype: Any, data: st.DataObject) -> None:
    width = np.finfo(dtype).bits
    numbers = st.floats(allow_nan=False, allow_infinity=False, width=width)
    low, high = sorted(data.draw(st.tuples(numbers, numbers)))
    actions = BoxActions(Box(np.full((1, 3), low, dtype), np.full((1, 3), high, dtype), dtype=dtype))
    scale = ActionScale("SAC", actions)
    squashed = np.array([[-1.0, 1.0, data.draw(st.floats(-1, 1))]])
    for sent in (
        actions.column(scale.to_env(squashed))[0, 0],
        actions.tensor(scale.tensor_to_env(torch.from_numpy(squashed)))[0, 0].numpy(),
    ):
        assert sent.dtype == dtype
        assert sent[0] == dtype(low)
        assert sent[1] == dtype(high)
        assert dtype(low) <= sent[2] <= dtype(high)
    assert scale.from_env(torch.from_numpy(actions.column(scale.to_env(squashed)))).isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_widest_bounds_do_not_overflow(dtype: Any) -> None:
    most = np.finfo(dtype).max
    scale = ActionScale("SAC", BoxActions(Box(-most, most, (3,), dtype)))
    squashed = np.array([[-1.0, 0.0, 1.0]])
    for sent in (scale.to_env(squashed), scale.tensor_to_env(torch.from_numpy(squashed)).numpy()):
        assert sent.tolist() == [[-most, 0.0, most]]


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_what_the_environment_got_is_scaled_back(dtype: Any) -> None:
    low, high = np.array([-1, 0, 1e6, 5], dtype), np.array([1, 0.25, 1e6 + 64, 5], dtype)
    actions = BoxActions(Box(low, high, dtype=dtype))
    scale = ActionScale("SAC", actions)
    squashed = np.random.default_rng(0).uniform(-1, 1, (50, 4))
    squashed[:2] = [[-1], [1]]
    back = scale.from_env(torch.from_numpy(actions.column(scale.to_env(squashed))))
    assert back.dtype == torch.float32
    np.testing.assert_allclose(back[:, :3], squashed[:, :3], atol=2e-3 if dtype == np.float32 else 1e-6)
    assert (back[:, 3] == 0).all(), "a number that is always the same"


def test_samples_have_the_densities_of_torchs_distribution_also_where_tanh_is_1() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.linspace(-12, 12, 40, dtype=torch.float64).reshape(20, 2)
    log_stds = torch.linspace(-3, 1, 40, dtype=torch.float64).reshape(20, 2)
    noise = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    found = squashed_sample(torch.cat([means, log_stds], dim=1), noise)
    transform = TanhTransform(cache_size=1)
    actions = transform(means + log_stds.exp() * noise)
    densities = TransformedDistribution(Normal(means, log_stds.exp()), [transform]).log_prob(actions)
    torch.testing.assert_close(found.actions, actions)
    torch.testing.assert_close(found.log_probs, densities.sum(dim=1))
    assert found.actions.abs().max() > 1 - 1e-9


def test_numpy_draws_what_torch_learns_from() -> None:
    outputs = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32) * 3
    noise = np.random.default_rng(2).standard_normal((9, 3))
    learned = squashed_sample(torch.from_numpy(outputs).double(), torch.from_numpy(noise))
    np.testing.assert_allclose(drawn(outputs, np.random.default_rng(2)), learned.actions, rtol=1e-12)
    np.testing.assert_allclose(likeliest(outputs), np.tanh(outputs[:, :3].astype(np.float64)))
