"""An environment and an agent such as users write: what `--agent module:factory` and its like name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv

from stoker import ActMode, ActorId, Experience

gymnasium.register("OwnPole-v0", CartPoleEnv, max_episode_steps=7)
number = 3


class ShortPole(CartPoleEnv):
    def __init__(self, limit: int = 5, sound: bool = False) -> None:
        super().__init__()
        if sound is not False:
            raise AssertionError(f"{sound!r} was to be false")
        self.limit, self.n_steps = limit, 0

    def reset(self, **more: Any) -> Any:
        self.n_steps = 0
        return super().reset(**more)

    def step(self, action: Any) -> Any:
        self.n_steps += 1
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, self.n_steps >= self.limit, info


class Hurried(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Ends each episode after some steps, and pays double."""

    def __init__(self, env: gymnasium.Env[Any, Any], limit: int = 2) -> None:
        super().__init__(gymnasium.wrappers.TimeLimit(env, limit))

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, 2 * float(reward), *rest


class Rooms(gymnasium.Env[int, int]):
    """A corridor of discrete observations, which an own agent sees as they are."""

    observation_space = gymnasium.spaces.Discrete(4)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.room = 0
        return self.room, {}

    def step(self, action: int) -> Any:
        self.room = max(0, self.room + (1 if action else -1))
        return self.room, 0.0, self.room == 3, False, {}


def nothing(*given: Any, **named: Any) -> dict[str, int]:
    return {}


def fails() -> None:
    raise OSError("no such disk")


class RandomPolicy:
    def __init__(self, n: int, seed: int) -> None:
        self.n, self.generator = n, np.random.default_rng(seed)

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[list[int], None]:
        return [int(self.generator.integers(self.n)) for _ in observations], None

    def fork(self, seed: int) -> RandomPolicy:
        return RandomPolicy(self.n, seed)

    def weights(self) -> dict[str, Any]:
        return {}

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """There are none."""


class RandomAgent:
    needs_policy_extras = False

    def __init__(
        self, observation_space: Any, action_space: Any, *, seed: int, device: str, loss: float = 1.0
    ) -> None:
        self.observation_space, self.n, self.seed, self.loss = (
            observation_space,
            int(action_space.n),
            seed,
            loss,
        )
        self.total_steps = 0

    def policy(self) -> RandomPolicy:
        return RandomPolicy(self.n, self.seed)

    def publish(self, policy: RandomPolicy) -> None:
        """There is nothing new."""

    def observe(self, experiences: Sequence[Experience]) -> None:
        for step in experiences:
            if not self.observation_space.contains(step.observation):
                raise AssertionError(f"{step.observation!r} is not of {self.observation_space}")
        self.total_steps += len(experiences)

    def learn(self) -> dict[str, float]:
        return {"loss": self.loss}

    def episode_extras(self, actor_id: ActorId) -> dict[str, float]:
        return {}

    def on_episode_start(self, actor_id: ActorId) -> None:
        """It remembers no episode."""

    def state_dict(self) -> dict[str, Any]:
        return {"total_steps": self.total_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total_steps = state["total_steps"]
