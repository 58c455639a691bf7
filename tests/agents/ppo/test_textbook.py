"""A whole update beside PPO written out plainly: torch's own modules, distributions, Adam and clipping."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, Normal

from stoker.agents import PPO, PPOConfig
from stoker.agents.ppo.losses import Samples
from stoker.types import EpisodeStatus, Experience

MakeAgent = Callable[..., PPO]
Play = Callable[..., list[Experience]]


class Numbers:
    """Four numbers, each drawn by itself, of 2, 4, 3 and 2 choices."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.parts = [Categorical(logits=part) for part in logits.split([2, 4, 3, 2], dim=1)]

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        logs = [part.log_prob(column) for part, column in zip(self.parts, actions.T, strict=True)]
        return torch.stack(logs).sum(0)

    def entropy(self) -> torch.Tensor:
        return torch.stack([part.entropy() for part in self.parts]).sum(0)


class Textbook:
    """Starts with the agent's weights, generator and settings; shares no code with it."""

    def __init__(self, agent: PPO, kind: str) -> None:
        self.config = agent.config
        self.kind = kind
        self.depends_on_state = self.config.state_dependent_exploration
        weights = {name: tensor.clone() for name, tensor in agent.state_dict()["network"].items()}
        self.policy = self.layers(weights, "policy")
        self.value = self.layers(weights, "value")
        self.log_std = nn.Parameter(weights["log_std"]) if kind == "continuous" else None
        self.parameters = [*self.policy.parameters(), *self.value.parameters()]
        if self.log_std is not None:
            self.parameters.insert(0, self.log_std)
        self.adam = torch.optim.Adam(self.parameters, lr=self.config.learning_rate, eps=1e-5)
        self.shuffle = np.random.Generator(np.random.PCG64())
        self.shuffle.bit_generator.state = agent.state_dict()["shuffle_generator"]

    def layers(self, weights: dict[str, torch.Tensor], tower: str) -> nn.Sequential:
        sizes = [weights[f"body.{tower}.layers.{i}.weight"].shape for i in range(2)]
        torch_state = torch.get_rng_state()
        module = nn.Sequential(nn.Linear(*sizes[0][::-1]), nn.Tanh(), nn.Linear(*sizes[1][::-1]))
        torch.set_rng_state(torch_state)
        for i, place in ((0, 0), (1, 2)):
            module[place].weight.data.copy_(weights[f"body.{tower}.layers.{i}.weight"])
            module[place].bias.data.copy_(weights[f"body.{tower}.layers.{i}.bias"])
        return module

    def distribution(self, observations: torch.Tensor) -> Any:
        if self.kind == "several":
            return Numbers(self.policy(observations))
        if self.log_std is None:
            return Categorical(logits=self.policy(observations))
        std = self.log_std.exp()
        if self.depends_on_state:
            features = self.policy[:-1](observations).detach()
            std = (features**2 @ std**2 + 1e-6).sqrt()
        return Independent(Normal(self.policy(observations), std), 1)

    def advantages(self, experiences: list[Experience]) -> torch.Tensor:
        config = self.config
        found = torch.zeros(len(experiences), dtype=torch.float64)
        following: dict[
            Any, tuple[float, float]
        ] = {}  # of each actor: value and advantage of what comes next
        for i in reversed(range(len(experiences))):
            e = experiences[i]
            value = e.policy_extras[1]
            if e.status is EpisodeStatus.TERMINATED:
                next_value, next_advantage = 0.0, 0.0
            elif e.status is EpisodeStatus.TRUNCATED or e.actor_id not in following:
                with torch.no_grad():
                    next_value, next_advantage = self.value(torch.from_numpy(e.next_observation)).item(), 0.0
            else:
                next_value, next_advantage = following[e.actor_id]
            delta = e.reward + config.gamma * next_value - value
            found[i] = delta + config.gamma * config.gae_lambda * next_advantage
            following[e.actor_id] = (value, found[i].item())
        return found

    def update(self, experiences: list[Experience], clip_range: float) -> dict[str, float]:
        config = self.config
        observations = torch.from_numpy(np.stack([e.observation for e in experiences]))
        extras = torch.from_numpy(np.stack([e.policy_extras for e in experiences])).float()
        old_log_probs, old_values = extras[:, 0], extras[:, 1]
        actions = extras[:, 3] if self.kind == "discrete" else extras[:, 3:]
        advantages = self.advantages(experiences)
        returns = (advantages + torch.tensor([e.policy_extras[1] for e in experiences])).float()
        advantages = advantages.float()
        found: dict[str, list[float]] = {}
        sizes: list[int] = []
        for _ in range(config.n_epochs):
            order = self.shuffle.permutation(len(experiences))
            kls = []
            for start in range(0, len(order), config.batch_size):
                rows = torch.from_numpy(order[start : start + config.batch_size])
                advantage = advantages[rows]
                if config.normalize_advantages and len(rows) > 1:
                    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                distribution = self.distribution(observations[rows])
                ratio = torch.exp(distribution.log_prob(actions[rows]) - old_log_probs[rows])
                surrogate = torch.minimum(
                    ratio * advantage, torch.clip(ratio, 1 - clip_range, 1 + clip_range) * advantage
                )
                values = self.value(observations[rows]).flatten()
                if config.value_clip_range is not None:
                    width = config.value_clip_range
                    values = old_values[rows] + torch.clip(values - old_values[rows], -width, width)
                terms = {
                    "policy_loss": -surrogate.mean(),
                    "value_loss": ((values - returns[rows]) ** 2).mean(),
                    "entropy": distribution.entropy().mean(),
                    "clip_fraction": ((ratio - 1).abs() > clip_range).float().mean(),
                }
                loss = terms["policy_loss"] - config.ent_coef * terms["entropy"]
                loss = loss + config.vf_coef * terms["value_loss"]
                kls.append((ratio - 1 - ratio.log()).mean().item())
                sizes.append(len(rows))
                self.adam.zero_grad()
                loss.backward()
                if config.max_grad_norm is not None:
                    nn.utils.clip_grad_norm_(self.parameters, config.max_grad_norm)
                self.adam.step()
                for name, term in (*terms.items(), ("loss", loss)):
                    found.setdefault(name, []).append(term.item())
        means = {name: np.average(terms, weights=sizes) for name, terms in found.items()}
        return {**means, "approx_kl": np.average(kls, weights=sizes[-len(kls) :])}

    def weights(self) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters])

    def gradients(self) -> torch.Tensor:
        return torch.cat([parameter.grad.flatten() for parameter in self.parameters])


def pack(network: nn.Module, what: str = "data") -> torch.Tensor:
    return torch.cat([getattr(parameter, what).flatten() for parameter in network.parameters()])


SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "entropy": {"ent_coef": 0.05, "vf_coef": 0.7},
    "raw advantages": {"normalize_advantages": False, "max_grad_norm": None},
    "clipped values": {"value_clip_range": 0.05, "n_epochs": 6, "learning_rate": 0.01},
    "narrow": {"clip_range": 0.01, "learning_rate": 0.01, "gae_lambda": 0.5, "gamma": 0.8},
    "a row is left over": {"batch_size": 19},
    "one batch": {"batch_size": 1_000, "n_epochs": 1},
}


STATE_DEPENDENT = {"state_dependent_exploration": True, "log_std_init": -0.5}


@pytest.mark.parametrize("kind", ["discrete", "continuous", "several", "state-dependent"])
@pytest.mark.parametrize("case", SETTINGS, ids=[name.replace(" ", "-") for name in SETTINGS])
def test_an_update_equals_the_textbook(make_agent: MakeAgent, play: Play, kind: str, case: str) -> None:
    settings = SETTINGS[case]
    if kind == "state-dependent":
        kind, settings = "continuous", {**settings, **STATE_DEPENDENT}
    agent = make_agent(kind, **settings)
    textbook = Textbook(agent, kind)
    for seed in (0, 1):  # the second with other weights than those it starts with, and with Adam's moments
        before = textbook.weights()
        experiences = play(agent, 39, ("a", 1, 2), seed)
        assert {e.status for e in experiences} == {*EpisodeStatus}
        agent.observe(experiences)
        metrics = agent.learn()
        expected = textbook.update(experiences, agent.config.clip_range)
        assert metrics is not None
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=2e-4, abs=2e-5)
        assert torch.allclose(pack(agent._network), textbook.weights(), atol=2e-5)
        assert not torch.allclose(textbook.weights(), before, atol=1e-4), "else nothing was tested"
        assert torch.allclose(pack(agent._network, "grad"), textbook.gradients(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("most", [0.5, 0.01])
def test_the_norm_of_all_gradients_together_is_limited(
    make_agent: MakeAgent, play: Play, most: float
) -> None:
    free, limited = (
        make_agent(max_grad_norm=norm, batch_size=20, n_epochs=1, seed=3) for norm in (None, most)
    )
    for agent in (free, limited):
        agent.observe(play(agent, 20))
        agent.learn()
    whole, cut = (pack(agent._network, "grad") for agent in (free, limited))
    assert whole.norm() > 0.5, "else nothing is limited"
    assert cut.norm().item() == pytest.approx(most, rel=1e-4)
    assert torch.allclose(cut, whole * (most / whole.norm()), atol=1e-5)


def test_a_gradient_within_the_limit_stays_as_it_is(make_agent: MakeAgent, play: Play) -> None:
    free, limited = (make_agent(max_grad_norm=norm, batch_size=20, n_epochs=1) for norm in (None, 1e4))
    for agent in (free, limited):
        agent.observe(play(agent, 20))
        agent.learn()
    assert torch.equal(pack(free._network, "grad"), pack(limited._network, "grad"))


def test_target_kl_stops_before_the_batch_that_shows_it(make_agent: MakeAgent, play: Play) -> None:
    settings = {"learning_rate": 0.01, "batch_size": 20, "n_epochs": 50}
    # Without a limit: how far the policy has moved before each of its epochs of one batch.
    moved = []
    for n_epochs in range(1, 30):
        agent = make_agent(**{**settings, "n_epochs": n_epochs})
        agent.observe(play(agent, 20))
        metrics = agent.learn()
        assert metrics is not None
        moved.append(metrics["approx_kl"])
    target = 0.01
    n_done = next(n for n, kl in enumerate(moved) if kl > 1.5 * target)
    assert 2 <= n_done < 28
    stopping = make_agent(**settings, target_kl=target)
    stopping.observe(play(stopping, 20))
    metrics = stopping.learn()
    assert metrics is not None
    assert metrics["n_epochs"] == n_done
    assert metrics["approx_kl"] == moved[n_done]
    same = make_agent(**{**settings, "n_epochs": n_done})
    same.observe(play(same, 20))
    same.learn()
    assert torch.equal(pack(stopping._network), pack(same._network))


@pytest.mark.parametrize("total_steps", [20, 60, 100], ids=str)
def test_schedules_reach_the_update(make_agent: MakeAgent, play: Play, total_steps: int) -> None:
    left = 1 - total_steps / 100
    agent = make_agent(
        learning_rate=0.01,
        clip_range=0.4,
        learning_rate_schedule="linear",
        clip_range_schedule="linear",
        schedule_steps=100,
    )
    agent.total_steps = total_steps - 20
    before = pack(agent._network)
    textbook = Textbook(agent, "discrete")
    textbook.adam.param_groups[0]["lr"] = 0.01 * left
    experiences = play(agent, 20)
    agent.observe(experiences)
    metrics = agent.learn()
    expected = textbook.update(experiences, 0.4 * left)
    assert metrics is not None
    assert metrics["learning_rate"] == pytest.approx(0.01 * left)
    assert metrics["clip_range"] == pytest.approx(0.4 * left)
    if left:  # at 0 the least rounding counts
        assert metrics["clip_fraction"] == pytest.approx(expected["clip_fraction"])
    assert torch.allclose(pack(agent._network), textbook.weights(), atol=2e-5)
    assert torch.equal(pack(agent._network), before) == (left == 0)


def test_a_log_probability_that_is_far_off_gives_a_finite_gradient() -> None:
    """A wrong one from outside: its ratio is clipped where that is better, and limited where it is worse."""
    numbers = torch.zeros(2)
    samples = Samples(
        inputs=torch.zeros(2, 1),
        actions=torch.zeros(2, 1),
        log_probs=torch.full((2,), -300.0),
        values=numbers,
        advantages=torch.tensor([1.0, -1.0]),
        returns=numbers,
        masks=torch.zeros(2, 0, dtype=torch.bool),
    )
    gradient = samples.policy_gradient(numbers.clone(), 0.2)
    assert gradient.tolist() == [0.0, pytest.approx(math.exp(20) / 2)]
    losses = samples.losses(numbers, numbers, numbers, 0.2, PPOConfig())
    assert all(loss.isfinite() for loss in losses)
