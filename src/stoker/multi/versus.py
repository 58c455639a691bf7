"""A game of several agents as an environment for one: all others are played by a fixed opponent.

So evaluation, films and training treat it like any environment. The side that the learner plays changes with
the seed of the episode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import gymnasium
import numpy as np

from stoker.envs.joint import CheckedJointEnv, JointStep, Outcome
from stoker.envs.pettingzoo import joint_env
from stoker.errors import ConfigError
from stoker.multi.selfplay import sides_of


class Adversary(Protocol):
    """Plays the agents that do not learn."""

    def act(self, observations: Sequence[Any], actor_ids: Sequence[str], /) -> Sequence[Any]:
        """One action per observation."""
        ...


class RandomOpponent:
    """Takes each action that is allowed with the same probability.

    Args:
        space: of the actions.
        seed: of its generator.
    """

    def __init__(self, space: gymnasium.Space[Any], seed: int | None = None) -> None:
        self._space = space
        self._rng = np.random.default_rng(seed)
        space.seed(int(self._rng.integers(1 << 31)))

    def act(self, observations: Sequence[Any], actor_ids: Sequence[str]) -> Sequence[Any]:
        """See ``Adversary``."""
        del actor_ids
        return [self._one(observation) for observation in observations]

    def _one(self, observation: Any) -> Any:
        space = self._space
        mask = (
            cast("Mapping[str, Any]", observation).get("action_mask")
            if isinstance(observation, Mapping)
            else None
        )
        if mask is None or not isinstance(space, gymnasium.spaces.Discrete):
            return space.sample()
        return space.start + int(self._rng.choice(np.flatnonzero(mask)))


class OpponentEnv(gymnasium.Env[Any, Any]):
    """One side of a game; an opponent plays all others.

    The learner's side must be one agent. The last ``info`` of an episode has ``is_success``: whether the
    learner has the highest total reward of all.

    Args:
        game: makes the game: PettingZoo's, Parallel or AEC, or a plain ``JointEnv``.
        opponent: plays the others, given the space of actions and a seed; None: ``RandomOpponent``.

    Raises:
        ConfigError: It is no game for this.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as Gymnasium has it

    def __init__(
        self,
        game: Callable[[], Any],
        opponent: Callable[[gymnasium.Space[Any], int | None], Adversary] | None = None,
    ) -> None:
        self.game: CheckedJointEnv = joint_env(game())
        self._make_opponent = RandomOpponent if opponent is None else opponent
        self._agents = [side[0] for side in sides_of(self.game.agents).values()]
        self.observation_space: gymnasium.Space[Any]
        self.action_space: gymnasium.Space[Any]
        self.observation_space, self.action_space = self.game.spaces(self._agents[0])
        self._opponent: Adversary | None = None
        self._me = self._agents[0]
        self._episodes = 0
        self._now = JointStep({})
        self._totals: dict[str, float] = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """See ``gymnasium.Env``; the opponent moves first where it has the first move."""
        super().reset(seed=seed)
        del options
        for attempt in range(100):
            turn = self._episodes if seed is None else seed
            self._episodes += 1
            self._me = self._agents[turn % len(self._agents)]
            if self._opponent is None or seed is not None:
                self._opponent = self._make_opponent(self.action_space, seed)
            self._totals = dict.fromkeys(self._agents, 0.0)
            self._now = self._checked(self.game.reset(seed=None if seed is None else seed + attempt))
            outcome = self._play_on()
            if outcome is None and self._me in self._now.acting:
                return self._now.acting[self._me], {}
        raise ConfigError(f"the game ended 100 times before {self._me!r} could act")

    def step(self, action: Any) -> Any:
        """See ``gymnasium.Env``: until the learner must act again, or its game is over."""
        self._now = self._move({self._me: action})
        outcome = self._now.outcomes.get(self._me) or self._play_on()
        if outcome is None:
            raise ConfigError(f"the game is over, and the last action of {self._me!r} has no outcome")
        status, info = outcome.status, dict(outcome.info)
        if status.is_done:
            while not self._now.is_over:  # the others end their game
                self._now = self._move({})
            best = max(total for agent, total in self._totals.items() if agent != self._me)
            info["is_success"] = self._totals[self._me] > best
        is_truncated = status.is_done and status.name == "TRUNCATED"
        return (
            outcome.next_observation,
            outcome.reward,
            status.is_done and not is_truncated,
            is_truncated,
            info,
        )

    def close(self) -> None:
        """See ``gymnasium.Env``."""
        self.game.close()

    def _play_on(self) -> Outcome | None:
        """Let the others act until it is the learner's turn; its outcome, if it has one then."""
        while not self._now.is_over and self._me not in self._now.acting:
            self._now = self._move({})
            if (outcome := self._now.outcomes.get(self._me)) is not None:
                return outcome
        return self._now.outcomes.get(self._me)

    def _move(self, mine: Mapping[str, Any]) -> JointStep:
        acting = {agent: seen for agent, seen in self._now.acting.items() if agent not in mine}
        opponent = cast("Adversary", self._opponent)
        chosen = opponent.act(list(acting.values()), list(acting)) if acting else ()
        actions = {**mine, **dict(zip(acting, chosen, strict=True))}
        now = self._checked(self.game.step(actions))
        for agent, outcome in now.outcomes.items():
            self._totals[agent] += outcome.reward
        for agent, reward in now.unearned.items():
            self._totals[agent] += reward
        return now

    def _checked(self, now: Any) -> JointStep:
        if inspect.isawaitable(now):
            raise ConfigError("OpponentEnv: the game is async: give one whose reset and step are plain")
        return now
