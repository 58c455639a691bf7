"""The textbook that agents with twin critics are compared with.

Plain networks, torch's distributions, autograd, and Adam by its formulas.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import nn

from stoker.replay import Batch
from stoker.types import EpisodeStatus, Experience

SEEN = Box(-1, 1, (2, 2), np.float32)
ACTIONS = Box(np.float32([-1.0, 0.0]), np.float32([3.0, 0.5]))
GAMMA, TAU, RATE = 0.9, 0.1, 0.01
SMALL: dict[str, Any] = {
    "batch_size": 16, "buffer_size": 64, "learning_starts": 16, "hidden_sizes": (24, 8), "gamma": GAMMA,
    "tau": TAU, "learning_rate": RATE,
}  # fmt: skip


def experiences(count: int, seed: int = 0) -> list[Experience]:
    """Transitions of every status, with actions up to the bounds."""
    rng = np.random.default_rng(seed)
    low, high = ACTIONS.low, ACTIONS.high
    return [
        Experience(
            rng.normal(size=(2, 2)).astype(np.float32),
            rng.choice([low, high, rng.uniform(low, high).astype(np.float32)]),
            float(rng.normal() * 3),
            rng.normal(size=(2, 2)).astype(np.float32),
            list(EpisodeStatus)[rng.integers(3)],
        )
        for _ in range(count)
    ]


def plain(mlp: Any) -> nn.Sequential:
    """A perceptron of the agent's as torch's own modules, with copies of its weights."""
    layers: list[nn.Module] = []
    for weight, bias in mlp.weights:
        layer = nn.utils.skip_init(nn.Linear, *reversed(weight.shape))
        layer.load_state_dict({"weight": weight.detach().clone(), "bias": bias.detach().clone()})
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Adam:
    """Kingma & Ba 2015, algorithm 1."""

    def __init__(self, parameters: list[Any], rate: float = RATE) -> None:
        self._parameters, self._rate, self._steps = parameters, rate, 0
        self._moments = [(torch.zeros_like(each), torch.zeros_like(each)) for each in parameters]

    def step(self) -> None:
        self._steps += 1
        with torch.no_grad():
            for parameter, (mean, square) in zip(self._parameters, self._moments, strict=True):
                mean.mul_(0.9).add_(0.1 * parameter.grad)
                square.mul_(0.999).add_(0.001 * parameter.grad**2)
                unbiased = mean / (1 - 0.9**self._steps), square / (1 - 0.999**self._steps)
                parameter.sub_(self._rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8))


class Textbook:
    """The networks of an agent, copied, and the pieces of a step that the agents share."""

    def __init__(self, agent: Any, actor: nn.Module | None = None) -> None:
        self.actor = plain(agent._network.mlp) if actor is None else actor
        self.critics = nn.ModuleList(map(plain, agent._critics.mlps))
        self.targets = nn.ModuleList(map(plain, agent._target.network.mlps))
        self.target_actor = copy.deepcopy(self.actor)
        self.actor_adam = Adam(list(self.actor.parameters()))
        self.critic_adam = Adam(list(self.critics.parameters()))
        self.noise = copy.deepcopy(agent._noise)

    def draw(self, size: int) -> torch.Tensor:
        return torch.from_numpy(self.noise.standard_normal((size, 2), np.float32))

    @staticmethod
    def scaled(actions: torch.Tensor) -> torch.Tensor:
        """Actions of the environment, each number from -1 to 1."""
        low, high = torch.from_numpy(ACTIONS.low), torch.from_numpy(ACTIONS.high)
        return 2 * (actions - low) / (high - low) - 1

    @staticmethod
    def values(critics: Any, seen: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return torch.cat([critic(torch.cat([seen, actions], dim=1)) for critic in critics], dim=1)

    def critic_loss(self, draw: Draw, next_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of both critics, and their errors ``[B, 2]``."""
        batch = draw.batch
        targets = batch.rewards + GAMMA * batch.bootstrap_masks * next_values
        errors = self.values(self.critics, draw.seen, self.scaled(batch.actions)) - targets[:, None]
        losses = 0.5 * (draw.weights[:, None] * errors.square()).mean(dim=0)
        return losses.sum(), errors.detach()

    def differentiate(self, loss: torch.Tensor, network: nn.Module) -> None:
        """Write the gradients of a network by a loss, and no others."""
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient

    def check_gradients(self, agent: Any, *, with_actor: bool = True) -> None:
        pairs = [(agent._critic_weights, self.critics), (agent._weights, self.actor)]
        for weights, network in pairs if with_actor else pairs[:1]:
            assert torch.allclose(weights.gradients, packed(network, "grad"), rtol=1e-4, atol=1e-6)

    def check_weights(self, agent: Any) -> None:
        pairs = [
            (agent._critic_weights, self.critics),
            (agent._weights, self.actor),
            (agent._target.weights, self.targets),
        ]
        for weights, network in pairs:
            assert torch.allclose(weights.values, packed(network), atol=1e-5)

    def follow(self, targets: nn.Module, online: nn.Module) -> None:
        with torch.no_grad():
            for own, other in zip(targets.parameters(), online.parameters(), strict=True):
                own.mul_(1 - TAU).add_(TAU * other)


def packed(network: nn.Module, what: str = "data") -> torch.Tensor:
    return torch.cat([getattr(each, what).flatten() for each in network.parameters()])


class Draw:
    """The batch that an agent will draw next, its weights, and the replay after that."""

    def __init__(self, agent: Any) -> None:
        self._agent, self._replay = agent, copy.deepcopy(agent.replay)
        self._found = self._replay.sample(16)
        self._is_weighted = agent.config.prioritized
        self.batch: Batch = self._found.transitions if self._is_weighted else self._found
        self.weights = self._found.weights if self._is_weighted else torch.ones(16)
        self.seen = self.batch.observations.flatten(1)
        self.following = self.batch.next_observations.flatten(1)

    def check_priorities(self, errors: torch.Tensor) -> None:
        """The agent's replay must have the mean errors ``[B, 2]`` of both critics as priorities."""
        if self._is_weighted:
            self._replay.update_priorities(self._found.indices, errors.abs().mean(dim=1))
            expected, priorities = (
                each.reference()["priorities"] for each in (self._replay, self._agent.replay)
            )
            assert torch.allclose(priorities, expected, rtol=1e-4)
