"""BC's update against plain networks and autograd; what it learns, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from torch import nn
from torch.distributions import Categorical

from stoker import BC, BCConfig, ConfigError, TrainingDiverged
from stoker.nested import difference
from stoker.testing.agent_driving import as_batch, state_of
from stoker.types import ActMode, EpisodeStatus, Experience

SEEN = Box(-1, 1, (4,), np.float32)
LOW, HIGH = np.float32([-1.0, 0.0]), np.float32([3.0, 0.5])
SPACES: dict[str, Any] = {
    "discrete": Discrete(3, start=-1),
    "several": MultiDiscrete([[2, 4]], start=[[-1, 5]]),
    "binary": MultiBinary(3),
    "box": Box(LOW, HIGH),
}
COUNTS = {"discrete": (3,), "several": (2, 4), "binary": (2, 2, 2), "masked": (3,)}
SMALL: dict[str, Any] = {"batch_size": 16, "buffer_size": 64, "hidden_sizes": (24, 8), "learning_rate": 0.01}


def data(space: Any, seen: Any = SEEN, count: int = 40) -> list[Experience]:
    space.seed(3)
    seen.seed(4)
    found: list[Experience] = []
    for at in range(count):
        action = space.sample()
        action = int(action) if isinstance(space, Discrete) else action
        found.append(Experience(seen.sample(), action, 0.5 * at, seen.sample(), EpisodeStatus.TERMINATED))
    return found


def masked_data() -> tuple[Dict, list[Experience]]:
    seen = Dict({"position": SEEN, "action_mask": MultiBinary(3)})
    experiences = data(SPACES["discrete"], seen)
    for at, each in enumerate(experiences):
        each.observation["action_mask"][:] = at % 3 != np.arange(3)
        each.observation["action_mask"][each.action + 1] = 1
    return seen, experiences


def textbook_loss(name: str, network: nn.Module, batch: Any) -> torch.Tensor:
    """The mean of the cross-entropy, or of the squared error of actions scaled to -1..1."""
    if name == "box":
        low, high = torch.from_numpy(LOW), torch.from_numpy(HIGH)
        wanted = 2 * (batch.actions - low) / (high - low) - 1
        return nn.functional.mse_loss(network(batch.observations).tanh(), wanted)
    logits, masks = network(batch.observations[:, :4]), batch.observations[:, 4:]
    if name == "masked":
        logits = logits.masked_fill(masks == 0, -torch.inf)
    starts = torch.as_tensor(np.ravel(getattr(SPACES.get(name), "start", -1 if name == "masked" else 0)))
    indices = batch.actions.reshape(len(logits), -1).long() - starts
    parts = [Categorical(logits=part) for part in logits.split(COUNTS[name], dim=1)]
    return -sum(part.log_prob(indices[:, at]) for at, part in enumerate(parts)).mean()


@pytest.mark.parametrize("name", [*SPACES, "masked"])
def test_two_steps_equal_the_textbook(name: str) -> None:
    seen, experiences = masked_data() if name == "masked" else (SEEN, data(SPACES[name]))
    space = SPACES["discrete" if name == "masked" else name]
    agent, twin = (
        BC(seen, space, BCConfig(**SMALL), seed=2) for _ in range(2)
    )  # the twin says what is drawn
    for each in (agent, twin):
        each.observe(experiences)
    for _ in range(2):
        layers = [part for w, b in agent._network.mlp.weights for part in (linear(w, b), nn.ReLU())]
        network = nn.Sequential(*layers[:-1])
        loss = textbook_loss(name, network, twin.replay.sample(16))
        loss.backward()
        metrics = agent.learn()
        assert metrics is not None
        assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
        expected = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
        assert torch.allclose(agent._weights.gradients, expected, rtol=1e-4, atol=1e-6)


def linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, *reversed(weight.shape))
    layer.load_state_dict({"weight": weight.detach().clone(), "bias": bias.detach().clone()})
    return layer


@pytest.mark.parametrize("name", SPACES)
def test_it_clones_a_rule_and_columns_are_learned_as_single_transitions(name: str) -> None:
    """What the rule does follows from the sign of the first number."""
    space, rng = SPACES[name], np.random.default_rng(0)
    rows = rng.uniform(-1, 1, (300, 4)).astype(np.float32)
    space.seed(0)
    two = [space.sample(), space.sample()]
    while np.array_equal(*two):
        two[1] = space.sample()
    two = [int(each) if name == "discrete" else each for each in two]
    experiences = [Experience(row, two[int(row[0] > 0)], 0.0, row, EpisodeStatus.TRUNCATED) for row in rows]
    agent, by_columns = (BC(SEEN, space, BCConfig(**{**SMALL, "buffer_size": 300}), seed=1) for _ in range(2))
    agent.observe(experiences)
    by_columns.observe_batch(as_batch(experiences))
    for each in (agent, by_columns):
        for _ in range(300):
            each.learn()
    assert difference(state_of(agent), state_of(by_columns)) is None
    actions, _ = agent.policy().act([row for row in rows if abs(row[0]) > 0.2], ActMode.EXPLOIT)
    wanted = [two[int(row[0] > 0)] for row in rows if abs(row[0]) > 0.2]
    errors = np.abs(np.subtract(actions, wanted, dtype=np.float64)).reshape(len(wanted), -1).max(axis=1)
    assert (errors > (0.5 if name == "box" else 0)).mean() < 0.02


def test_it_explores_by_the_probabilities_of_the_data_and_clones_images() -> None:
    image = Box(0, 255, (36, 40, 1), np.uint8)
    agent = BC(image, Discrete(2), BCConfig(batch_size=8, buffer_size=64))
    image.seed(0)
    frame = image.sample()
    ended = EpisodeStatus.TERMINATED
    agent.observe([Experience(frame, int(at % 4 > 0), 0.0, frame, ended) for at in range(40)])
    for _ in range(40):
        agent.learn()
    policy = agent.policy()
    assert np.mean(policy.act([frame] * 400, ActMode.EXPLORE)[0]) == pytest.approx(0.75, abs=0.1)
    assert policy.act([frame] * 2, ActMode.EXPLOIT) == ([1, 1], None)


def test_settings_of_values_and_spaces_without_bounds_are_refused() -> None:
    for settings in ({"n_step": 3}, {"prioritized": True}, {"clip_rewards": 1.0}, {"tau": 0.1}):
        [(name, value)] = settings.items()
        with pytest.raises(ConfigError, match=f"{name}={value}: BC learns actions.*leave it out"):
            BCConfig(**settings)
    with pytest.raises(ConfigError, match="BC scales actions to their bounds"):
        BC(SEEN, Box(-np.inf, np.inf, (2,)))


def test_a_step_that_diverges_changes_no_weight() -> None:
    agent = BC(SEEN, SPACES["box"], BCConfig(**SMALL))
    agent.observe(data(SPACES["box"]))
    with torch.no_grad():
        agent._network.mlp.weights[0][0].fill_(torch.nan)
    before = agent._weights.values.clone()
    with pytest.raises(TrainingDiverged, match="BC diverged: optimization step 1 has the loss nan"):
        agent.learn()
    assert torch.equal(agent._weights.values.nan_to_num(), before.nan_to_num())
    assert agent.opt_steps == 0
