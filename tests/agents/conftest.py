"""A small DQN and a stream of transitions for it; tests import what they share from beside them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from stoker.agents import DQN, DQNConfig
from stoker.types import EpisodeStatus, Experience

sys.path.insert(0, str(Path(__file__).parent))

BOX = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
ACTIONS = gymnasium.spaces.Discrete(3, start=-1)

MakeAgent = Callable[..., DQN]
MakeExperiences = Callable[..., list[Experience]]


@pytest.fixture
def make_agent() -> MakeAgent:
    """``make_agent(seed=0, **settings)``: an agent that learns from its eighth transition on."""

    def make(seed: int = 0, **settings: Any) -> DQN:
        small = {"batch_size": 8, "buffer_size": 64, "learning_starts": 8, "hidden_sizes": (16,)}
        return DQN(BOX, ACTIONS, DQNConfig(**{**small, **settings}), seed)

    return make


@pytest.fixture
def make_experiences() -> MakeExperiences:
    """``make_experiences(count, actor_id=0, seed=0)``: transitions of every status."""

    def make(count: int, actor_id: int | str = 0, seed: int = 0) -> list[Experience]:
        rng = np.random.default_rng(seed)
        return [
            Experience(
                rng.normal(size=4).astype(np.float32),
                int(rng.integers(-1, 2)),
                float(rng.normal() * 3),
                rng.normal(size=4).astype(np.float32),
                list(EpisodeStatus)[rng.integers(3)],
                actor_id,
            )
            for _ in range(count)
        ]

    return make
