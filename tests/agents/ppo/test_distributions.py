"""Distributions beside torch's own, and their gradients beside autograd's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Categorical as TorchCategorical

from stoker.agents.ppo.distributions import Categorical, MultiCategorical

CHOICES = [(5,), (2, 2, 2), (2, 4, 1, 3)]


def of(n_choices: tuple[int, ...]) -> Categorical | MultiCategorical:
    return Categorical(*n_choices) if len(n_choices) == 1 else MultiCategorical(*n_choices)


def logits_of(n_choices: tuple[int, ...], *, forbids: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    logits = 2.0 * torch.randn(6, sum(n_choices), generator=generator)
    if forbids:  # in every second row all but the first choice of each number
        first = torch.zeros(sum(n_choices), dtype=torch.bool)
        first[np.cumsum((0, *n_choices[:-1]))] = True
        logits[::2, ~first] = -torch.inf
        logits[1, -1] = -torch.inf if n_choices[-1] > 1 else 0.0
    return logits


@pytest.mark.parametrize("n_choices", CHOICES, ids=str)
@pytest.mark.parametrize("forbids", [False, True], ids=["free", "forbidding"])
def test_choices_are_evaluated_as_torch_does(n_choices: tuple[int, ...], forbids: bool) -> None:
    logits = logits_of(n_choices, forbids=forbids).requires_grad_()
    numbers = [TorchCategorical(logits=part) for part in logits.split(n_choices, dim=1)]
    actions = torch.stack([number.probs.argmax(dim=1) for number in numbers], dim=1)
    log_probs = torch.stack([n.log_prob(a) for n, a in zip(numbers, actions.T, strict=True)]).sum(0)
    entropies = torch.stack([number.entropy() for number in numbers]).sum(0)
    weights = torch.linspace(-1.0, 2.0, 6)
    ((weights * log_probs).sum() + 0.3 * entropies.sum()).backward()
    with torch.no_grad():
        found = of(n_choices).evaluate(logits, actions)
        gradient, none = found.gradients(weights, 0.3)
    assert none is None
    assert torch.allclose(found.log_probs, log_probs, atol=1e-5)
    assert torch.allclose(found.entropies, entropies, atol=1e-5)
    expected = logits.grad.nan_to_num(0.0)  # of what is forbidden torch makes 0 * -inf
    assert torch.allclose(gradient, expected, atol=1e-5)
    assert gradient.abs().max() > 0.1


@pytest.mark.parametrize("n_choices", CHOICES, ids=str)
def test_choices_are_drawn_by_their_probabilities(n_choices: tuple[int, ...]) -> None:
    logits = logits_of(n_choices, forbids=True)
    drawn, log_probs = of(n_choices).draw(
        logits.numpy().repeat(4_000, axis=0), np.random.Generator(np.random.PCG64(0))
    )
    drawn, log_probs = drawn.reshape(6, 4_000, -1), log_probs.reshape(6, 4_000)
    for row in range(6):
        parts = [part.softmax(0).numpy() for part in logits[row].split(n_choices)]
        expected = np.zeros(4_000)
        for place, shares in enumerate(parts):
            chosen = drawn[row, :, place].astype(int)
            counts = np.bincount(chosen, minlength=len(shares))
            assert counts / 4_000 == pytest.approx(shares, abs=0.03)
            assert not counts[shares == 0.0].any()
            expected += np.log(shares[chosen])
        assert log_probs[row] == pytest.approx(expected, abs=1e-5)
    likeliest = [part.argmax(dim=1) for part in logits.split(n_choices, dim=1)]
    modes = of(n_choices).mode(logits.numpy())
    assert modes.tolist() == torch.stack(likeliest, dim=1).tolist()
