"""A game for two that take turns, as a ``JointEnv``: each says 0 or 1 three times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from stoker import EpisodeStatus
from stoker.envs.joint import JointStep, Outcome


class CountingGame:
    """Whoever has the higher sum wins 1 and the other loses 1; equal sums are a draw."""

    agents = ("first", "second")

    def __init__(self) -> None:
        self._space = spaces.Box(0, 3, (3,), np.float32), spaces.Discrete(2)
        self._sums = {"first": 0, "second": 0}
        self._turn = 0

    def spaces(self, agent: str) -> Any:
        del agent
        return self._space

    def reset(self, *, seed: int | None = None) -> JointStep:
        del seed
        self._sums, self._turn = {"first": 0, "second": 0}, 0
        return JointStep({"first": self._seen("first")})

    def step(self, actions: Mapping[str, Any]) -> JointStep:
        ((agent, action),) = actions.items()
        self._sums[agent] += int(action)
        self._turn += 1
        if self._turn == 6:
            gap = self._sums["first"] - self._sums["second"]
            reward = float(np.sign(gap))
            return JointStep(
                {},
                {
                    each: Outcome(sign * reward, self._seen(each), EpisodeStatus.TERMINATED)
                    for each, sign in (("first", 1), ("second", -1))
                },
                is_over=True,
            )
        other = self.agents[self._turn % 2]
        outcomes = (
            {other: Outcome(0.0, self._seen(other), EpisodeStatus.CONTINUING)} if self._turn > 1 else {}
        )
        return JointStep({other: self._seen(other)}, outcomes)

    def _seen(self, agent: str) -> Any:
        other = self.agents[1 - self.agents.index(agent)]
        return np.array([self._sums[agent], self._sums[other], self._turn / 2], np.float32)


class DrawnGame(CountingGame):
    """Renders the number of turns as gray."""

    metadata = {"render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.full((160, 160, 3), 40 * self._turn, np.uint8)
