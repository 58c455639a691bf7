"""IQL and AWAC step as the textbook says, learn what is good in data, and explore by their deviations."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import nn
from torch.distributions import Independent, Normal
from twin_textbook import ACTIONS, SEEN, SMALL, Adam, Draw, Textbook, experiences, packed, plain

from stoker.agents import AWAC, IQL, AWACConfig, IQLConfig
from stoker.types import ActMode, EpisodeStatus, Experience


class PlainActor(nn.Module):
    """The distribution of actions, of copied weights."""

    def __init__(self, actor: Any) -> None:
        super().__init__()
        self.log_stds = nn.Parameter(actor.log_stds.detach().clone())
        self.body = plain(actor.mlp)

    def forward(self, seen: torch.Tensor) -> Independent:
        return Independent(Normal(self.body(seen).tanh(), self.log_stds.clamp(-5, 2).exp()), 1)


def made(kind: Any, config: Any) -> tuple[Any, Textbook]:
    """An agent with data, of whose standard deviations one is beyond its limit, and its textbook."""
    agent = kind(SEEN, ACTIONS, config, seed=3)
    with torch.no_grad():
        agent._network.log_stds.copy_(torch.tensor([2.5, -0.4]))
    agent.observe(experiences(40))
    return agent, Textbook(agent, PlainActor(agent._network))


def check_step(agent: Any, book: Textbook, draw: Draw, next_values: Any, losses: Any) -> None:
    """Step the agent and the book; compare losses, gradients, weights and priorities."""
    critic_loss, errors = book.critic_loss(draw, next_values)
    book.differentiate(critic_loss, book.critics)
    book.differentiate(losses["actor_loss"], book.actor)
    metrics = agent.learn()
    assert metrics is not None
    for name, loss in {"loss": critic_loss, **losses}.items():
        assert metrics[name] == pytest.approx(loss.item(), rel=1e-4)
    book.check_gradients(agent)
    book.critic_adam.step()
    book.actor_adam.step()
    book.follow(book.targets, book.critics)
    book.check_weights(agent)
    draw.check_priorities(errors)


CASES = [{}, {"prioritized": True, "n_step": 2}, {"hidden_sizes": ()}]
IDS = ["uniform", "prioritized", "linear"]


@pytest.mark.parametrize("settings", CASES, ids=IDS)
def test_steps_of_iql_equal_the_textbook(settings: dict[str, Any]) -> None:
    most = 1.5 if "hidden_sizes" in settings else 0.35
    config = IQLConfig(**{**SMALL, **settings}, expectile=0.8, inverse_temperature=2.0, max_weight=most)
    agent, book = made(IQL, config)
    value = plain(agent._value.mlp)
    value_adam, n_limited = Adam(list(value.parameters())), 0
    for _ in range(3):
        draw = Draw(agent)
        actions = book.scaled(draw.batch.actions)
        least = book.values(book.targets, draw.seen, actions).amin(dim=1).detach()
        advantages = least - value(draw.seen)[:, 0]
        shares = torch.where(advantages < 0, 0.2, 0.8)
        weights = (2.0 * advantages.detach()).exp().clamp(max=most)
        n_limited += int((weights == most).sum())
        losses = {
            "value_loss": 0.5 * (shares * advantages.square()).mean(),
            "actor_loss": -(weights * book.actor(draw.seen).log_prob(actions)).mean(),
        }
        book.differentiate(losses["value_loss"], value)
        check_step(agent, book, draw, value(draw.following)[:, 0].detach(), losses)
        assert torch.allclose(agent._value_weights.gradients, packed(value, "grad"), rtol=1e-4, atol=1e-6)
        value_adam.step()
        assert torch.allclose(agent._value_weights.values, packed(value), atol=1e-5)
    assert 0 < n_limited < 3 * 16


@pytest.mark.parametrize("n_samples", [1, 3])
@pytest.mark.parametrize("settings", CASES, ids=IDS)
def test_steps_of_awac_equal_the_textbook(settings: dict[str, Any], n_samples: int) -> None:
    config = AWACConfig(**{**SMALL, **settings}, inverse_temperature=2.0, n_action_samples=n_samples)
    agent, book = made(AWAC, config)

    def drawn(seen: torch.Tensor) -> torch.Tensor:
        policy = book.actor(seen)
        return (policy.mean + policy.stddev * book.draw(len(seen))).clamp(-1, 1).detach()

    for _ in range(3):
        draw = Draw(agent)
        actions, states = book.scaled(draw.batch.actions), draw.seen.repeat(n_samples, 1)
        next_values = book.values(book.targets, draw.following, drawn(draw.following)).amin(dim=1).detach()
        own = book.values(book.critics, states, drawn(states)).amin(dim=1).view(n_samples, 16).mean(dim=0)
        advantages = book.values(book.critics, draw.seen, actions).amin(dim=1) - own
        weights = 16 * (2.0 * advantages.detach()).softmax(dim=0)
        losses = {"actor_loss": -(weights * book.actor(draw.seen).log_prob(actions)).mean()}
        check_step(agent, book, draw, next_values, losses)


@pytest.mark.parametrize(("kind", "config_type"), [(IQL, IQLConfig), (AWAC, AWACConfig)], ids=["iql", "awac"])
def test_the_actor_learns_the_better_half_of_the_actions(kind: Any, config_type: Any) -> None:
    """Rewards are best at the action 0.5, about which no action of the data is."""
    rng = np.random.default_rng(0)
    seen = Box(-1, 1, (1,), np.float32)
    config = config_type(
        batch_size=64, hidden_sizes=(32,), learning_rate=3e-3, gamma=0.0, inverse_temperature=10.0
    )
    agent = kind(seen, Box(-1, 1, (1,), np.float32), config)
    state = np.zeros(1, np.float32)
    for action in rng.uniform(-1, 1, 1_000).astype(np.float32):
        reward = -abs(float(action) - 0.5)
        agent.observe([Experience(state, np.array([action]), reward, state, EpisodeStatus.TERMINATED)])
    before = copy.deepcopy(agent)
    for _ in range(400):
        agent.learn()
    agent.publish(policy := agent.policy())
    best = policy.act([state], ActMode.EXPLOIT)[0][0]
    assert best == pytest.approx(0.5, abs=0.15)
    explored = np.array(policy.act([state] * 500, ActMode.EXPLORE)[0])
    assert explored.std() == pytest.approx(agent._network.stds().item(), rel=0.15)
    assert explored.std() < 0.5 * before._network.stds().item()
    assert (np.abs(explored) <= 1).all()
