"""Action masks: no agent takes a forbidden action, and each learns of the allowed ones alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Categorical

from stoker import (
    BC,
    DQN,
    IQN,
    PPO,
    ActMode,
    BCConfig,
    DiscreteCQL,
    DiscreteCQLConfig,
    DQNConfig,
    EpisodeStatus,
    Experience,
    FailureLimit,
    InvalidExperience,
    IQNConfig,
    PPOConfig,
    TrainingRun,
    TrainingSession,
    run_actors,
    run_vector_actors,
)
from stoker.agents.dqn.policy import epsilon_greedy, softmax_actions
from stoker.agents.iqn.agent import quantile_targets
from stoker.replay import Batch
from stoker.session.replaying import replay_run
from stoker.testing.agent_driving import as_batch

SEEN = spaces.Box(-1, 1, (3,), np.float32)
ONE = spaces.Discrete(5, start=-2)
SEVERAL = spaces.MultiDiscrete([[2, 4], [3, 2]], start=[[-1, 0], [5, 0]])
BINARY = spaces.MultiBinary(3)
COUNTS = {id(ONE): (5,), id(SEVERAL): (2, 4, 3, 2), id(BINARY): (2, 2, 2)}


def masked(space: Any) -> spaces.Dict:
    mask = spaces.MultiBinary(sum(COUNTS[id(space)]))
    return spaces.Dict({"position": SEEN, "action_mask": mask})


class Strict(gymnasium.Env[Any, Any]):
    """Allows other actions at each step, none after the last one, and raises if a forbidden one is taken."""

    def __init__(self, space: Any = ONE, n_steps: int = 9) -> None:
        self.action_space, self.observation_space = space, masked(space)
        self._counts, self._n_steps = COUNTS[id(space)], n_steps
        self._starts = getattr(space, "start", 0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._steps = 0
        return self._shown(), {}

    def step(self, action: Any) -> Any:
        indices = np.ravel(np.asarray(action) - self._starts)
        places = indices + np.cumsum([0, *self._counts[:-1]])
        if not self._mask[places].all():
            raise RuntimeError(f"{action} is forbidden by {self._mask}")
        self._steps += 1
        is_over = self._steps == self._n_steps
        return self._shown(forbids_all=is_over), float(indices.sum()), is_over, False, {}

    def _shown(self, *, forbids_all: bool = False) -> dict[str, Any]:
        parts = []
        for count in self._counts:
            part = np.zeros(count, np.int8)
            part[self.np_random.choice(count, self.np_random.integers(1, count + 1), replace=False)] = 1
            parts.append(part * (not forbids_all))
        self._mask = np.concatenate(parts)
        position = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return {"position": position, "action_mask": self._mask.copy()}


def dqn(**settings: Any) -> DQN:
    return DQN(masked(ONE), ONE, DQNConfig(**{"learning_starts": 64, "hidden_sizes": (32,), **settings}))


def iqn() -> IQN:
    return IQN(masked(ONE), ONE, IQNConfig(learning_starts=64, hidden_sizes=(32, 32)))


def cql(**settings: Any) -> DiscreteCQL:
    small = {"learning_starts": 64, "hidden_sizes": (32,)}
    return DiscreteCQL(masked(ONE), ONE, DiscreteCQLConfig(**{**small, **settings}))


def bc(space: Any = ONE) -> BC:
    return BC(masked(space), space, BCConfig(batch_size=64, hidden_sizes=(32,)))


def ppo(space: Any = ONE, **settings: Any) -> PPO:
    small = {"rollout_steps": 64, "n_epochs": 3, "hidden_sizes": (32,)}
    return PPO(masked(space), space, PPOConfig(**{**small, **settings}))


AGENTS: dict[str, Any] = {
    "dqn": (dqn, ONE),
    "dqn-softmax": (lambda: dqn(exploration="softmax", n_step=3, dueling=True), ONE),
    "iqn": (iqn, ONE),
    "ppo": (ppo, ONE),
    "ppo-several": (lambda: ppo(SEVERAL, normalize_observations=True), SEVERAL),
    "ppo-binary": (lambda: ppo(BINARY), BINARY),
    "cql": (cql, ONE),
    "bc": (bc, ONE),
    "bc-several": (lambda: bc(SEVERAL), SEVERAL),
}


ASYNCIO = ("asyncio", {"use_uvloop": False})
on_asyncio = pytest.mark.parametrize("anyio_backend", [ASYNCIO], ids=["asyncio"], indirect=True)


@on_asyncio
@pytest.mark.anyio
@pytest.mark.parametrize("way", ["alone", "vectorized"])
@pytest.mark.parametrize("name", AGENTS)
async def test_no_forbidden_action_is_taken(name: str, way: str) -> None:
    make, space = AGENTS[name]
    agent, once = make(), FailureLimit(failures=1)
    async with TrainingSession(agent, max_steps=300, opt_interval=4) as session:
        if way == "alone":
            await run_actors(session, lambda: Strict(space), 4, seed=0, limit=once)
        else:
            mode = gymnasium.vector.AutoresetMode.SAME_STEP
            envs = [lambda: Strict(space)] * 4
            vector = lambda: gymnasium.vector.SyncVectorEnv(envs, autoreset_mode=mode)  # noqa: E731
            await run_vector_actors(session, vector, seed=0, limit=once)
    assert agent.total_steps == 300
    assert agent.opt_steps > 3
    policy, env = agent.policy(), Strict(space)
    observation, _ = env.reset(seed=3)
    module, acted = agent.policy_module(), []
    for _ in range(100):
        [action], _ = policy.act([observation], ActMode.EXPLOIT)
        parts = [torch.as_tensor(observation[key])[None] for key in env.observation_space]
        assert np.array_equal(module(*parts)[0].numpy(), action)
        acted.append(np.array(action).tolist())
        observation, _, is_over, _, _ = env.step(action)
        if is_over:
            observation, _ = env.reset()
    assert len({str(action) for action in acted}) > 3


def played(agent: Any, count: int, space: Any = ONE) -> list[Experience]:
    env, policy = Strict(space), agent.policy()
    found: list[Experience] = []
    observation, _ = env.reset(seed=5)
    for _ in range(count):
        [action], extras = policy.act([observation], ActMode.EXPLORE)
        following, reward, is_over, _, _ = env.step(action)
        status = EpisodeStatus.TERMINATED if is_over else EpisodeStatus.CONTINUING
        extra = None if extras is None else extras[0]
        found.append(Experience(observation, action, reward, following, status, 0, extra))
        observation = env.reset()[0] if is_over else following
    return found


# Learning -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [ONE, SEVERAL], ids=["one", "several"])
def test_ppo_learns_by_the_probabilities_of_the_allowed_actions(space: Any) -> None:
    counts = COUNTS[id(space)]
    one_step = {"rollout_steps": 126, "batch_size": 126, "n_epochs": 1, "max_grad_norm": None}
    agent = ppo(space, normalize_advantages=False, gae_lambda=1.0, ent_coef=0.1, **one_step)
    with torch.no_grad():
        agent._network.body.policy.layers[-1].weight.mul_(100)  # so that the policy is not uniform
    experiences = played(agent, 126, space)
    body: Any = agent._network.body
    seen = torch.as_tensor(np.stack([each.observation["position"] for each in experiences]))
    masks = torch.as_tensor(np.stack([each.observation["action_mask"] for each in experiences])) == 1
    extras = torch.as_tensor(np.stack([each.policy_extras for each in experiences])).float()
    logits, values = body.policy(seen), body.value(seen)[:, 0]
    log_probs, entropies = torch.zeros(126), torch.zeros(126)
    for place, part in enumerate(logits.masked_fill(~masks, -1e8).split(counts, dim=1)):
        number = Categorical(logits=part)
        log_probs = log_probs + number.log_prob(extras[:, 3 + place])
        entropies = entropies + number.entropy()
    assert torch.allclose(log_probs, extras[:, 0], atol=1e-4), "it acted by other probabilities"
    returns, following = [], 0.0
    for each in reversed(experiences):  # whole episodes
        following = each.reward + agent.config.gamma * following * (not each.status.is_done)
        returns.append(following)
    returns = torch.tensor(returns[::-1])
    gains = log_probs.sub(extras[:, 0]).exp() * (returns - extras[:, 1])
    loss = -gains.mean() + agent.config.vf_coef * (values - returns).square().mean()
    (loss - 0.1 * entropies.mean()).backward()
    expected = torch.cat([weight.grad.flatten() for weight in body.parameters()])
    agent.observe(experiences)
    metrics = agent.learn()
    assert metrics is not None
    assert metrics["entropy"] == pytest.approx(entropies.mean().item(), abs=1e-4)
    found = torch.cat([weight.grad.flatten() for weight in body.parameters()])
    assert expected.abs().max() > 0.1
    assert torch.allclose(found, expected, rtol=1e-3, atol=2e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("make", [dqn, cql])
def test_targets_are_of_the_best_allowed_next_action(
    make: Callable[..., DQN | DiscreteCQL], double: bool
) -> None:
    agent = make(double=double, gamma=0.9)
    with torch.no_grad():
        for weight in agent._target.network.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)), alpha=0.3)
    agent.observe(played(agent, 90))
    batch: Batch = agent.replay.sample(64)
    network, slow = agent._network, agent._target.network
    with torch.no_grad():
        taken = network(batch.observations).gather(1, agent._indices(batch)[:, None])[:, 0]
        targets = taken - agent._write_gradients(batch, None).errors
    assert torch.isfinite(targets).all(), "the last masks of episodes forbid everything"
    assert (batch.bootstrap_masks == 0).any()
    differs = 0
    for row in range(64):
        allowed = batch.next_observations[row, -5:] == 1
        ended = not batch.bootstrap_masks[row]
        assert ended == (not allowed.any())
        by_target, by_online = slow(batch.next_observations)[row], network(batch.next_observations)[row]
        chosen_by = by_online if double else by_target
        best = max((i for i in range(5) if allowed[i]), key=lambda i: chosen_by[i], default=0)
        differs += best != int(chosen_by.argmax())
        expected = batch.rewards[row] + (0.0 if ended else 0.9 * by_target[best])
        assert float(targets[row]) == pytest.approx(float(expected), abs=1e-5)
    assert differs > 10


def test_quantile_targets_are_of_the_best_allowed_next_action() -> None:
    agent = iqn()
    agent.observe(played(agent, 90))
    batch: Batch = agent.replay.sample(64)
    network = agent._network
    fractions = torch.rand((7, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        targets = quantile_targets(network, network, batch, fractions, 0.9, double=False)
        quantiles = network.run(batch.next_observations, fractions).quantiles
        values = network(batch.next_observations)
    assert torch.isfinite(targets).all()
    for row in range(64):
        allowed = (batch.next_observations[row, -5:] == 1).nonzero()[:, 0].tolist()
        best = max(allowed, key=lambda i: values[row, i], default=0)
        following = 0.9 * batch.bootstrap_masks[row] * quantiles[:, row, best]
        assert torch.allclose(targets[:, row], batch.rewards[row] + following, atol=1e-5)


# Exploring ----------------------------------------------------------------------------------------


def test_explored_actions_are_drawn_from_the_allowed_ones_alike() -> None:
    allowed = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 0, 0]] * 9_000, bool)
    values = np.where(allowed, np.arange(5.0), -np.inf)
    actions = epsilon_greedy(values, 0.6, np.random.default_rng(0), allowed)
    shares = np.bincount(actions[::2], minlength=5) / 9_000
    assert shares == pytest.approx([0, 0.2, 0.2, 0, 0.6], abs=0.02)
    assert set(actions[1::2]) == {0}
    soft = softmax_actions(values, 2.0, np.random.default_rng(0))
    weights = np.exp(np.array([-np.inf, 1, 2, -np.inf, 4]) / 2.0)
    assert np.bincount(soft[::2], minlength=5) / 9_000 == pytest.approx(weights / weights.sum(), abs=0.02)
    assert set(soft[1::2]) == {0}


@pytest.mark.parametrize("name", AGENTS)
def test_grouping_does_not_change_what_is_explored(name: str) -> None:
    make, space = AGENTS[name]
    observations = [each.observation for each in played(make(), 40, space)]
    together = make().policy().act(observations, ActMode.EXPLORE)[0]
    policy, apart = make().policy(), []
    for start, stop in itertools.pairwise((0, 1, 2, 20, 40)):
        apart += list(policy.act(observations[start:stop], ActMode.EXPLORE)[0])
    assert np.array_equal(apart, together)


# At the door --------------------------------------------------------------------------------------


@on_asyncio
@pytest.mark.anyio
async def test_a_mask_that_forbids_everything_names_the_actor_and_the_step() -> None:
    agent = dqn()
    async with TrainingSession(agent) as session:
        *first, last = played(agent, 3)
        await session.observe_many(first)
        nothing = {**last.observation, "action_mask": np.zeros(5, np.int8)}
        with pytest.raises(InvalidExperience, match=r"'me', step 2: observation\['action_mask'\] forbids"):
            await session.act(nothing, actor_id="me")
        going_on = Experience(last.observation, last.action, 0.0, nothing, EpisodeStatus.CONTINUING, "me")
        with pytest.raises(InvalidExperience, match=r"actor 'me'.*next_observation\['action_mask'\] forbids"):
            await session.observe(going_on)
    with pytest.raises(InvalidExperience, match=r"\['action_mask'\] of row 1 forbids every action"):
        agent.policy().act([last.observation, nothing], ActMode.EXPLOIT)
    for status in (EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED):
        agent.check_experience(Experience(last.observation, last.action, 0.0, nothing, status))


@pytest.mark.parametrize("space", [ONE, SEVERAL, BINARY], ids=["one", "several", "binary"])
def test_a_forbidden_action_is_refused(space: Any) -> None:
    agent = ppo(space)
    experiences = [
        Experience(each.observation, each.action, each.reward, each.next_observation, each.status)
        for each in played(agent, 20, space)
    ]
    assert agent.check_batch(as_batch(experiences))
    last = slice(-COUNTS[id(space)][-1], None)  # the choices of the last number
    taken = next(each for each in experiences if not each.observation["action_mask"][last].all())
    forbidden = int(taken.observation["action_mask"][last].argmin())
    action = np.array(taken.action)
    action.reshape(-1)[-1] = forbidden + np.ravel(getattr(space, "start", 0))[-1]
    action = action if action.shape else int(action)
    wrong = Experience(taken.observation, action, 0.0, taken.next_observation, taken.status, "me")
    with pytest.raises(InvalidExperience, match=r"actor 'me': action=.*is forbidden by its observation\["):
        agent.check_experience(wrong)
    assert not agent.check_batch(as_batch([*experiences, wrong]))


@on_asyncio
@pytest.mark.anyio
async def test_a_masked_training_is_learned_again_from_its_journal_bit_for_bit(tmp_path: Path) -> None:
    run = await TrainingRun.create("masked", root=tmp_path)
    async with TrainingSession(dqn(), run, max_steps=200, checkpoint_freq=100, opt_interval=2) as session:
        await run_actors(session, Strict, 3, seed=0, limit=FailureLimit(failures=1))
    resumed = dqn()
    run = await TrainingRun.resume(run.directory)
    async with TrainingSession(resumed, run, max_steps=400, checkpoint_freq=100, opt_interval=2) as session:
        await run_actors(session, Strict, 3, seed=0, limit=FailureLimit(failures=1))
    replayed = replay_run(await TrainingRun.open(run.directory), dqn())
    assert resumed.opt_steps > 150
    assert {comparison.differences for comparison in replayed.comparisons} == {()}
