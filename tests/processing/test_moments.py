"""Running moments against numpy, and what the agent does with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings, strategies as st

from stoker.agents.dqn.agent import DQN
from stoker.agents.dqn.config import DQNConfig
from stoker.processing.moments import RunningMoments
from stoker.testing.contract import difference, through_file
from stoker.types import ActMode, EpisodeStatus, Experience

CONFIG = DQNConfig(normalize_observations=True, learning_starts=0, batch_size=4, target_update_interval=7)


def rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal([5.0, -100.0, 0.0], [0.01, 30.0, 1.0], (n, 3))


def experience(row: np.ndarray) -> Experience:
    return Experience(row.astype(np.float32), 1, 1.0, row.astype(np.float32), EpisodeStatus.CONTINUING)


def agent(config: DQNConfig = CONFIG) -> DQN:
    return DQN(Box(-np.inf, np.inf, (3,), np.float32), Discrete(2), config, seed=2)


@given(seed=st.integers(0, 1000), n_batches=st.integers(1, 5), offset=st.floats(-1e6, 1e6))
@settings(max_examples=40, deadline=None)
def test_moments_are_those_of_all_rows_together(seed: int, n_batches: int, offset: float) -> None:
    data = rows(100 * n_batches, seed) + offset
    moments = RunningMoments(3)
    changes = [moments.add(row) for row in data]
    assert sum(changes) == n_batches
    assert moments.mean().numpy() == pytest.approx(data.mean(axis=0), rel=1e-5, abs=1e-5)
    deviation = 1 / moments.scale().numpy()
    assert deviation == pytest.approx(np.sqrt(data.var(axis=0) + 1e-8), rel=1e-4)


def test_nothing_changes_before_the_first_batch_is_full() -> None:
    moments = RunningMoments(3)
    assert not any(moments.add(row) for row in rows(99))
    assert moments.mean().tolist() == [0, 0, 0]
    assert moments.scale().tolist() == [1, 1, 1]
    assert moments.add(rows(1)[0])
    assert moments.mean().tolist() != [0, 0, 0]


def test_a_part_that_never_changes_is_not_blown_up() -> None:
    moments = RunningMoments(1)
    for _ in range(100):
        moments.add([3.0])
    assert moments.scale().item() == pytest.approx(1e4)


@given(
    shape=st.sampled_from([(), (1,), (3,), (2, 3), (2, 2, 3)]),
    kind=st.sampled_from("Bfd"),
    at=st.integers(0, 210),
)
@settings(max_examples=40, deadline=None)
def test_state_survives_at_every_point_whatever_the_shape(shape: tuple[int, ...], kind: str, at: int) -> None:
    data = (np.random.default_rng(at).random((210, *shape)) * 200).astype(kind)
    size = math.prod(shape)
    whole, first, second = RunningMoments(size), RunningMoments(size), RunningMoments(size)
    for row in data:
        whole.add(row)
    for row in data[:at]:
        first.add(row)
    second.load_state_dict(through_file(first.state_dict()))
    for row in data[at:]:
        second.add(row)
    assert difference(whole.state_dict(), second.state_dict()) is None


def test_later_changes_of_the_callers_array_do_not_reach_it() -> None:
    moments = RunningMoments(1)
    array = np.zeros(1)
    for k in range(100):
        array[0] = k
        moments.add(array)
    assert moments.mean().item() == pytest.approx(49.5)


def test_the_networks_see_normalized_observations() -> None:
    learner = agent()
    plain = agent(DQNConfig(learning_starts=0, batch_size=4))
    data = rows(300)
    learner.observe([experience(row) for row in data])
    seen = ((data.astype(np.float32) - data.mean(axis=0)) / data.std(axis=0)).astype(np.float32)
    ours, theirs = learner.policy(), plain.policy()
    expected = theirs.network(torch.as_tensor(seen))
    assert torch.allclose(ours.network(torch.as_tensor(data.astype(np.float32))), expected, atol=2e-2)


def test_policies_and_target_keep_their_moments_until_they_get_new_weights() -> None:
    learner = agent()
    policy = learner.policy()
    before = policy.network.input_mean.clone()
    learner.observe([experience(row) for row in rows(100)])
    assert torch.equal(policy.network.input_mean, before)
    target = learner.state_dict()["target"]
    assert torch.equal(target["input_mean"], before)
    learner.publish(policy)
    assert not torch.equal(policy.network.input_mean, before)
    for _ in range(7):
        learner.learn()
    assert torch.equal(learner.state_dict()["target"]["input_mean"], policy.network.input_mean)


def test_an_outlier_is_limited() -> None:
    learner = agent()
    learner.observe([experience(row) for row in rows(100)])
    policy = learner.policy()
    far, farther = (torch.tensor([[1e6, 0.0, 0.0]]), torch.tensor([[1e9, 0.0, 0.0]]))
    assert torch.equal(policy.network(far), policy.network(farther))
    assert policy.act([np.array([1e9, 0, 0], np.float32)], ActMode.EXPLOIT)[0][0] in (0, 1)
