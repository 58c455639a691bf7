"""Images get convolutions unless the settings say otherwise, and a warning where they do not."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from stoker.agents import DQN, PPO, DQNConfig, PPOConfig

AGENTS: list[tuple[Any, Any]] = [
    (DQN, lambda **settings: DQNConfig(buffer_size=10, batch_size=1, learning_starts=1, **settings)),
    (PPO, lambda **settings: PPOConfig(rollout_steps=4, **settings)),
]


def made(kind: Any, config: Any, shape: tuple[int, ...], dtype: Any = np.uint8) -> Any:
    return kind(Box(0, 255, shape, dtype), Discrete(2), config)


@pytest.mark.parametrize(("kind", "config"), AGENTS)
@pytest.mark.parametrize(
    ("shape", "dtype", "chosen"),
    [
        ((84, 84, 3), np.uint8, "nature_cnn"),
        ((4, 36, 40), np.uint8, "nature_cnn"),
        ((84, 84, 3), np.float32, "mlp"),
        ((84, 84), np.uint8, "mlp"),
        ((4,), np.uint8, "mlp"),
        ((3,), np.float32, "mlp"),
    ],
)
def test_auto_takes_convolutions_for_images(
    kind: Any, config: Any, shape: tuple[int, ...], dtype: Any, chosen: str
) -> None:
    agent, named = made(kind, config(), shape, dtype), made(kind, config(network=chosen), shape, dtype)
    assert agent.config.network == chosen
    agent.load_state_dict(named.state_dict())


@pytest.mark.parametrize(("kind", "config"), AGENTS)
@pytest.mark.parametrize(
    ("shape", "network", "way_out"),
    [
        ((8, 8, 3), "auto", "at least 36 x 36"),
        ((2, 40, 40, 1), "auto", "convolutions see"),
        ((40, 40, 1), "mlp", "network='auto' takes convolutions"),
    ],
)
def test_an_image_that_gets_an_mlp_is_warned_of(
    kind: Any, config: Any, shape: tuple[int, ...], network: str, way_out: str
) -> None:
    with pytest.warns(UserWarning, match=rf"{kind.__name__} sees uint8 images .* an mlp.*{way_out}"):
        agent = made(kind, config(network=network), shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.policy().fork(0)
