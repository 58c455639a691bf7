"""State-dependent exploration: the noise of each actor, and the distribution of actions that follows."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from msgspec.structs import replace
from torch import nn
from torch.distributions import Independent, Normal

from stoker import TrainingRun, TrainingSession, make_gym, run_actors
from stoker.agents import PPO, PPOConfig
from stoker.agents.ppo.exploration import ActorNoise, StateDependentGaussian
from stoker.agents.ppo.policy import StateDependentPolicy
from stoker.agents.protocol import ActsForActors
from stoker.errors import ConfigError
from stoker.nested import difference
from stoker.testing.agent_driving import as_batch, state_of
from stoker.testing.contract import through_file
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience

BOX = Box(-1, 1, (4,), np.float32)
ROWS = np.random.default_rng(0).uniform(-1, 1, (30, 4)).astype(np.float32)
EXPLORE = ActMode.EXPLORE

MakeAgent = Callable[..., PPO]
Play = Callable[..., list[Experience]]


# The noise of actors ------------------------------------------------------------------------------


def noise(freq: int = 1, seed: int = 7, shape: tuple[int, ...] = (3, 2)) -> ActorNoise:
    return ActorNoise(shape, freq, seed)


def test_an_actor_keeps_its_noise_for_some_steps_and_until_its_episode_ends() -> None:
    kept = noise(freq=3)
    seen = [kept.of(["a"])[0] for _ in range(7)]
    kept.end_episode("a")
    seen += [kept.of(["a"])[0] for _ in range(4)]
    kept.end_episode("nobody")
    numbers = [next(at for at, other in enumerate(seen) if np.array_equal(each, other)) for each in seen]
    assert numbers == [0, 0, 0, 3, 3, 3, 6, 7, 7, 7, 10]


def test_the_noise_of_an_actor_depends_on_no_other_and_no_order() -> None:
    ids: list[ActorId] = [0, 5, "5", "a"]
    alone = {actor_id: [noise().of([actor_id])[0]] for actor_id in ids}
    for actor_id in ids:
        by_itself = noise()
        alone[actor_id] = [by_itself.of([actor_id])[0] for _ in range(4)]
    together = noise()
    for at, order in enumerate([ids, ids[::-1], ids[1:] + ids[:1], ids[2:] + ids[:2]]):
        for actor_id, numbers in zip(order, together.of(order), strict=True):
            assert np.array_equal(numbers, alone[actor_id][at])
    everything = np.array([each for kept in alone.values() for each in kept])
    assert len(np.unique(everything)) == everything.size, "no two draws have anything in common"
    assert not np.isin(noise(seed=8).of(ids), everything).any()
    assert not np.isin(noise().fork(8).of(ids), everything).any()


def test_noise_is_standard_normal() -> None:
    drawn = noise(shape=(50,)).of(range(400))
    assert drawn.mean() == pytest.approx(0, abs=0.03)
    assert drawn.var() == pytest.approx(1, abs=0.04)
    assert np.corrcoef(drawn[:100])[np.triu_indices(100, 1)].mean() == pytest.approx(0, abs=0.01)


def test_noise_goes_on_after_a_load() -> None:
    kept, other = noise(freq=3), noise(freq=3, seed=1)
    for _ in range(4):
        kept.of([0, "x"])
    other.of([0, 9])
    other.load_state_dict(through_file(kept.state_dict()))
    assert difference(through_file(kept.state_dict()), through_file(other.state_dict())) is None
    for ids in (["x"], [0, "x", 9], [9, 0]):
        assert np.array_equal(kept.of(ids), other.of(ids))
    less = noise(freq=1)
    less.load_state_dict(kept.state_dict())
    before = less.of([0])
    assert not np.array_equal(before, less.of([0])), "a smaller sde_sample_freq holds at once"


# The distribution ---------------------------------------------------------------------------------


def test_densities_entropies_and_gradients_are_those_of_torch() -> None:
    torch.manual_seed(0)
    ours = StateDependentGaussian(2, 5, -0.7)
    with torch.no_grad():
        ours.log_std.add_(torch.randn(5, 2) * 0.3)
    means, features = torch.randn(9, 2, requires_grad=True), torch.randn(9, 5)
    actions, by_log_prob, by_entropy = torch.randn(9, 2), torch.randn(9), 0.3
    std = (features.square() @ ours.log_std.exp().square() + 1e-6).sqrt()
    theirs = Independent(Normal(means, std), 1)
    with torch.no_grad():
        found = ours.evaluate(torch.cat([means, features], 1), actions)
    log_probs, entropies = theirs.log_prob(actions), theirs.entropy()
    assert torch.allclose(found.log_probs, log_probs, atol=1e-5)
    assert torch.allclose(found.entropies, entropies, atol=1e-5)
    mean_log_std = std.log().mean().item()
    assert ours.std_at(entropies.mean().item()) == pytest.approx(np.exp(mean_log_std), rel=1e-4)
    loss = (by_log_prob * log_probs + by_entropy * entropies).sum()
    expected = torch.autograd.grad(loss, [means, ours.log_std])
    with torch.no_grad():
        gradients = found.gradients(by_log_prob, by_entropy)
    for mine, its in zip(gradients, expected, strict=True):
        assert its.abs().max() > 0.1
        assert torch.allclose(mine, its, rtol=1e-4, atol=1e-5)


def test_without_features_there_is_no_noise_and_no_infinite_density() -> None:
    ours = StateDependentGaussian(2, 5, 0.0)
    actions, log_probs = ours.draw_with(np.zeros((1, 7), np.float32), np.ones((1, 5, 2)))
    assert actions.tolist() == [[0.0, 0.0]]
    found = ours.evaluate(torch.zeros(1, 7), torch.zeros(1, 2))
    assert found.log_probs.item() == pytest.approx(log_probs[0], rel=1e-5)
    assert found.log_probs.item() == pytest.approx(2 * (np.log(1e3) - 0.919), rel=1e-3)


# The policy ---------------------------------------------------------------------------------------


@pytest.fixture
def make(make_agent: MakeAgent) -> MakeAgent:
    """An agent that explores so, with means that depend much on the observation."""

    def made(**settings: Any) -> PPO:
        given = {"state_dependent_exploration": True, "log_std_init": -1.0, "sde_sample_freq": 2, **settings}
        agent = make_agent("continuous", **given)
        with torch.no_grad():
            agent._network.body.policy.layers[-1].weight.mul_(100)
        return agent

    return made


def acted(policy: Any, rows: Any, ids: Sequence[ActorId] | None) -> np.ndarray:
    """The policy extras of each action."""
    answer = policy.act(rows, EXPLORE) if ids is None else policy.act_for(rows, EXPLORE, ids)
    return np.array(answer[1])


@pytest.mark.parametrize("way", ["numpy", "torch", "linear", "images"])
def test_extras_are_what_the_learner_computes(make: MakeAgent, way: str) -> None:
    if way == "images":
        rows = np.random.default_rng(0).integers(0, 256, (3, 36, 36, 1), np.uint8)
        config = PPOConfig(state_dependent_exploration=True, log_std_init=-1.0)
        policy: Any = PPO(Box(0, 255, (36, 36, 1), np.uint8), Box(-1, 1, (2,)), config).policy()
    else:
        rows = ROWS
        policy = make(
            normalize_observations=way != "linear", **({"hidden_sizes": ()} if way == "linear" else {})
        ).policy()
    if way == "torch":
        policy._small = None
    assert isinstance(policy, ActsForActors)
    network, ids = policy.network, tuple(range(len(rows)))
    with torch.no_grad():
        parameters, values = network(torch.from_numpy(rows))
        weights = network.log_std.exp()
    means, features = parameters[:, :2], parameters[:, 2:]
    expected_noise = copy.deepcopy(policy._noise).of(ids)
    extras = acted(policy, list(rows), ids)
    noise_of = torch.einsum("bf,fa,bfa->ba", features, weights, torch.from_numpy(expected_noise).float())
    assert extras[:, 3:] == pytest.approx((means + noise_of).numpy(), abs=1e-4)
    assert extras[:, 1] == pytest.approx(values.numpy(), abs=1e-5)
    for each in (extras, acted(policy, list(rows), None)):
        chosen = torch.from_numpy(each[:, 3:]).float()
        std = (features.square() @ weights.square() + 1e-6).sqrt()
        log_probs = Independent(Normal(means, std), 1).log_prob(chosen)
        assert each[:, 0] == pytest.approx(log_probs.numpy(), abs=1e-3)
        by_learner = network.distribution.evaluate(parameters, chosen).log_probs.detach()
        assert each[:, 0] == pytest.approx(by_learner.numpy(), abs=1e-3)


def test_an_actor_does_the_same_in_the_same_state_while_it_keeps_its_noise(make: MakeAgent) -> None:
    policy = make().policy()
    one, two, three, four = (acted(policy, [ROWS[0]], ["a"])[0, 3:].tolist() for _ in range(4))
    assert one == two != three == four
    freely = acted(policy, ROWS[[0] * 20], None)[:, 3:]
    assert len(np.unique(freely, axis=0)) == 20, "nobody's noise is kept"


@pytest.mark.parametrize("who", ["actors", "nobody"])
def test_actions_are_spread_as_the_density_says(make: MakeAgent, who: str) -> None:
    policy = make().policy()
    with torch.no_grad():
        parameters, _ = policy.network(torch.from_numpy(ROWS[:1]))
        std = (parameters[:, 2:].square() @ policy.network.log_std.exp().square()).sqrt()[0]
    extras = acted(policy, ROWS[[0] * 8_000], range(8_000) if who == "actors" else None)
    assert extras[:, 3:].mean(axis=0) == pytest.approx(parameters[0, :2].numpy(), abs=0.04)
    assert extras[:, 3:].std(axis=0) == pytest.approx(std.numpy(), rel=0.04)


def test_who_acts_together_changes_no_action(make: MakeAgent) -> None:
    ids: list[ActorId] = ["a", 1, "b", 2, 3]
    together, apart = make().policy(), make().policy()
    for start in range(0, 30, 5):
        rows = ROWS[start : start + 5]
        expected = acted(together, rows, ids)
        order = np.random.default_rng(start).permutation(5)
        for part in (order[:1], order[1:3], order[3:]):
            found = acted(apart, rows[part], [ids[at] for at in part])
            assert found == pytest.approx(expected[part], abs=1e-5)
        if start == 15:
            for policy in (together, apart):
                policy.end_episode("b")  # type: ignore[attr-defined]


def test_exploiting_takes_the_mean_and_leaves_all_as_it_is(make: MakeAgent) -> None:
    agent = make()
    policy: Any = agent.policy()
    before = through_file(agent.state_dict())
    actions, extras = policy.act_for(list(ROWS), ActMode.EXPLOIT, range(30))
    assert extras is None
    assert difference(policy.act(list(ROWS), ActMode.EXPLOIT)[0], actions) is None
    with torch.no_grad():
        means = policy.network(torch.from_numpy(ROWS))[0][:, :2]
    assert np.array(actions) == pytest.approx(means.clip(-0.5, 2.0).numpy(), abs=1e-5)
    assert difference(before, through_file(agent.state_dict())) is None
    policy.act_for(list(ROWS), EXPLORE, range(30))
    policy.act(list(ROWS), EXPLORE)
    after = through_file(agent.state_dict())
    assert {name for name in after if difference(before[name], after[name])} == agent.acting_state


def test_the_exported_policy_acts_alike_and_knows_its_deviations(make: MakeAgent) -> None:
    agent = make(normalize_observations=True)
    rows, module = torch.from_numpy(ROWS), agent.policy_module()
    actions, _ = agent.policy().act(ROWS, ActMode.EXPLOIT)
    assert module(rows).detach().numpy() == pytest.approx(actions, abs=1e-5)
    described = module.distribution(rows)
    extras = torch.from_numpy(acted(agent.policy(), ROWS, range(30)))
    found = Independent(Normal(described["mean"], described["std"]), 1).log_prob(extras[:, 3:].float())
    assert found.detach().numpy() == pytest.approx(extras[:, 0].numpy(), abs=1e-3)


def test_copies_share_the_noise_and_forks_have_their_own(make: MakeAgent) -> None:
    agent = make()
    policy, other = agent.policy(), agent.policy()
    assert isinstance(policy, StateDependentPolicy)
    before = through_file(agent.state_dict())
    forks = [policy.fork(seed) for seed in (1, 1, 2)]
    first, same, another = (acted(fork, ROWS[:3], [0, 1, 2]) for fork in forks)
    assert np.array_equal(first, same)
    assert not np.isin(another[:, 3:], first[:, 3:]).any()
    sent = pickle.loads(pickle.dumps(forks[0]))
    for each in (forks[0], sent):
        each.end_episode(1)
    assert np.array_equal(acted(sent, ROWS[:3], [0, 1, 2]), acted(forks[0], ROWS[:3], [0, 1, 2]))
    assert difference(before, through_file(agent.state_dict())) is None
    one, two, three = (acted(each, [ROWS[0]], [0])[0, 3:].tolist() for each in (policy, other, policy))
    assert one == two != three


def test_the_agent_ends_the_noise_with_the_episode(make: MakeAgent, play: Play) -> None:
    for way in ("observe", "observe_batch"):
        agent = make(sde_sample_freq=50)
        policy = agent.policy()
        step = play(agent, 1)[0]
        before = acted(policy, [ROWS[0]] * 3, ["a", "b", "c"])[:, 3:]
        statuses = [EpisodeStatus.TERMINATED, EpisodeStatus.CONTINUING, EpisodeStatus.TRUNCATED]
        steps = [
            replace(step, status=status, actor_id=who) for status, who in zip(statuses, "abc", strict=True)
        ]
        getattr(agent, way)(steps if way == "observe" else as_batch(steps))
        after = acted(policy, [ROWS[0]] * 3, ["a", "b", "c"])[:, 3:]
        assert (before != after).any(axis=1).tolist() == [True, False, True]


# Learning -----------------------------------------------------------------------------------------


def test_convolutions_learn_beside_the_noise() -> None:
    """A minibatch's gradient beside autograd's."""
    space = Box(0, 255, (36, 36, 1), np.uint8)
    config = PPOConfig(
        rollout_steps=6,
        batch_size=6,
        n_epochs=1,
        max_grad_norm=None,
        state_dependent_exploration=True,
        normalize_advantages=False,
        ent_coef=0.1,
    )
    agent = PPO(space, Box(-1, 1, (2,)), config, seed=1)
    body, log_std = (
        copy.deepcopy(agent._network.body),
        agent._network.log_std.detach().clone().requires_grad_(),
    )
    rows = np.random.default_rng(0).integers(0, 256, (7, 36, 36, 1), np.uint8)
    actions, extras = agent.policy().act(rows[:6], EXPLORE)
    statuses = [EpisodeStatus.CONTINUING] * 5 + [EpisodeStatus.TERMINATED]
    agent.observe(
        [Experience(rows[at], actions[at], 1.0, rows[at + 1], statuses[at], 0, extras[at]) for at in range(6)]
    )
    samples, _ = agent._samples()
    metrics = agent.learn()
    assert metrics is not None
    parameters, values = body(samples.inputs)
    std = (parameters[:, 2:].square() @ log_std.exp().square() + 1e-6).sqrt()
    theirs = Independent(Normal(parameters[:, :2], std), 1)
    ratios = (theirs.log_prob(samples.actions) - samples.log_probs).exp()
    loss = -(ratios * samples.advantages).mean() - 0.1 * theirs.entropy().mean()
    (loss + 0.5 * (values - samples.returns).square().mean()).backward()
    expected = [log_std.grad, *(parameter.grad for parameter in body.parameters())]
    found = [agent._network.log_std.grad, *(parameter.grad for parameter in agent._network.body.parameters())]
    for mine, its in zip(found, expected, strict=True):
        assert torch.allclose(mine, its, rtol=1e-3, atol=1e-5)
    assert metrics["std"] == pytest.approx(std.log().mean().exp().item(), rel=1e-3)


def pendulum() -> Any:
    return make_gym("Pendulum-v1", max_episode_steps=13)


def pendulum_agent(seed: int = 0) -> PPO:
    env = pendulum()
    config = PPOConfig(
        rollout_steps=32,
        batch_size=16,
        n_epochs=2,
        hidden_sizes=(8,),
        sde_sample_freq=5,
        state_dependent_exploration=True,
    )
    return PPO(env.observation_space, env.action_space, config, seed=seed)


async def trained(run: TrainingRun, agent: PPO, max_steps: int) -> PPO:
    session = TrainingSession(agent, run, max_steps=max_steps, lockstep=True, checkpoint_freq=60)
    async with session:
        await run_actors(session, pendulum, 3, seed=1)
    return agent


@pytest.mark.anyio
async def test_in_lockstep_a_resume_goes_on_with_the_noise_of_each_actor(tmp_path: Path) -> None:
    whole = await trained(await TrainingRun.create("whole", root=tmp_path), pendulum_agent(), 200)
    run = await TrainingRun.create("pieces", root=tmp_path)
    await trained(run, pendulum_agent(), 83)
    for name in ("step_83.pt", "latest.pt"):  # what is behind step 60 is learned again, and acted again
        (run.directory / "checkpoints" / name).unlink()
    resumed = pendulum_agent(seed=9)
    await trained(await TrainingRun.resume(run.directory), resumed, 200)
    assert difference(state_of(whole), state_of(resumed)) is None
    assert whole.opt_steps == 6


@pytest.mark.anyio
@pytest.mark.parametrize("place", ["threads", "tasks"])
async def test_actors_with_copies_explore_with_forks(place: Any) -> None:
    agent = pendulum_agent()
    async with TrainingSession(agent, max_steps=96) as session:
        await run_actors(session, pendulum, 2, seed=1, place=place, sync_interval=1)
    assert agent.opt_steps == 3
    assert agent.state_dict()["noise"]["actor_ids"] == [], "forks have the noise of their actors"


# Refused ------------------------------------------------------------------------------------------


def test_it_is_refused_where_there_is_nothing_to_add_noise_to() -> None:
    config = PPOConfig(state_dependent_exploration=True)
    with pytest.raises(ConfigError, match="adds noise to the actions of a Box"):
        PPO(BOX, Discrete(2), config)
    with pytest.raises(ConfigError, match="stoker knows of its own networks only"):
        PPO(BOX, Box(-1, 1, (2,)), config, network=nn.Identity())


def test_a_state_fits_only_with_the_same_exploration(make: MakeAgent, make_agent: MakeAgent) -> None:
    with pytest.raises(ConfigError, match="state_dependent_exploration does not fit: saved True, here False"):
        make_agent("continuous").load_state_dict(make().state_dict())


def test_noise_that_is_loaded_is_kept_no_longer_than_is_asked_for_now() -> None:
    saved, loaded = ActorNoise((2,), 10, 7), ActorNoise((2,), 3, 8)
    before = saved.of(["a"]).tolist()
    loaded.load_state_dict(saved.state_dict())
    drawn = [loaded.of(["a"]).tolist() for _ in range(4)]
    assert drawn[:3] == [before] * 3
    assert drawn[3] != before
