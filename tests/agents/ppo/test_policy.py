from __future__ import annotations

import math
import multiprocessing.reduction
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal

from stoker.agents import PPO, PortablePolicy, PPOConfig, PPOPolicy
from stoker.errors import ConfigError
from stoker.types import ActMode

BOX = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
OBSERVATIONS = list(np.random.default_rng(0).uniform(-1, 1, size=(300, 4)).astype(np.float32))
KINDS = ["discrete", "continuous", "several"]
STARTS = np.array([[-1, 0], [5, 0]])  # of several numbers, which have 2, 4, 3 and 2 choices

MakeAgent = Callable[..., PPO]


def spread(agent: PPO) -> PPO:
    """The same agent with actions that depend much on the observation."""
    with torch.no_grad():
        agent._network.body.policy.layers[-1].weight.mul_(200)
        if agent._network.log_std is not None:
            agent._network.log_std.copy_(torch.tensor([-0.5, 0.3]))
    return agent


def outputs(policy: PPOPolicy) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return policy.network(torch.from_numpy(np.stack(OBSERVATIONS)))


def acted(policy: PPOPolicy, rows: list[Any] = OBSERVATIONS) -> tuple[np.ndarray, np.ndarray]:
    actions, extras = policy.act(rows, ActMode.EXPLORE)
    assert extras is not None
    return np.array(actions), np.array(extras)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("few", [False, True], ids=["torch", "numpy"])
def test_extras_are_what_the_learner_computes(make_agent: MakeAgent, kind: str, few: bool) -> None:
    policy = spread(make_agent(kind, normalize_observations=True)).policy()
    policy.published = {"version": 7}
    if not few:
        policy._small = None
    parameters, values = outputs(policy)
    actions, extras = acted(policy)
    assert extras.dtype == np.float64
    chosen = torch.from_numpy(extras[:, 3:])
    if kind == "discrete":
        numbers = [Categorical(logits=parameters)]
        assert actions.tolist() == (chosen[:, 0] - 1).tolist(), "the space starts at -1"
    elif kind == "several":
        numbers = [Categorical(logits=part) for part in parameters.split([2, 4, 3, 2], dim=1)]
        assert actions.tolist() == (extras[:, 3:].reshape(-1, 2, 2) + STARTS).tolist()
    else:
        stds = policy.network.log_std.exp()
        numbers = [Normal(*each) for each in zip(parameters.T, stds, strict=True)]
        assert actions.tolist() == chosen.float().clip(-0.5, 2.0).tolist()
        assert (actions != extras[:, 3:]).any(), "else nothing was clipped"
    log_probs = [number.log_prob(column) for number, column in zip(numbers, chosen.T, strict=True)]
    assert extras[:, 0] == pytest.approx(torch.stack(log_probs).sum(0).numpy(), abs=2e-5)
    assert extras[:, 1] == pytest.approx(values.numpy(), abs=1e-5)
    assert set(extras[:, 2]) == {7}


@pytest.mark.parametrize("kind", KINDS)
def test_exploit_takes_the_likeliest_draws_nothing_and_remembers_nothing(
    make_agent: MakeAgent, kind: str
) -> None:
    agent = spread(make_agent(kind))
    policy = agent.policy()
    before = agent.state_dict()["explore_generator"]
    actions, extras = policy.act(OBSERVATIONS, ActMode.EXPLOIT)
    assert extras is None
    parameters, _ = outputs(policy)
    if kind == "discrete":
        assert actions == (parameters.argmax(1) - 1).tolist()
    elif kind == "several":
        parts = [part.argmax(1) for part in parameters.split([2, 4, 3, 2], dim=1)]
        best = torch.stack(parts, dim=1).view(-1, 2, 2).numpy() + STARTS
        assert np.array(actions).tolist() == best.tolist()
    else:
        assert np.array(actions) == pytest.approx(parameters.clip(-0.5, 2.0).numpy(), abs=1e-6)
    assert agent.state_dict()["explore_generator"] == before


def test_discrete_actions_come_as_often_as_their_probabilities_say(make_agent: MakeAgent) -> None:
    policy = spread(make_agent()).policy()
    logits = outputs(policy)[0][:1]
    actions, extras = acted(policy, OBSERVATIONS[:1] * 20_000)
    shares = np.bincount(actions + 1, minlength=3) / len(actions)
    assert shares == pytest.approx(logits.softmax(1)[0].numpy(), abs=0.015)
    assert np.exp(extras[:, 0]) == pytest.approx(logits.softmax(1)[0].numpy()[actions + 1], abs=1e-5)


def test_actions_without_probability_are_never_taken() -> None:
    class Sure:
        def random(self, size: int) -> np.ndarray:
            return np.array([0.0, math.nextafter(1.0, 0.0)])[:size]

    from stoker.agents.ppo.distributions import Categorical as Ours

    logits = np.array([[-1e4, 0.0, 1.0, -1e4]] * 2, np.float32)
    actions, log_probs = Ours(4).draw(logits, Sure())  # type: ignore[arg-type]
    assert actions[:, 0].tolist() == [1, 2]
    assert np.isfinite(log_probs).all()


def test_continuous_actions_are_spread_as_the_standard_deviation_says(make_agent: MakeAgent) -> None:
    policy = spread(make_agent("continuous")).policy()
    means = outputs(policy)[0][0].numpy()
    _, extras = acted(policy, OBSERVATIONS[:1] * 20_000)
    assert extras[:, 3:].mean(axis=0) == pytest.approx(means, abs=0.03)
    assert extras[:, 3:].std(axis=0) == pytest.approx(np.exp([-0.5, 0.3]), rel=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_grouping_does_not_change_what_a_row_draws(make_agent: MakeAgent, kind: str) -> None:
    together, extras = acted(make_agent(kind).policy())
    policy = make_agent(kind).policy()
    parts = [(0, 1), (1, 2), (2, 30), (30, 30), (30, 47), (47, 300)]
    apart = [acted(policy, OBSERVATIONS[start:stop]) for start, stop in parts if stop > start]
    assert np.concatenate([actions for actions, _ in apart]) == pytest.approx(together, abs=1e-5)
    assert np.concatenate([own for _, own in apart]) == pytest.approx(extras, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_observations_no_actions(make_agent: MakeAgent, kind: str) -> None:
    policy = make_agent(kind).policy()
    assert policy.act([], ActMode.EXPLOIT) == ([], None)
    actions, extras = policy.act([], ActMode.EXPLORE)
    assert (actions, len(extras)) == ([], 0)


def test_the_seed_decides_what_is_explored(make_agent: MakeAgent) -> None:
    first, same, other = (acted(make_agent(seed=seed).policy())[0].tolist() for seed in (4, 4, 5))
    assert first == same
    assert first != other


@pytest.mark.parametrize("kind", KINDS)
def test_actions_are_what_the_environment_takes(kind: str, make_agent: MakeAgent) -> None:
    space: Any = {
        "discrete": gymnasium.spaces.Discrete(3, start=-1),
        "continuous": gymnasium.spaces.Box(-0.5, 2.0, (2,), np.float32),
        "several": gymnasium.spaces.MultiDiscrete([[2, 4], [3, 2]], start=[[-1, 0], [5, 0]]),
    }[kind]
    for mode in ActMode:
        actions, _ = spread(make_agent(kind)).policy().act(OBSERVATIONS[:50], mode)
        assert all(space.contains(action) for action in actions)
        assert {type(action) for action in actions} == {int if kind == "discrete" else np.ndarray}


def test_boxes_of_any_shape_and_float_keep_them() -> None:
    space = gymnasium.spaces.Box(-np.inf, 0.25, (2, 3), np.float64)
    agent = PPO(BOX, space, PPOConfig(hidden_sizes=(8,)))
    actions, extras = agent.policy().act(OBSERVATIONS[:40], ActMode.EXPLORE)
    assert extras is not None
    assert all(space.contains(action) for action in actions)
    unclipped = np.array(extras)[:, 3:].reshape(40, 2, 3)
    assert np.array_equal(np.array(actions), unclipped.clip(None, 0.25))


def test_publish_brings_a_copy_up_to_date_which_stays_a_copy(make_agent: MakeAgent) -> None:
    agent = make_agent(normalize_observations=True)
    policy, other = agent.policy(), agent.policy()
    stale, _ = outputs(policy)
    with torch.no_grad():
        for parameter in agent._network.parameters():
            parameter.neg_()
    agent._network.set_moments(torch.full((4,), 0.5), torch.full((4,), 2.0))
    agent.opt_steps = 3
    agent.publish(policy)
    assert not torch.equal(outputs(policy)[0], stale)
    assert torch.equal(outputs(policy)[0], outputs(agent.policy())[0])
    assert policy.published == {"version": 3}
    assert torch.equal(outputs(other)[0], stale)
    assert other.published == {"version": 0}
    small = policy._small
    assert small is not None
    assert small.outputs(small.inputs(np.stack(OBSERVATIONS))) == pytest.approx(
        outputs(policy)[0].numpy(), abs=1e-6
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_fork_acts_alike_with_a_generator_of_its_own(make_agent: MakeAgent, kind: str) -> None:
    agent = spread(make_agent(kind, normalize_observations=True))
    policy = agent.policy()
    forks = [policy.fork(seed) for seed in (1, 1, 2)]
    assert isinstance(policy, PortablePolicy)
    before = agent.state_dict()["explore_generator"]
    actions = [acted(fork)[0].tolist() for fork in forks]
    assert actions[0] == actions[1] != actions[2]
    assert agent.state_dict()["explore_generator"] == before
    assert torch.equal(outputs(forks[2])[0], outputs(policy)[0])
    agent.opt_steps = 5
    with torch.no_grad():
        for parameter in agent._network.parameters():
            parameter.mul_(0.5)
    agent._network.set_moments(torch.full((4,), 0.5), torch.full((4,), 2.0))
    agent.publish(policy)
    stale = outputs(forks[0])[0]
    weights = policy.weights()
    forks[0].load_weights(weights)
    assert forks[0].published == {"version": 5}
    assert torch.equal(outputs(forks[0])[0], outputs(policy)[0])
    assert torch.equal(outputs(forks[1])[0], stale)
    for value in weights.values():
        if isinstance(value, torch.Tensor):
            value.fill_(9)  # memory of their own
    assert torch.equal(outputs(forks[0])[0], outputs(policy)[0])
    assert torch.isfinite(outputs(policy)[0]).all()


def test_weights_of_another_policy_are_refused(make_agent: MakeAgent) -> None:
    policy = make_agent().policy()
    with pytest.raises(ConfigError, match="lack version"):
        policy.load_weights({"weights": torch.zeros(3), "epsilon": 0.1})
    with pytest.raises(ConfigError, match="another network"):
        policy.load_weights(make_agent(hidden_sizes=(3,)).policy().weights())


def as_multiprocessing_does(policy: PPOPolicy) -> bytes:
    return bytes(multiprocessing.reduction.ForkingPickler.dumps(policy))


@pytest.mark.parametrize("dump", [pickle.dumps, as_multiprocessing_does], ids=["pickle", "multiprocessing"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_pickled_whole_and_the_one_left_behind_goes_on(
    make_agent: MakeAgent, kind: str, dump: Callable[[PPOPolicy], bytes]
) -> None:
    agent = spread(make_agent(kind, normalize_observations=True))
    policy = agent.policy().fork(3)
    policy.published = {"version": 4}
    expected, remembered = acted(policy.fork(9))
    arrived = pickle.loads(dump(policy))
    assert arrived.published == {"version": 4}
    arrived_actions, arrived_extras = acted(arrived)
    actions, extras = acted(policy)
    assert np.array_equal(arrived_actions, actions)
    assert np.array_equal(arrived_extras, extras)
    with torch.no_grad():
        policy._packed.values.zero_()
    assert np.array_equal(acted(arrived.fork(9))[0], expected), "they share no memory"
    assert np.array_equal(acted(arrived.fork(9))[1], remembered)
    arrived.load_weights(policy.weights())
    assert set(acted(arrived)[1][:, 1]) == {0.0}
