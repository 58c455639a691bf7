"""An actor that sends the most extreme values that are taken does not end the training of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from servers import served

from stoker import DQN, PPO, SAC, DQNConfig, PPOConfig, SACConfig
from stoker.protocol import decode_memo, encode_memo

SEEN = spaces.Box(-np.inf, np.inf, (3,), np.float32)
TWO, BOX = spaces.Discrete(2), spaces.Box(-1, 1, (2,), np.float32)
N = 140


@pytest.mark.parametrize(
    ("agent", "actions"),
    [
        (lambda: DQN(SEEN, TWO, DQNConfig(learning_starts=64, batch_size=32), seed=0), TWO),
        (lambda: SAC(SEEN, BOX, SACConfig(learning_starts=64, batch_size=32), seed=0), BOX),
        (lambda: PPO(SEEN, TWO, PPOConfig(rollout_steps=64, batch_size=32), seed=0), TWO),
        (lambda: PPO(SEEN, BOX, PPOConfig(rollout_steps=64, batch_size=32), seed=0), BOX),
    ],
    ids=["dqn", "sac", "ppo discrete", "ppo box"],
)
def test_extreme_values_stop_nobody(agent: Callable[[], Any], actions: Any) -> None:
    numbers = np.random.default_rng(0)
    with served(agent, spaces=(SEEN, actions)) as service:
        known: dict[str, Any] = {}
        for seq in range(1, N):
            record: Any = {
                "actor": "extreme",
                "seq": seq,
                "observation": (1e13 * numbers.choice((-1, 1), 3)).tolist(),
            }
            record |= {"reward": float(numbers.choice((-1e9, 1e9))), **known} if known else {"start": True}
            answer = service.post({"steps": [record]})
            assert answer.status_code == 200, answer.text
            mine = answer.json()["actors"]["extreme"]
            known = {"action": mine["action"], "memo": forged(mine["memo"], numbers)}
        assert service.hosted.session.opt_steps > 0
        other = {"actor": "other", "seq": 1, "start": True, "observation": [0, 0, 0]}
        assert service.post({"steps": [other]}).json()["training"] == "running"


def forged(memo: str, numbers: np.random.Generator) -> str:
    """The memo with other extras in front of the action: PPO's log-probability, value and version."""
    version, action, extras = decode_memo(memo, "memo")
    if isinstance(extras, np.ndarray):
        extras[:3] = numbers.choice((-1e9, 1e9), 3)
    return encode_memo(version, action, extras)
