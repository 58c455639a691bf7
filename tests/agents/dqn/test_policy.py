from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from stoker.agents import DQN, DQNConfig, DQNPolicy
from stoker.errors import ConfigError
from stoker.types import ActMode

BOX = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
OBSERVATIONS = list(np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32))


def agent(epsilon: float = 1.0, n_actions: int = 3, start: int = 0, seed: int = 0) -> DQN:
    config = DQNConfig(initial_epsilon=epsilon, final_epsilon=min(epsilon, 0.01), buffer_size=1_000)
    return DQN(BOX, gymnasium.spaces.Discrete(n_actions, start=start), config, seed)


def greedy_actions(of: DQNPolicy) -> list[int]:
    with torch.no_grad():
        return of.network(torch.from_numpy(np.stack(OBSERVATIONS))).argmax(1).tolist()


def test_exploit_is_exactly_greedy_and_draws_nothing() -> None:
    dqn = agent(epsilon=1.0)
    policy = dqn.policy()
    before = dqn.state_dict()["explore_generator"]
    for _ in range(3):
        actions, memories = policy.act(OBSERVATIONS, ActMode.EXPLOIT)
        assert actions == greedy_actions(policy)
        assert memories is None
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
        assert set(actions) <= {start, start + 1, start + 2}
        assert mode is ActMode.EXPLOIT or len(set(actions)) == 3


def test_the_seed_decides_what_is_explored() -> None:
    first, same, other = (
        agent(seed=seed).policy().act(OBSERVATIONS, ActMode.EXPLORE)[0] for seed in (4, 4, 5)
    )
    assert first == same
    assert first != other


def test_grouping_does_not_change_what_a_row_draws() -> None:
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
        for parameter in dqn._online.parameters():
            parameter.neg_()
    dqn.total_steps = 5_000
    stale = greedy_actions(policy)
    dqn.publish(policy)
    assert greedy_actions(policy) != stale
    assert greedy_actions(policy) == greedy_actions(dqn.policy())
    assert policy.epsilon == dqn.epsilon == pytest.approx(0.505)
    assert greedy_actions(other) == stale
    assert other.epsilon == 1.0
    with torch.no_grad():
        for parameter in dqn._online.parameters():
            parameter.zero_()
    assert len(set(greedy_actions(policy))) > 1


def test_only_its_own_kind_of_policy_is_published_to() -> None:
    class Other:
        def act(self, observations: object, mode: ActMode) -> tuple[list[int], None]:
            raise AssertionError

    with pytest.raises(ConfigError, match="not to a Other"):
        agent().publish(Other())
