from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stoker.agents import PPOConfig
from stoker.agents.ppo.acting import SmallPass, small_pass
from stoker.agents.ppo.network import ActorCritic, Towers


def network(dtype: Any = np.float32, *, normalizes: bool = False, **settings: Any) -> ActorCritic:
    generator = torch.Generator().manual_seed(0)
    return ActorCritic(Towers(6, 4, PPOConfig(**settings), generator), (2, 3), None, normalizes=normalizes)


def passed(of: ActorCritic) -> SmallPass:
    found = small_pass(of, torch.device("cpu"))
    assert found is not None
    return found


@pytest.mark.parametrize("hidden", [(), (16,), (64, 32)], ids=str)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int64, np.bool_], ids=lambda t: t.__name__)
@pytest.mark.parametrize("normalizes", [False, True], ids=["plain", "normalized"])
def test_it_computes_what_the_network_does(
    hidden: tuple[int, ...], activation: str, dtype: Any, normalizes: bool
) -> None:
    ours = network(normalizes=normalizes, hidden_sizes=hidden, activation=activation)
    small = passed(ours)
    rng = np.random.default_rng(0)
    for _ in range(2):
        observations = (rng.random((5, 2, 3)) * 200).astype(dtype)
        kept = observations.copy()
        with torch.no_grad():
            parameters, values = ours(torch.from_numpy(observations))
        inputs = small.inputs(observations)
        for found, expected in ((small.parameters(inputs), parameters), (small.values(inputs), values)):
            assert found.dtype == np.float32
            assert found.shape == tuple(expected.shape)
            assert np.allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)
        assert np.array_equal(observations, kept)
        with torch.no_grad():  # it goes on with the weights that the network has by then
            for parameter in ours.parameters():
                parameter.mul_(-0.5)
            if normalizes:
                ours.set_moments(torch.full((6,), 90.0), torch.full((6,), 0.02))


def test_it_is_for_towers_on_the_cpu_and_says_up_to_how_many_rows_it_pays() -> None:
    assert passed(network(hidden_sizes=(512, 512))).most_rows == 1
    other = ActorCritic(nn.Linear(6, 4), (6,), None, normalizes=False)
    assert small_pass(other, torch.device("cpu")) is None
    assert small_pass(network(), torch.device("meta")) is None
