"""SAC and TD3 step as the textbook says; agents with twin critics explore, learn and count as they should."""

from __future__ import annotations

import copy
import math
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform
from twin_textbook import ACTIONS, GAMMA, RATE, SEEN, SMALL, Adam, Draw, Textbook, experiences, packed

from stoker.agents import AWAC, IQL, SAC, TD3, AWACConfig, IQLConfig, SACConfig, TD3Config
from stoker.errors import ConfigError, TrainingDiverged
from stoker.types import ActMode


def drawn(outputs: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """SAC's actions and their log-probabilities, of an actor's outputs."""
    means, log_stds = outputs.chunk(2, dim=1)
    stds = log_stds.clamp(-20, 2).exp()
    transform = TanhTransform(cache_size=1)  # remembers what it squashed: its inverse would lose digits
    squashed = TransformedDistribution(Independent(Normal(means, stds), 1), [transform])
    actions = transform(means + stds * noise)
    return actions, squashed.log_prob(actions)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.3},
        {"prioritized": True, "n_step": 2},
        {"target_entropy": 0.5, "hidden_sizes": ()},
    ],
    ids=["learned", "fixed", "prioritized", "linear"],
)
def test_steps_of_sac_equal_the_textbook(settings: dict[str, Any]) -> None:
    agent = SAC(SEEN, ACTIONS, SACConfig(**{**SMALL, **settings}, initial_temperature=0.7), seed=3)
    with torch.no_grad():  # some of the standard deviations are beyond their limit, others are not
        agent._network.mlp.weights[-1][1].copy_(torch.tensor([0.1, -0.2, 2.0, -1.0]))
    agent.observe(experiences(40))
    book, fixed = Textbook(agent), settings.get("temperature")
    log_alpha = torch.tensor(math.log(0.7 if fixed is None else fixed), requires_grad=True)
    alpha_adam = Adam([log_alpha], RATE if fixed is None else 0.0)
    for _ in range(3):
        draw, alpha = Draw(agent), log_alpha.exp().item()
        actions, log_probs = drawn(book.actor(draw.seen), book.draw(16))
        with torch.no_grad():
            next_actions, next_log_probs = drawn(book.actor(draw.following), book.draw(16))
            next_values = book.values(book.targets, draw.following, next_actions).amin(dim=1)
        critic_loss, errors = book.critic_loss(draw, next_values - alpha * next_log_probs)
        least = book.values(book.critics, draw.seen, actions).amin(dim=1)
        actor_loss = (alpha * log_probs - least).mean()
        temperature_loss = -(log_alpha * (log_probs.detach() + settings.get("target_entropy", -2.0))).mean()
        book.differentiate(critic_loss, book.critics)
        book.differentiate(actor_loss, book.actor)
        (log_alpha.grad,) = torch.autograd.grad(temperature_loss, [log_alpha])

        metrics = agent.learn()
        assert metrics is not None
        expected = {"loss": critic_loss, "actor_loss": actor_loss, "entropy": -log_probs.mean()}
        for name, value in expected.items():
            assert metrics[name] == pytest.approx(value.item(), rel=1e-4)
        assert metrics["temperature"] == pytest.approx(alpha)
        book.check_gradients(agent)
        for adam in (book.critic_adam, book.actor_adam, alpha_adam):
            adam.step()
        book.follow(book.targets, book.critics)
        book.check_weights(agent)
        assert agent.exploration_rate == pytest.approx(log_alpha.exp().item())
        draw.check_priorities(errors)


@pytest.mark.parametrize("settings", [{}, {"prioritized": True, "n_step": 2}], ids=["uniform", "prioritized"])
def test_steps_of_td3_equal_the_textbook(settings: dict[str, Any]) -> None:
    config = TD3Config(**SMALL, target_noise=0.4, target_noise_limit=0.3, **settings)
    agent = TD3(SEEN, ACTIONS, config, seed=3)
    with torch.no_grad():  # noise leads beyond the bounds, and the critics err in opposite directions
        for actor in (agent._network, agent._target_actor.network):
            actor.mlp.weights[-1][1].copy_(torch.tensor([1.2, -1.2]))
        for critic, bias in zip(agent._critics.mlps, (3.0, -3.0), strict=True):
            critic.weights[-1][1].fill_(bias)
    agent.observe(experiences(40))
    book = Textbook(agent)
    for step in range(1, 6):
        draw = Draw(agent)
        with torch.no_grad():
            noise = (0.4 * book.draw(16)).clamp(-0.3, 0.3)
            next_actions = (book.target_actor(draw.following).tanh() + noise).clamp(-1, 1)
            next_values = book.values(book.targets, draw.following, next_actions).amin(dim=1)
        critic_loss, errors = book.critic_loss(draw, next_values)
        actor_loss = -book.values(book.critics, draw.seen, book.actor(draw.seen).tanh())[:, 0].mean()
        book.differentiate(critic_loss, book.critics)
        if is_due := step % 2 == 0:
            book.differentiate(actor_loss, book.actor)

        metrics = agent.learn()
        assert metrics is not None
        assert metrics["loss"] == pytest.approx(critic_loss.item(), rel=1e-4)
        assert metrics.get("actor_loss") == (pytest.approx(actor_loss.item(), rel=1e-4) if is_due else None)
        book.check_gradients(agent, with_actor=is_due)
        book.critic_adam.step()
        if is_due:
            book.actor_adam.step()
            book.follow(book.targets, book.critics)
            book.follow(book.target_actor, book.actor)
        book.check_weights(agent)
        assert torch.allclose(agent._target_actor.weights.values, packed(book.target_actor), atol=1e-5)
        draw.check_priorities(errors)


KINDS = [(SAC, SACConfig), (TD3, TD3Config), (IQL, IQLConfig), (AWAC, AWACConfig)]


def test_without_tau_td3_copies_its_targets_at_each_interval_of_delayed_steps() -> None:
    config = TD3Config(**{**SMALL, "tau": None}, target_update_interval=2, policy_delay=2)
    agent = TD3(SEEN, ACTIONS, config, seed=3)
    agent.observe(experiences(40))
    copied: list[bool] = []
    for _ in range(8):
        agent.learn()
        copied.append(torch.equal(agent._target.weights.values, agent._critic_weights.values))
    assert copied == [False, False, False, True] * 2


def packs_of(agent: Any) -> list[Any]:
    """The packed weights that are optimized."""
    value = [agent._value_weights] if isinstance(agent, IQL) else []
    return [agent._critic_weights, agent._weights, *value]


@pytest.mark.parametrize(("kind", "config_type"), KINDS)
def test_actions_are_uniform_until_learning_starts_and_the_actors_from_then_on(
    kind: Any, config_type: Any
) -> None:
    agent = kind(SEEN, ACTIONS, config_type(**{**SMALL, "learning_starts": 30}))
    with torch.no_grad():
        agent._network.mlp.weights[-1][1][:2] = -20.0  # the actor's own actions are at the lower bounds
        if isinstance(agent, IQL | AWAC):
            agent._network.log_stds.fill_(-3.0)
    policy, row = agent.policy(), np.zeros((400, 2, 2), np.float32)
    agent.observe(experiences(29))
    agent.publish(policy)
    shares = (policy.act(row, ActMode.EXPLORE)[0] - ACTIONS.low) / (ACTIONS.high - ACTIONS.low)
    assert (
        np.abs(np.quantile(shares, [0, 0.25, 0.5, 0.75, 1], axis=0).T - [0, 0.25, 0.5, 0.75, 1]).max() < 0.1
    )
    assert (policy.act(row, ActMode.EXPLOIT)[0] == ACTIONS.low).all()
    assert agent.learn() is None
    agent.observe(experiences(1))
    agent.publish(policy)
    assert policy.act(row, ActMode.EXPLORE)[0].max(axis=0) == pytest.approx(ACTIONS.low, abs=1.0)
    assert agent.learn() is not None


def test_td3_explores_by_noise_within_the_bounds() -> None:
    agent = TD3(SEEN, ACTIONS, TD3Config(learning_starts=0, exploration_noise=0.5))
    policy, rows = agent.policy(), np.zeros((4_000, 2, 2), np.float32)
    [best] = policy.act(rows[:1], ActMode.EXPLOIT)[0]
    explored = policy.act(rows, ActMode.EXPLORE)[0]
    assert (explored >= ACTIONS.low).all()
    assert (explored <= ACTIONS.high).all()
    assert (explored == ACTIONS.high).any(axis=0).all()
    assert np.median(explored, axis=0) == pytest.approx(best, abs=0.05)


@pytest.mark.parametrize(("kind", "config_type"), KINDS)
def test_the_grouping_of_rows_changes_no_explored_action(kind: Any, config_type: Any) -> None:
    rows = np.random.default_rng(1).normal(size=(6, 2, 2)).astype(np.float32)
    for learning_starts in (0, 1):
        config = config_type(**{**SMALL, "learning_starts": learning_starts})
        together, apart = (kind(SEEN, ACTIONS, config, seed=2).policy() for _ in range(2))
        actions = together.act(list(rows), ActMode.EXPLORE)[0]
        singles = [apart.act([row], ActMode.EXPLORE)[0][0] for row in rows]
        np.testing.assert_allclose(actions, singles, rtol=1e-5)


@pytest.mark.parametrize(("kind", "config_type"), KINDS)
def test_an_optimization_step_is_as_many_gradient_steps_as_asked_for(kind: Any, config_type: Any) -> None:
    by_one, by_three = (
        kind(SEEN, ACTIONS, config_type(**SMALL, gradient_steps=steps), seed=5) for steps in (1, 3)
    )
    for agent in (by_one, by_three):
        agent.observe(experiences(30))
    for _ in range(2):
        expected = [by_one.learn() for _ in range(3)][-1]
        assert by_three.learn() == expected
    assert (by_one.opt_steps, by_three.opt_steps) == (6, 2)
    assert torch.equal(by_one._weights.values, by_three._weights.values)
    assert torch.equal(by_one._target.weights.values, by_three._target.weights.values)


def test_a_learned_temperature_brings_the_entropy_to_its_target() -> None:
    agent = SAC(SEEN, ACTIONS, SACConfig(**SMALL, target_entropy=-1.0))
    agent.observe(experiences(60))
    entropies = [(agent.learn() or {})["entropy"] for _ in range(500)]
    assert abs(entropies[0] - -1.0) > 1.0
    assert np.mean(entropies[-100:]) == pytest.approx(-1.0, abs=0.4)
    assert agent.episode_extras(0)["temperature"] == agent.exploration_rate


def test_a_fixed_temperature_stays_and_a_resume_may_fix_a_learned_one() -> None:
    learned, fixed = (SAC(SEEN, ACTIONS, SACConfig(**SMALL, temperature=value)) for value in (None, 0.25))
    learned.observe(experiences(30))
    for _ in range(5):
        learned.learn()
    assert learned.exploration_rate != 1.0
    fixed.load_state_dict(learned.state_dict())
    fixed.observe(experiences(30))
    for _ in range(5):
        fixed.learn()
    assert fixed.exploration_rate == 0.25


@pytest.mark.parametrize(("kind", "config_type"), KINDS)
@pytest.mark.parametrize("part", ["critic", "actor"])
def test_a_step_that_diverges_changes_no_weight(kind: Any, config_type: Any, part: str) -> None:
    extra = {"policy_delay": 1} if kind is TD3 else {}
    agent = kind(SEEN, ACTIONS, config_type(**SMALL, **extra))
    agent.observe(experiences(30))
    agent.learn()
    broken = agent._target.network.mlps[0] if part == "critic" else agent._network.mlp
    with torch.no_grad():
        broken.weights[-1][1].fill_(torch.nan)
    packs = [*packs_of(agent), agent._target.weights]
    before = [pack.values.clone() for pack in packs]
    with pytest.raises(
        TrainingDiverged, match=f"{agent.name} diverged: optimization step 2 has the loss nan"
    ):
        agent.learn()
    for pack, values in zip(packs, before, strict=True):
        torch.testing.assert_close(pack.values, values, rtol=0, atol=0, equal_nan=True)
    assert agent.opt_steps == 1


@pytest.mark.parametrize(("kind", "config_type"), KINDS)
def test_gradients_are_limited_each_network_by_itself(kind: Any, config_type: Any) -> None:
    agent = kind(SEEN, ACTIONS, config_type(**SMALL, max_grad_norm=0.01))
    agent.observe(experiences(30))
    for _ in range(2):
        agent.learn()
    for pack in packs_of(agent):
        assert pack.gradients.norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(("kind", "config_type"), KINDS)
def test_states_of_other_networks_are_refused(kind: Any, config_type: Any) -> None:
    agent = kind(SEEN, ACTIONS, config_type(**SMALL))
    other = kind(SEEN, ACTIONS, config_type(**{**SMALL, "hidden_sizes": (24,)}))
    with pytest.raises(ConfigError, match=r"hidden_sizes does not fit: saved \(24,\).*here \(24, 8\)"):
        agent.load_state_dict(other.state_dict())
    assert agent.with_settings({**msgspec.to_builtins(agent.config), "gamma": 0.5}).config.gamma == 0.5


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            Discrete(3),
            r"SAC cannot act in Discrete\(3\).*use DQN or IQN .*\(--agent dqn or iqn or ppo or cql\)",
        ),
        (Box(-np.inf, np.inf, (2,)), r"number 0 .* from -inf to inf: .*TransformAction\(env, .*ClipAction"),
        (Box(np.float32([0, 0]), np.float32([1, np.inf])), "number 1 .* from 0 to inf"),
    ],
)
def test_spaces_without_finite_bounds_are_refused(space: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SAC(SEEN, space)


IMAGES = {
    "image": Box(0, 255, (2, 6, 6), np.uint8),
    "several": Dict(
        {"field": Box(0, 255, (6, 6, 2), np.uint8), "mode": Discrete(3), "speed": Box(-1, 1, (2,))}
    ),
}


@pytest.mark.parametrize("observed", IMAGES)
@pytest.mark.parametrize(("kind", "config_type"), KINDS)
def test_encoders_get_autograds_gradients(kind: Any, config_type: Any, observed: str) -> None:
    space: Any = IMAGES[observed]
    space.seed(0)
    extra = {"policy_delay": 1} if kind is TD3 else {}
    agent = kind(space, ACTIONS, config_type(**SMALL, normalize_observations=observed == "several", **extra))
    for experience in experiences(40):
        changed = {"observation": space.sample(), "next_observation": space.sample()}
        agent.observe([msgspec.structs.replace(experience, **changed)])
    batch, noise = copy.deepcopy(agent.replay).sample(16), copy.deepcopy(agent._noise)
    actor, critics, target = agent._network, agent._critics, agent._target.network
    seen, following = actor.inputs(batch.observations), actor.inputs(batch.next_observations)

    def draw() -> torch.Tensor:
        return torch.from_numpy(noise.standard_normal((16, 2), np.float32))

    def values(of: Any, inputs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        features = of.encoder(inputs)
        return torch.cat([mlp(torch.cat([features, actions], dim=1)) for mlp in of.mlps], dim=1)

    value_loss = torch.zeros(())
    if kind in (IQL, AWAC):
        own = Textbook.scaled(batch.actions)
        policy = Normal(actor(batch.observations).tanh(), actor.stds())
        if kind is IQL:
            of_state = agent._value
            next_values, worth = (of_state.mlp(of_state.encoder(each))[:, 0] for each in (following, seen))
            advantages = values(target, seen, own).amin(dim=1) - worth
            value_loss = 0.5 * ((0.7 - (advantages < 0).float()).abs() * advantages.square()).mean()
            weights = (3 * advantages).exp().clamp(max=100).detach()
        else:
            next_means = actor(batch.next_observations).tanh()
            next_actions = (next_means + actor.stds() * draw()).clamp(-1, 1)
            next_values = values(target, following, next_actions).amin(dim=1)
            drawn_actions = (policy.mean + actor.stds() * draw()).clamp(-1, 1)
            worth = values(critics, seen, drawn_actions).amin(dim=1)
            weights = 16 * (values(critics, seen, own).amin(dim=1) - worth).softmax(0).detach()
        actor_loss = -(weights * policy.log_prob(own).sum(dim=1)).mean()
    elif kind is SAC:
        actions, log_probs = drawn(actor(batch.observations), draw())
        next_actions, next_log_probs = drawn(actor(batch.next_observations), draw())
        next_values = values(target, following, next_actions).amin(dim=1) - next_log_probs
        actor_loss = (log_probs - values(critics, seen, actions).amin(dim=1)).mean()
    else:
        limited = (0.2 * draw()).clamp(-0.5, 0.5)
        next_actions = (agent._target_actor.network(batch.next_observations).tanh() + limited).clamp(-1, 1)
        next_values = values(target, following, next_actions).amin(dim=1)
        actor_loss = -values(critics, seen, actor(batch.observations).tanh())[:, 0].mean()
    goals = (batch.rewards + GAMMA * batch.bootstrap_masks * next_values).detach()
    errors = values(critics, seen, Textbook.scaled(batch.actions)) - goals[:, None]
    critic_loss = 0.5 * errors.square().mean(dim=0).sum()
    differentiated = [(critic_loss, critics), (actor_loss, actor)]
    if kind is IQL:
        differentiated.append((value_loss, agent._value))
    expected = [
        torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(network.parameters()))])
        for loss, network in differentiated
    ]
    assert agent.learn() is not None
    for pack, gradients in zip(packs_of(agent), expected, strict=True):
        assert torch.allclose(pack.gradients, gradients, rtol=1e-3, atol=1e-5)
    assert all(part.grad.abs().max() > 0 for part in critics.encoder.parameters())
    [action] = agent.policy().act([space.sample()], ActMode.EXPLOIT)[0]
    assert ACTIONS.contains(action)
