from __future__ import annotations

import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from stoker.agents import DQN, DQNConfig, DQNPolicy
from stoker.agents.dqn.policy import action_probabilities, epsilon_greedy, softmax_actions
from stoker.agents.protocol import PortablePolicy
from stoker.errors import ConfigError
from stoker.types import ActMode, EpisodeStatus, Experience

BOX = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
OBSERVATIONS = list(np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32))


def agent(epsilon: float = 1.0, n_actions: int = 3, start: int = 0, seed: int = 0, **settings: Any) -> DQN:
    config = DQNConfig(
        initial_epsilon=epsilon, final_epsilon=min(epsilon, 0.01), buffer_size=1_000, **settings
    )
    return DQN(BOX, gymnasium.spaces.Discrete(n_actions, start=start), config, seed)


def greedy_actions(of: DQNPolicy) -> list[int]:
    with torch.no_grad():
        return of.network(torch.from_numpy(np.stack(OBSERVATIONS))).argmax(1).tolist()


def test_exploit_is_exactly_greedy_and_draws_nothing() -> None:
    dqn = agent(epsilon=1.0)
    policy = dqn.policy()
    before = dqn.state_dict()["explore_generator"]
    for _ in range(3):
        actions, extras = policy.act(OBSERVATIONS, ActMode.EXPLOIT)
        assert actions == greedy_actions(policy)
        assert extras is None
    assert dqn.state_dict()["explore_generator"] == before
    assert len(set(greedy_actions(policy))) > 1, "a constant policy would prove nothing"


def test_one_pass_for_many_equals_one_pass_each() -> None:
    policy = agent().policy()
    together, _ = policy.act(OBSERVATIONS, ActMode.EXPLOIT)
    assert together == [policy.act([observation], ActMode.EXPLOIT)[0][0] for observation in OBSERVATIONS]


def test_no_observations_no_actions() -> None:
    policy = agent().policy()
    assert policy.act([], ActMode.EXPLOIT) == ([], None)
    assert policy.act([], ActMode.EXPLORE) == ([], None)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_explore_is_random_as_often_as_epsilon_says(epsilon: float) -> None:
    policy = agent(epsilon).policy()
    rounds = 40
    actions = np.array([policy.act(OBSERVATIONS, ActMode.EXPLORE)[0] for _ in range(rounds)])
    greedy = np.array(greedy_actions(policy))
    differing = (actions != greedy).mean()
    assert differing == pytest.approx(
        epsilon * 2 / 3, abs=0.02
    )  # of 3 actions a random one is the greedy one
    if epsilon == 0.0:
        assert differing == 0.0
    if epsilon == 1.0:
        shares = np.bincount(actions.flatten(), minlength=3) / actions.size
        assert shares == pytest.approx([1 / 3] * 3, abs=0.02)


@pytest.mark.parametrize("mode", list(ActMode))
def test_actions_are_plain_ints_from_start(mode: ActMode) -> None:
    for start in (-2, 0, 5):
        actions, _ = agent(epsilon=0.5, start=start).policy().act(OBSERVATIONS, mode)
        assert {type(action) for action in actions} == {int}
        columns, _ = agent(epsilon=0.5, start=start).policy().act(np.stack(OBSERVATIONS), mode)
        assert (columns.dtype, columns.tolist()) == (np.int64, actions)
        assert set(actions) <= {start, start + 1, start + 2}
        assert mode is ActMode.EXPLOIT or len(set(actions)) == 3


def test_the_seed_decides_what_is_explored() -> None:
    first, same, other = (
        agent(seed=seed).policy().act(OBSERVATIONS, ActMode.EXPLORE)[0] for seed in (4, 4, 5)
    )
    assert first == same
    assert first != other


def test_grouping_does_not_change_what_a_policy_draws() -> None:
    together, _ = agent().policy().act(OBSERVATIONS, ActMode.EXPLORE)
    policy, apart = agent().policy(), []
    for start, stop in [(0, 1), (1, 2), (2, 30), (30, 47), (47, 300)]:
        apart += policy.act(OBSERVATIONS[start:stop], ActMode.EXPLORE)[0]
    assert apart == together


def test_lists_and_single_precision_tensors_are_observations_too() -> None:
    policy = agent().policy()
    array = OBSERVATIONS[0]
    actions, _ = policy.act(
        [array, array.tolist(), torch.from_numpy(array), array.astype(np.float64)], ActMode.EXPLOIT
    )
    assert actions == [actions[0]] * 4


def test_publish_brings_a_copy_up_to_date_which_stays_a_copy() -> None:
    dqn = agent(epsilon=1.0)
    policy, other = dqn.policy(), dqn.policy()
    with torch.no_grad():
        for parameter in dqn._network.parameters():
            parameter.neg_()
    dqn.total_steps = 5_000
    stale = greedy_actions(policy)
    dqn.publish(policy)
    assert greedy_actions(policy) != stale
    assert greedy_actions(policy) == greedy_actions(dqn.policy())
    assert policy.published["epsilon"] == dqn.exploration_rate == pytest.approx(0.505)
    assert greedy_actions(other) == stale
    assert other.published == {"epsilon": 1.0}
    with torch.no_grad():
        for parameter in dqn._network.parameters():
            parameter.zero_()
    assert len(set(greedy_actions(policy))) > 1


def test_softmax_prefers_the_better_actions_and_exploits_greedily() -> None:
    policy = agent(exploration="softmax", softmax_temperature=0.05).policy()
    assert policy.published == {"temperature": 0.05}
    greedy = np.array(greedy_actions(policy))
    assert policy.act(OBSERVATIONS, ActMode.EXPLOIT)[0] == greedy.tolist()
    with torch.no_grad():
        values = policy.network(torch.from_numpy(np.stack(OBSERVATIONS))).double()
    expected = torch.softmax(values / 0.05, dim=1).numpy()
    rounds = 300
    actions = np.array([policy.act(OBSERVATIONS, ActMode.EXPLORE)[0] for _ in range(rounds)])
    shares = np.stack([(actions == action).mean(axis=0) for action in range(3)], axis=1)
    assert np.abs(shares - expected).max() < 0.15
    assert np.abs(shares - expected).mean() < 0.02
    assert 0.1 < expected.max(axis=1).mean() < 0.95, "else a uniform or a greedy policy would pass"


def learned_agent(**settings: Any) -> DQN:
    """An agent that has learned: with moments, if it normalizes, and with weights that have moved."""
    dqn = agent(batch_size=8, learning_starts=8, **settings)
    rng = np.random.default_rng(7)
    for _ in range(120):
        here, there = rng.normal(3.0, 2.0, (2, 4)).astype(np.float32)
        action = int(rng.integers(3))
        dqn.observe([Experience(here, action, float(rng.normal()), there, EpisodeStatus.CONTINUING)])
        dqn.learn()
    return dqn


PORTABLE = {
    "epsilon": {},
    "softmax": {"exploration": "softmax", "softmax_temperature": 0.3},
    "normalized and dueling": {"normalize_observations": True, "dueling": True},
}


@pytest.mark.parametrize("kind", PORTABLE)
def test_a_fork_acts_by_itself(kind: str) -> None:
    dqn = learned_agent(**PORTABLE[kind])
    policy = dqn.policy()
    assert isinstance(policy, PortablePolicy)
    before = dqn.state_dict()["explore_generator"]
    first, same, other = policy.fork(4), policy.fork(4), policy.fork(5)
    assert greedy_actions(first) == greedy_actions(policy)
    explored = [each.act(OBSERVATIONS, ActMode.EXPLORE)[0] for each in (first, same, other)]
    assert explored[0] == explored[1] != explored[2]
    assert dqn.state_dict()["explore_generator"] == before, "the agent's own generator was not drawn from"
    for parameter in policy.network.parameters():
        parameter.neg_()
    assert greedy_actions(first) != greedy_actions(policy)
    assert first.act(OBSERVATIONS, ActMode.EXPLOIT)[0] == greedy_actions(first)


@pytest.mark.parametrize("kind", PORTABLE)
def test_weights_bring_a_fork_up_to_date(kind: str) -> None:
    dqn = learned_agent(**PORTABLE[kind])
    policy, fork = dqn.policy(), agent(seed=9, **PORTABLE[kind]).policy().fork(0)
    assert greedy_actions(fork) != greedy_actions(policy)
    sent = policy.weights()
    assert sent.keys() - {"input_mean", "input_scale"} == {"weights", dqn.config.exploration_rate_name}
    assert ("input_mean" in sent) == dqn.config.normalize_observations
    fork.load_weights(sent)
    assert greedy_actions(fork) == greedy_actions(policy)
    assert fork.act(OBSERVATIONS, ActMode.EXPLOIT) == policy.act(OBSERVATIONS, ActMode.EXPLOIT)
    assert fork.published == policy.published == {dqn.config.exploration_rate_name: dqn.exploration_rate}
    for tensor in sent.values():
        if isinstance(tensor, torch.Tensor):
            tensor.fill_(0)  # memory of its own: neither side sees it
    assert greedy_actions(fork) == greedy_actions(policy)
    assert len(set(greedy_actions(policy))) > 1


def test_weights_of_another_network_are_refused_and_change_nothing() -> None:
    fork = agent(normalize_observations=True).policy().fork(0)
    before = fork.weights()
    good = agent(normalize_observations=True, seed=1).policy().weights()
    for bad, named in [
        ({**good, "weights": torch.zeros(3)}, r"weights must be a tensor of shape \[\d+\], got \[3\]"),
        ({**good, "input_scale": torch.ones(5)}, r"input_scale must be a tensor of shape \[4\], got \[5\]"),
        ({name: good[name] for name in good if name != "input_mean"}, "input_mean must be.*got None"),
        ({name: good[name] for name in good if name != "epsilon"}, "these weights lack epsilon"),
    ]:
        with pytest.raises(ConfigError, match=named):
            fork.load_weights(bad)
        after = fork.weights()
        assert all(np.array_equal(before[name], after[name]) for name in before)


def test_forks_act_in_a_spawned_process_as_they_do_here() -> None:
    forks = [learned_agent(**settings).policy().fork(3) for settings in PORTABLE.values()]
    images = gymnasium.spaces.Box(0, 255, (36, 36, 1), np.uint8)
    config = DQNConfig(network="cnn", buffer_size=10, learning_starts=0, batch_size=1)
    forks.append(DQN(images, gymnasium.spaces.Discrete(3), config, seed=2).policy().fork(3))
    images.seed(0)
    seen = [OBSERVATIONS] * len(PORTABLE) + [[images.sample() for _ in range(5)]]
    modes = (ActMode.EXPLOIT, ActMode.EXPLORE)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        there = [
            [process.submit(fork.act, rows, mode).result(timeout=60) for mode in modes]
            for fork, rows in zip(forks, seen, strict=True)
        ]
    here = [
        [fork.act(rows, ActMode.EXPLOIT), fork.act(rows, ActMode.EXPLORE)]
        for fork, rows in zip(forks, seen, strict=True)
    ]
    assert there == here


LN2 = math.log(2)

# values of a row, temperature, probabilities
TABLE = [
    ([0.0, 0.0, 0.0, 0.0], 1.0, [0.25, 0.25, 0.25, 0.25]),
    ([LN2, 0.0], 1.0, [2 / 3, 1 / 3]),
    ([LN2, 0.0], 0.5, [4 / 5, 1 / 5]),
    ([LN2, 0.0], 0.25, [16 / 17, 1 / 17]),
    ([0.0, LN2, 2 * LN2], 1.0, [1 / 7, 2 / 7, 4 / 7]),
    ([3 * LN2 + 500, 500.0], 1.0, [8 / 9, 1 / 9]),  # only differences count
    ([-1e4, 0.0, 1e4], 1.0, [0.0, 0.0, 1.0]),  # exp(1e4) is no float
    ([1.0, 1.0 + 1e-3], 1e-6, [0.0, 1.0]),
    ([-3e38, 3e38], 1.0, [0.0, 1.0]),
    ([1.0, -1.0], 1e9, [0.5, 0.5]),
    ([7.0], 1.0, [1.0]),
]


def test_probabilities_are_those_of_the_table() -> None:
    for values, temperature, expected in TABLE:
        rows = np.array([values, values], np.float32)
        found = action_probabilities(rows, temperature)
        assert found.dtype == np.float64
        assert found == pytest.approx(np.array([expected, expected]), rel=1e-4, abs=1e-8)
        assert found.sum(axis=1) == pytest.approx([1.0, 1.0], rel=1e-12)


def test_actions_come_as_often_as_they_are_likely() -> None:
    rows = np.tile(np.array([[0.0, LN2, 2 * LN2]], np.float32), (30_000, 1))
    actions = softmax_actions(rows, 1.0, np.random.default_rng(0))
    assert actions.dtype == np.int64
    shares = np.bincount(actions, minlength=3) / len(actions)
    assert shares == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=0.01)


class Draws:
    """A generator that gives the same number each time."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, self.value)


def test_the_least_and_the_largest_draw_give_the_first_and_the_last_action() -> None:
    for n_actions in [1, 3, 7, 10, 49]:
        rows = np.zeros((1, n_actions), np.float32)
        assert softmax_actions(rows, 1.0, Draws(0.0)) == [0]
        assert softmax_actions(rows, 1.0, Draws(math.nextafter(1.0, 0.0))) == [n_actions - 1]


def test_an_action_without_any_probability_is_never_taken() -> None:
    rows = np.array([[0.0, 1e5, 0.0]], np.float32)
    for draw in (0.0, 0.5, math.nextafter(1.0, 0.0)):
        assert softmax_actions(rows, 1.0, Draws(draw)) == [1]


@pytest.mark.parametrize("explored", [epsilon_greedy, softmax_actions], ids=["epsilon", "softmax"])
@pytest.mark.parametrize("rate", [0.1, 0.9])
def test_grouping_does_not_change_what_a_row_draws(explored: object, rate: float) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    together = explored(rows, rate, np.random.default_rng(1))
    generator, apart = np.random.default_rng(1), []
    for start, stop in [(0, 1), (1, 2), (2, 30), (30, 30), (30, 47), (47, 200)]:
        apart += explored(rows[start:stop], rate, generator).tolist()
    assert apart == together.tolist()
    assert len({*apart}) == 5


def test_epsilon_is_the_share_of_random_actions() -> None:
    rows = np.tile(np.array([[0.0, 1.0, 0.0, 0.0]], np.float32), (20_000, 1))
    for epsilon in (0.0, 0.4, 1.0):
        actions = epsilon_greedy(rows, epsilon, np.random.default_rng(0))
        assert (actions != 1).mean() == pytest.approx(epsilon * 3 / 4, abs=0.01)
