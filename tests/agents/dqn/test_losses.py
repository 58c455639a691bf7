"""The regression target against values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from stoker.agents.dqn.losses import td_loss, td_targets
from stoker.replay import Batch

# Two states, three actions: what each network says of them.
ONLINE = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]])
TARGET = torch.tensor([[5.0, 4.0, 0.0], [2.0, 7.0, 1.0]])

# state, action, reward, next state, mask | plain: the max of TARGET, double: TARGET where ONLINE is best
ROWS = [
    (0, 0, 1.0, 1, 1.0, 1.0 + 0.5 * 7.0, 1.0 + 0.5 * 1.0),  # continuing
    (0, 1, 0.0, 0, 1.0, 0.0 + 0.5 * 5.0, 0.0 + 0.5 * 4.0),  # truncated: bootstraps like continuing
    (1, 2, -2.0, 1, 0.0, -2.0, -2.0),  # terminated: the reward alone
    (1, 1, 10.0, 0, 0.0, 10.0, 10.0),
]


def online(observations: torch.Tensor) -> torch.Tensor:
    return ONLINE[observations[:, 0].long()]


def target(observations: torch.Tensor) -> torch.Tensor:
    return TARGET[observations[:, 0].long()]


@pytest.fixture
def batch() -> Batch:
    states, actions, rewards, next_states, masks, _, _ = zip(*ROWS, strict=True)
    return Batch(
        observations=torch.tensor(states, dtype=torch.float32).unsqueeze(1),
        actions=torch.tensor(actions),
        rewards=torch.tensor(rewards),
        next_observations=torch.tensor(next_states, dtype=torch.float32).unsqueeze(1),
        bootstrap_masks=torch.tensor(masks),
    )


@pytest.mark.parametrize(("double", "column"), [(False, 5), (True, 6)], ids=["plain", "double"])
def test_targets_are_those_worked_out_by_hand(batch: Batch, double: bool, column: int) -> None:
    targets = td_targets(online, target, batch, 0.5, double=double)
    assert targets.tolist() == [row[column] for row in ROWS]
    assert not targets.requires_grad


def test_weights_multiply_each_transitions_loss_and_gradient(batch: Batch) -> None:
    targets = torch.tensor([1.5, 2.5, -1.0, 1.0])  # errors: -0.5, -0.5, 4, -2
    weights = torch.tensor([1.0, 0.25, 0.5, 0.0])
    values = online(batch.observations).requires_grad_()
    found = td_loss(values.detach(), batch.actions, targets, weights)
    assert found.loss.item() == pytest.approx((0.125 + 0.25 * 0.125 + 0.5 * 3.5 + 0.0) / 4)
    assert found.errors.tolist() == [-0.5, -0.5, 4.0, -2.0], "errors are not weighted"
    taken = values.gather(1, batch.actions.unsqueeze(1)).squeeze(1)
    (weights * torch.nn.functional.huber_loss(taken, targets, reduction="none")).mean().backward()
    assert torch.equal(found.gradient, values.grad), "the gradient given is autograd's"
    assert weights.tolist() == [1.0, 0.25, 0.5, 0.0], "what was given is left as it was"


def test_weights_of_one_change_nothing(batch: Batch) -> None:
    values, targets = online(batch.observations), torch.tensor([1.5, 2.0, -1.0, 1.0])
    plain = td_loss(values, batch.actions, targets)
    weighted = td_loss(values, batch.actions, targets, torch.ones(4))
    assert all(torch.equal(left, right) for left, right in zip(plain, weighted, strict=True))


def test_the_loss_is_hubers(batch: Batch) -> None:
    # Values of the taken actions: 1, 2, 3, -1. Errors: -0.5, 0, 4, -2 (delta 1: e^2 / 2, else |e| - 1/2).
    targets = torch.tensor([1.5, 2.0, -1.0, 1.0])
    values = online(batch.observations).requires_grad_()
    loss, slopes, errors, mean = td_loss(values.detach(), batch.actions, targets)
    assert mean.item() == pytest.approx((1.0 + 2.0 + 3.0 - 1.0) / 4)
    assert errors.tolist() == [-0.5, 0.0, 4.0, -2.0]
    assert loss.item() == pytest.approx((0.125 + 0.0 + 3.5 + 1.5) / 4)
    taken = values.gather(1, batch.actions.unsqueeze(1)).squeeze(1)
    torch.nn.functional.huber_loss(taken, targets).backward()
    assert torch.equal(slopes, values.grad), "the gradient given is autograd's"
