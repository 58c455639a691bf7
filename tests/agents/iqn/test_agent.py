"""IQN as an agent: what it learns of a return, and that its fractions are part of its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
import torch

from stoker.agents import IQN, IQNConfig, IQNPolicy
from stoker.agents.iqn.loss import quantile_huber_loss
from stoker.errors import ConfigError
from stoker.nested import difference
from stoker.testing.agent_driving import feed, state_of
from stoker.types import ActMode, EpisodeStatus, Experience

MakeExperiences = Callable[..., list[Experience]]

BOX = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
ACTIONS = gymnasium.spaces.Discrete(3, start=-1)


def iqn(seed: int = 0, **settings: Any) -> IQN:
    small = {"batch_size": 8, "buffer_size": 64, "learning_starts": 8, "hidden_sizes": (16, 16)}
    return IQN(BOX, ACTIONS, IQNConfig(**{**small, **settings}), seed)


def test_the_loss_is_that_worked_out_by_hand() -> None:
    # Errors (targets - quantile): row 0: 0.5, -2 at tau 0.25; row 1: 3, 0 at tau 0.75.
    targets = torch.tensor([[1.5, 4.0], [-1.0, 1.0]])
    found = quantile_huber_loss(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.25, 0.75]]), targets)
    rows = [(0.25 * 0.125 + 0.75 * 1.5) / 2, (0.75 * 2.5 + 0.0) / 2]
    assert found.of_rows.tolist() == pytest.approx(rows)
    assert found.loss.item() == pytest.approx(sum(rows) / 2)
    # By the quantile: -tau * 0.5 + (1 - tau) * 1 and -tau * 1, over two targets and two rows.
    assert found.gradient.tolist() == [pytest.approx([(-0.25 * 0.5 + 0.75) / 4, -0.75 / 4])]
    weighted = quantile_huber_loss(
        torch.tensor([[1.0, 1.0]]), torch.tensor([[0.25, 0.75]]), targets, torch.tensor([0.5, 0.0])
    )
    assert weighted.loss.item() == pytest.approx(0.5 * rows[0] / 2)
    assert weighted.gradient.tolist() == [pytest.approx([(-0.25 * 0.5 + 0.75) / 8, 0.0])]
    assert torch.equal(weighted.of_rows, found.of_rows), "priorities are not weighted"
    wider = quantile_huber_loss(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.25, 0.75]]), targets, kappa=2.0)
    rows = [(0.25 * 0.125 + 0.75 * 2.0) / 2 / 2, (0.75 * 4.0 + 0.0) / 2 / 2]
    assert wider.of_rows.tolist() == pytest.approx(rows)
    assert wider.gradient.tolist() == [pytest.approx([(-0.25 * 0.5 + 0.75 * 2) / 8, -0.75 * 2 / 8])]


def test_squared_errors_are_refused() -> None:
    with pytest.raises(ConfigError, match="huber_delta=None: squared errors give no quantiles"):
        IQNConfig(huber_delta=None)


def test_it_learns_the_quantiles_of_a_random_reward_not_only_their_mean() -> None:
    """Action 0 gives 0 or 4, as likely as each other, action 1 always 1.5; both end the episode."""
    agent = IQN(
        BOX, gymnasium.spaces.Discrete(2),
        IQNConfig(learning_rate=3e-3, batch_size=64, learning_starts=64, hidden_sizes=(32, 32), gamma=0.9),
        seed=1,
    )  # fmt: skip
    observation = np.ones(4, np.float32)
    rng = np.random.default_rng(0)
    for _ in range(400):
        action = int(rng.integers(2))
        reward = 1.5 if action else float(rng.integers(2)) * 4.0
        agent.observe([Experience(observation, action, reward, observation, EpisodeStatus.TERMINATED)])
    for _ in range(400):
        agent.learn()
    fractions = torch.tensor([[0.1], [0.25], [0.75], [0.9]])
    with torch.no_grad():
        found = agent._network.run(torch.from_numpy(observation[None]), fractions).quantiles[:, 0]
        values = agent._network(torch.from_numpy(observation[None]))[0].tolist()
    # Huber's loss blurs quantiles within kappa = 1 of a value: 0 and 4 end less than 1 from where they were.
    assert found[:2, 0].max() < 1.0
    assert found[2:, 0].min() > 3.0
    assert found[:, 1].tolist() == pytest.approx([1.5] * 4, abs=0.3)
    assert values == pytest.approx([2.0, 1.5], abs=0.3)
    assert agent.policy().act([observation], ActMode.EXPLOIT) == ([0], None)


@pytest.mark.parametrize(
    "settings", [{}, {"prioritized": True, "n_step": 3, "dueling": True}], ids=["plain", "all"]
)
def test_the_same_seed_and_order_give_the_same_bits_and_a_resume_goes_on_with_them(
    make_experiences: MakeExperiences, settings: dict[str, Any]
) -> None:
    agent, twin, other = iqn(**settings), iqn(**settings), iqn(seed=1, **settings)
    experiences = make_experiences(80)
    for each in (agent, twin):
        feed(each, experiences[:40])
    assert difference(state_of(agent), state_of(twin)) is None
    other.load_state_dict(agent.state_dict())
    other.replay.load_state_dict(agent.replay.state_dict())
    for each in (agent, other):
        feed(each, experiences[40:])
    assert difference(state_of(agent), state_of(other)) is None
    assert difference(state_of(agent), state_of(twin)) is not None


def test_numpy_acts_as_torch_does() -> None:
    for settings in ({}, {"dueling": True}, {"hidden_sizes": (16,)}, {"normalize_observations": True}):
        policy = iqn(n_acting_quantiles=4, **settings).policy()
        assert isinstance(policy, IQNPolicy)
        rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
        with torch.no_grad():
            assert policy._values(rows) == pytest.approx(
                policy.network(torch.from_numpy(rows)).numpy(), abs=1e-6
            )
            policy._small = None
            assert policy._values(rows) == pytest.approx(
                policy.network(torch.from_numpy(rows)).numpy(), abs=1e-6
            )


def test_acting_greedily_draws_nothing_and_grouping_changes_no_action() -> None:
    agent = iqn(initial_epsilon=0.5)
    policy, rows = agent.policy(), np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    before = agent.state_dict()["explore_generator"]
    together, _ = policy.act(list(rows), ActMode.EXPLOIT)
    assert agent.state_dict()["explore_generator"] == before
    assert together == [policy.act([row], ActMode.EXPLOIT)[0][0] for row in rows]
    assert len({*together}) > 1
    explored, _ = policy.fork(3).act(list(rows), ActMode.EXPLORE)
    fork, apart = policy.fork(3), []
    for start, stop in [(0, 1), (1, 2), (2, 30), (30, 200)]:
        apart += fork.act(list(rows[start:stop]), ActMode.EXPLORE)[0]
    assert apart == explored != together


def test_convolutions_learn_from_images() -> None:
    box = gymnasium.spaces.Box(0, 255, (36, 40, 3), np.uint8)
    config = IQNConfig(
        batch_size=4, buffer_size=10, learning_starts=4, learning_rate=1e-3, n_quantiles=4, dueling=True,
        prioritized=True, double=True, n_step=2,
    )  # fmt: skip
    agent = IQN(box, gymnasium.spaces.Discrete(2), config)
    box.seed(0)
    for _ in range(6):
        agent.observe([Experience(box.sample(), 1, 0.5, box.sample(), EpisodeStatus.TERMINATED)])
    losses = [agent.learn()["loss"] for _ in range(12)]
    assert losses[-1] < losses[0] / 2


def test_other_numbers_of_cosines_and_no_hidden_layer_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"hidden_sizes=\(\): give at least one layer"):
        IQNConfig(hidden_sizes=())
    with pytest.raises(ConfigError, match="n_cosines does not fit: saved 16, here 64"):
        iqn().load_state_dict(iqn(n_cosines=16).state_dict())
    with pytest.raises(ConfigError, match="n_cosines does not fit: saved 64, here 16") as refused:
        iqn(n_cosines=16).with_settings(msgspec.to_builtins(iqn().config))
    del refused
