"""IQN's update against Dabney et al. (2018) written out with torch's own parts and autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from stoker.agents import IQN, IQNConfig
from stoker.agents.base import seeded_generator
from stoker.types import Experience

MakeExperiences = Callable[..., list[Experience]]

BOX = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
ACTIONS = gymnasium.spaces.Discrete(3, start=-1)
N, N_TARGETS, K, N_COSINES, GAMMA, ROWS = 3, 5, 6, 7, 0.9, 8


class Textbook(nn.Module):
    """``f(psi(x) * phi(tau))`` with one layer for psi, and one hidden layer in f, or none."""

    def __init__(self, like: nn.Module, n_hidden: int, dueling: bool) -> None:
        super().__init__()
        self.dueling = dueling
        n_outputs, state = 3 + dueling, torch.get_rng_state()
        self.phi = nn.Linear(N_COSINES, 16)
        hidden = [nn.Linear(16, n_hidden), nn.ReLU()] if n_hidden else []
        self.f = nn.Sequential(*hidden, nn.Linear(n_hidden or 16, n_outputs))
        self.psi = nn.Linear(4, 16)
        torch.set_rng_state(state)
        with torch.no_grad():
            for own, given in zip(self.parameters(), like.parameters(), strict=True):
                own.copy_(given)

    def quantiles(self, observation: torch.Tensor, fraction: float) -> torch.Tensor:
        """Of each action, for one observation and one fraction."""
        cosines = torch.tensor([math.cos(math.pi * i * fraction) for i in range(N_COSINES)])
        outputs = self.f(self.psi(observation).relu() * self.phi(cosines).relu())
        if self.dueling:
            return outputs[0] + outputs[1:] - outputs[1:].mean()
        return outputs

    def values(self, observation: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.quantiles(observation, (k + 0.5) / K) for k in range(K)]).mean(0)


def textbook_losses(
    online: Textbook, target: Textbook, batch: Any, fractions: torch.Tensor, double: bool
) -> list[torch.Tensor]:
    """Algorithm 1, transition by transition and pair by pair."""
    losses: list[torch.Tensor] = []
    for row in range(ROWS):
        following = batch.next_observations[row]
        best = (online if double else target).values(following).argmax()
        loss = torch.zeros(())
        for i in range(N):
            tau = float(fractions[i, row])
            own = online.quantiles(batch.observations[row], tau)[batch.actions[row] + 1]
            for j in range(N_TARGETS):
                with torch.no_grad():
                    sample = target.quantiles(following, float(fractions[N + j, row]))[best]
                delta = batch.rewards[row] + GAMMA * batch.bootstrap_masks[row] * sample - own
                huber = delta**2 / 2 if delta.abs() <= 1 else delta.abs() - 0.5
                loss = loss + abs(tau - float(delta < 0)) * huber / N_TARGETS
        losses.append(loss)
    return losses


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one hidden layer, clipped": {"hidden_sizes": (16,), "max_grad_norm": 0.05},
    "dueling, prioritized, double": {"dueling": True, "prioritized": True, "double": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_steps_equal_the_textbook(make_experiences: MakeExperiences, variant: str) -> None:
    settings = {"hidden_sizes": (16, 12), "max_grad_norm": None, **VARIANTS[variant]}
    config = IQNConfig(
        n_quantiles=N, n_target_quantiles=N_TARGETS, n_acting_quantiles=K, n_cosines=N_COSINES, gamma=GAMMA,
        batch_size=ROWS, buffer_size=64, learning_starts=8, learning_rate=0.01, priority_beta=0.7, **settings,
    )  # fmt: skip
    agent, twin = (IQN(BOX, ACTIONS, config, seed=2) for _ in range(2))  # the twin says what is drawn
    for each in (agent, twin):
        with torch.no_grad():  # else target and network were equal, and double would change nothing
            for parameter in each._target.network.parameters():
                parameter.neg_()
        each.observe(make_experiences(20))
        if config.prioritized:  # uneven, else all weights are one
            each.replay.update_priorities(each.replay.sample(ROWS).indices, np.arange(float(ROWS)))
    n_hidden = 12 if len(config.hidden_sizes) > 1 else 0
    online = Textbook(agent._network, n_hidden, config.dueling)
    target = Textbook(agent._target.network, n_hidden, config.dueling)
    adam = torch.optim.Adam(online.parameters(), lr=0.01)
    generator = seeded_generator(0)
    generator.bit_generator.state = agent.state_dict()["fraction_generator"]
    for _ in range(2):
        drawn = twin.replay.sample(ROWS)
        batch, weights = drawn, torch.ones(ROWS)
        if config.prioritized:
            batch, weights = drawn.transitions, drawn.weights
            assert weights.min() < 0.9
        fractions = torch.from_numpy(generator.random((N + N_TARGETS, ROWS), dtype=np.float32))
        losses = torch.stack(textbook_losses(online, target, batch, fractions, config.double))
        loss = (weights * losses).mean()
        adam.zero_grad()
        loss.backward()
        gradients = torch.cat([parameter.grad.flatten() for parameter in online.parameters()])
        if config.max_grad_norm is not None:
            assert gradients.norm() > config.max_grad_norm, "else clipping is not tested"
            nn.utils.clip_grad_norm_(online.parameters(), config.max_grad_norm)
            gradients = torch.cat([parameter.grad.flatten() for parameter in online.parameters()])
        adam.step()
        if config.prioritized:
            twin.replay.update_priorities(drawn.indices, losses.detach())

        metrics = agent.learn()
        assert metrics is not None
        assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert torch.allclose(agent._weights.gradients, gradients, rtol=1e-4, atol=1e-6)
        flat = torch.cat([parameter.detach().flatten() for parameter in online.parameters()])
        assert torch.allclose(agent._weights.values, flat, atol=2e-5)
    if config.prioritized:
        ours, theirs = (each.replay.reference()["priorities"] for each in (agent, twin))
        assert torch.allclose(ours, theirs, rtol=1e-3)
        assert not torch.allclose(ours, torch.ones_like(ours), rtol=0.1)
