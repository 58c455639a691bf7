"""Discrete CQL's update against Kumar et al. (2020), eq. 4, by autograd."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from torch import nn

from stoker import DQN, DiscreteCQL, DiscreteCQLConfig, DQNConfig
from stoker.nested import difference
from stoker.testing.agent_driving import feed, state_of
from stoker.types import EpisodeStatus, Experience

SEEN = Box(-1, 1, (4,), np.float32)
MASKED = Dict({"action_mask": MultiBinary(3), "position": SEEN})
ACTIONS = Discrete(3, start=-1)
SMALL: dict[str, Any] = {
    "batch_size": 8, "buffer_size": 64, "learning_starts": 8, "hidden_sizes": (16,), "learning_rate": 0.01,
    "gamma": 0.9, "max_grad_norm": None,
}  # fmt: skip


def data(space: Any = SEEN, count: int = 40) -> list[Experience]:
    space.seed(1)
    rng = np.random.default_rng(0)
    found: list[Experience] = []
    for at in range(count):
        before, after, action = space.sample(), space.sample(), int(rng.integers(-1, 2))
        if space is MASKED:
            before["action_mask"][action + 1] = after["action_mask"][at % 3] = 1
        status = list(EpisodeStatus)[rng.integers(3)]
        found.append(Experience(before, action, float(rng.normal() * 3), after, status))
    return found


def textbook(agent: DiscreteCQL, online: nn.Module, target: nn.Module, batch: Any) -> torch.Tensor:
    """The loss of each transition, one by one."""
    config, losses = agent.config, []
    for row in range(8):
        seen, following = (x[row : row + 1] for x in (batch.observations, batch.next_observations))
        values, allowed, next_allowed = online(seen)[0], torch.ones(3) > 0, torch.ones(3) > 0
        if agent._spaces.mask is not None:
            allowed, next_allowed = seen[0, -3:] == 1, following[0, -3:] == 1
        chosen_by = online(following)[0] if config.double else target(following)[0]
        best = chosen_by.masked_fill(~next_allowed, -torch.inf).argmax()
        goal = batch.rewards[row] + 0.9 * batch.bootstrap_masks[row] * target(following)[0, best].detach()
        action = int(batch.actions[row]) + 1
        error = values[action] - goal
        td = nn.functional.huber_loss(error, torch.zeros(()), delta=1.0)
        losses.append(td + config.alpha * (values[allowed].exp().sum().log() - values[action]))
    return torch.stack(losses)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"alpha": 0.7, "double": False},
    "double, dueling, prioritized": {
        "alpha": 2.0,
        "dueling": True,
        "prioritized": True,
        "priority_beta": 0.7,
    },
    "masked": {},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_steps_equal_the_textbook(variant: str) -> None:
    space = MASKED if variant == "masked" else SEEN
    config = DiscreteCQLConfig(**{**SMALL, **VARIANTS[variant]})
    # The twin says what is drawn.
    agent, twin = (DiscreteCQL(space, ACTIONS, config, seed=2) for _ in range(2))
    for each in (agent, twin):
        with torch.no_grad():  # else target and network were equal, and double would change nothing
            for parameter in each._target.network.parameters():
                parameter.neg_()
        each.observe(data(space))
        if config.prioritized:  # uneven, else all weights are one
            each.replay.update_priorities(each.replay.sample(8).indices, np.arange(8.0))
    for _ in range(
        1 if config.prioritized else 2
    ):  # the next draw depends on priorities, which the twin lacks
        online, target = copy.deepcopy(agent._network), agent._target.network
        drawn: Any = twin.replay.sample(8)
        batch, weights = (drawn.transitions, drawn.weights) if config.prioritized else (drawn, torch.ones(8))
        losses = textbook(agent, online, target, batch)
        loss = (weights * losses).mean()
        loss.backward()
        metrics = agent.learn()
        assert metrics is not None
        assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
        parts = metrics["td_loss"] + config.alpha * metrics["conservative_loss"]
        assert metrics["loss"] == pytest.approx(parts)
        expected = torch.cat([parameter.grad.flatten() for parameter in online.parameters()])
        assert torch.allclose(agent._weights.gradients, expected, rtol=1e-4, atol=1e-6)


def test_without_its_weight_it_is_dqn_to_the_bit() -> None:
    ours = DiscreteCQL(SEEN, ACTIONS, DiscreteCQLConfig(**SMALL, alpha=0.0), seed=3)
    dqn = DQN(SEEN, ACTIONS, DQNConfig(**SMALL, double=True), seed=3)
    for each in (ours, dqn):
        feed(each, data())
    assert ours.opt_steps > 10
    assert difference(state_of(ours)["agent"]["network"], state_of(dqn)["agent"]["network"]) is None
