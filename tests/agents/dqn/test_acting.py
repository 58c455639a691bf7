from __future__ import annotations

import numpy as np
import pytest
import torch

from stoker.agents.dqn.acting import SmallPass
from stoker.agents.dqn.perceptron import Perceptron


@pytest.mark.parametrize("hidden", [(), (16,), (64, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("normalizes", [False, True], ids=["raw", "normalized"])
@pytest.mark.parametrize("dueling", [False, True], ids=["plain", "dueling"])
def test_it_computes_what_the_network_does(
    hidden: tuple[int, ...], dtype: torch.dtype, normalizes: bool, dueling: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    network = Perceptron((2, 3), dtype, 4, hidden, generator, normalizes=normalizes, dueling=dueling)
    small = SmallPass(network)
    for _ in range(2):
        observations = (torch.rand((5, 2, 3), generator=generator) * 200).to(dtype)
        with torch.no_grad():
            expected = network(observations).numpy()
        values = small(observations.numpy())
        assert values.dtype == np.float32
        assert np.allclose(values, expected, rtol=1e-4, atol=1e-4)
        with torch.no_grad():  # it goes on with the weights that the network has by then
            for parameter in network.parameters():
                parameter.mul_(-0.5)
            if normalizes:
                network.set_moments(torch.full((6,), 90.0), torch.full((6,), 0.02))


def test_no_observations_give_no_values() -> None:
    network = Perceptron((4,), torch.float32, 3, (8,), torch.Generator())
    assert SmallPass(network)(np.empty((0, 4), np.float32)).shape == (0, 3)


def test_it_says_up_to_how_many_rows_it_pays() -> None:
    wide = Perceptron((4,), torch.float32, 3, (512, 512), torch.Generator())
    assert SmallPass(wide).most_rows == 1
