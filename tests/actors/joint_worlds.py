"""Worlds of several agents that keep accounts: what each action was given, and what nobody had acted for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from gymnasium import spaces

from stoker.actors import LearningSeat
from stoker.envs import CheckedJointEnv, JointStep, joint_env
from stoker.session import TrainingSession
from stoker.types import ActorId

SPACE = spaces.Box(0.0, 1e6, (4,), np.float64)
"""Of the observation: the world, its episode, the agent's number, and how often the agent has acted."""

Key = tuple[int, int, int, int]


class _Colony:
    """Agents that are born and die at random; rewards are whole numbers of eighths."""

    n_made = 0

    def __init__(self, size: int = 6, longest: int = 12) -> None:
        self.possible_agents = [f"ant_{number}" for number in range(size)]
        self.agents: list[str] = []
        self.longest = longest
        self.world = _Colony.n_made
        _Colony.n_made += 1
        self.episode = -1
        self.rng = random.Random(self.world)
        self.acted: dict[str, int] = {}
        self.given: dict[Key, Fraction] = {}
        self.closed: set[Key] = set()
        self.unearned = Fraction(0)
        self.finals: dict[tuple[int, int], int] = {}

    def observation_space(self, _: str) -> Any:
        return SPACE

    def action_space(self, _: str) -> Any:
        return spaces.Discrete(3)

    def close(self) -> None:
        pass

    def seen(self, agent: str) -> Any:
        number = self.possible_agents.index(agent)
        return np.array([self.world, self.episode, number, self.acted.get(agent, 0)], np.float64)

    def key(self, agent: str) -> Key:
        """Of the agent's last action."""
        number = self.possible_agents.index(agent)
        return self.world, self.episode, number, self.acted[agent] - 1

    def begin(self, seed: int | None) -> None:
        if seed is not None:
            self.rng = random.Random(seed)
        self.episode += 1
        self.time = 0
        self.acted = {}
        self.agents = self.rng.sample(self.possible_agents, 3)

    def pay(self, agent: str) -> float:
        """A reward for the agent's open action, if it has one."""
        reward = Fraction(self.rng.randrange(-8, 9), 8)
        if self.acted.get(agent):
            key = self.key(agent)
            self.given[key] = self.given.get(key, Fraction(0)) + reward
        else:
            self.unearned += reward
        return float(reward)

    def fates(self) -> dict[str, tuple[bool, bool]]:
        """Whether each agent terminates or is truncated now."""
        if self.time >= self.longest:
            return dict.fromkeys(self.agents, (False, True))
        return {agent: (self.rng.random() < 0.1, self.rng.random() < 0.1) for agent in self.agents}

    def births(self) -> list[str]:
        unborn = [agent for agent in self.possible_agents if agent not in self.acted.keys() | {*self.agents}]
        return unborn[:1] if unborn and self.rng.random() < 0.3 and self.time < self.longest else []


class ParallelColony(_Colony):
    """All that live act."""

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.begin(seed)
        return {agent: self.seen(agent) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        assert [*actions] == self.agents, "all that live act, and no others"
        self.time += 1
        acted = [*self.agents]
        for agent in acted:
            self.acted[agent] = self.acted.get(agent, 0) + 1
        rewards = {agent: self.pay(agent) for agent in acted}
        fates = self.fates()
        self.closed |= {self.key(agent) for agent in acted}
        self.agents = [agent for agent in acted if not any(fates[agent])]
        born = self.births() if self.agents else []
        self.agents += born
        for agent in born:
            rewards[agent] = self.pay(agent)
            fates[agent] = False, False
        involved = acted + born
        return (
            {agent: self.seen(agent) for agent in involved},
            rewards,
            {agent: fates[agent][0] for agent in involved},
            {agent: fates[agent][1] for agent in involved},
            {agent: {} for agent in involved},
        )


class AecColony(_Colony):
    """They take turns; anyone may be paid after any turn."""

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        self.begin(seed)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.agents}
        self.agent_selection = self.agents[0]

    def observe(self, agent: str) -> Any:
        return self.seen(agent)

    def last(self) -> Any:
        agent = self.agent_selection
        if self.acted.get(agent):
            self.closed.add(self.key(agent))
        return (
            self.seen(agent),
            self._cumulative_rewards[agent],
            self.terminations[agent],
            self.truncations[agent],
            self.infos[agent],
        )

    def _is_dead(self, agent: str) -> bool:
        return self.terminations[agent] or self.truncations[agent]

    def step(self, action: Any) -> None:
        agent = self.agent_selection
        place = self.agents.index(agent)
        if self._is_dead(agent):
            assert action is None
            self.agents.remove(agent)
            for part in (
                self.terminations,
                self.truncations,
                self.rewards,
                self._cumulative_rewards,
                self.infos,
            ):
                del part[agent]
            self.rewards = dict.fromkeys(self.agents, 0.0)
        else:
            assert action is not None
            place += 1
            self.time += 1 if place == len(self.agents) else 0
            self._cumulative_rewards[agent] = 0.0
            self.acted[agent] = self.acted.get(agent, 0) + 1
            alive = [each for each in self.agents if not self._is_dead(each)]
            self.rewards = {each: self.pay(each) if each in alive else 0.0 for each in self.agents}
            for each, reward in self.rewards.items():
                self._cumulative_rewards[each] += reward
            for each, (terminated, truncated) in self.fates().items():
                if not self._is_dead(each):
                    self.terminations[each], self.truncations[each] = terminated, truncated
            for born in self.births():
                self.agents.append(born)
                self.terminations[born] = self.truncations[born] = False
                self.rewards[born] = self._cumulative_rewards[born] = 0.0
                self.infos[born] = {}
        if self.agents:
            dead = [each for each in self.agents if self._is_dead(each)]
            self.agent_selection = dead[0] if dead else self.agents[place % len(self.agents)]


class Watched:
    """A joint environment that sums the rewards of its steps, and counts them.

    Attributes:
        n_steps: joint steps so far.
        n_acts: agents that were to act, over all joint steps.
        n_open: actions without an outcome.
        n_over: episodes that have ended.
        unearned: the rewards without an action.
    """

    def __init__(self, env: Any) -> None:
        self.env: CheckedJointEnv = joint_env(env)
        self.unwrapped = self.env.unwrapped
        self.n_steps = self.n_over = self.n_acts = self.n_open = 0
        self.unearned = Fraction(0)
        self.seen: set[str] = set()
        self.ended: set[str] = set()
        self.close = self.env.close

    @property
    def agents(self) -> tuple[str, ...]:
        return self.env.agents

    def spaces(self, agent: str) -> Any:
        return self.env.spaces(agent)

    def reset(self, *, seed: int | None = None) -> JointStep:
        self.seen, self.ended = set(), set()
        return self._noted(self.env.reset(seed=seed))

    def step(self, actions: Any) -> JointStep:
        self.n_steps += 1
        self.n_acts += len(actions)
        self.n_open += len(actions)
        self.seen |= {*actions}
        return self._noted(self.env.step(actions))

    def _noted(self, now: JointStep) -> JointStep:
        self.unearned += sum(map(Fraction, now.unearned.values()), Fraction(0))
        self.n_open -= len(now.outcomes)
        self.ended |= {agent for agent, outcome in now.outcomes.items() if outcome.status.is_done}
        if now.is_over:
            self.n_over += 1
            assert self.ended == self.seen, "everybody who acted gets the last observation"
        return now


class PaidParallel:
    """Any Parallel environment; sums what it gives."""

    def __init__(self, env: Any) -> None:
        self.env, self.unwrapped, self.given = env, env.unwrapped, Fraction(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        return self.env.reset(seed=seed)

    def step(self, actions: Any) -> Any:
        result = self.env.step(actions)
        self.given += sum((Fraction(float(reward)) for reward in result[1].values()), Fraction(0))
        return result

    def outstanding(self) -> Fraction:
        """Rewards of actions that are not closed yet."""
        return Fraction(0)


class PaidAec(PaidParallel):
    """Any AEC environment."""

    def outstanding(self) -> Fraction:
        waiting = [agent for agent in self.env.agents if agent != self.env.agent_selection]
        found = self.env.unwrapped._cumulative_rewards
        return sum((Fraction(float(found[agent])) for agent in waiting), Fraction(0))

    def step(self, action: Any) -> Any:
        self.env.step(action)
        if action is not None:
            self.given += sum((Fraction(float(reward)) for reward in self.env.rewards.values()), Fraction(0))


class RandomSeat(LearningSeat):
    """Chooses among the allowed actions of any space; counts its calls."""

    def __init__(self, session: TrainingSession) -> None:
        super().__init__(session)
        self.env: Any = None
        self.n_calls = 0

    async def act(self, observations: Sequence[Any], actor_ids: Sequence[ActorId]) -> Sequence[Any]:
        self.n_calls += 1
        chosen: list[Any] = []
        for observation, actor_id in zip(observations, actor_ids, strict=True):
            space = self.env.spaces(str(actor_id).partition("/")[2])[1]
            mask = observation.get("action_mask") if isinstance(observation, dict) else None
            chosen.append(space.sample() if mask is None else space.sample(np.asarray(mask, np.int8)))
        return chosen


class Pair:
    """Two agents, red and blue, who act together for three steps.

    Args:
        spoil: changes the dicts of the second step of the first played episode, and the environment.
        blue: the space of blue's observations.
        agents: who plays.
    """

    def __init__(
        self, spoil: Any = None, *, blue: Any = SPACE, agents: Sequence[str] = ("red", "blue")
    ) -> None:
        self.possible_agents = [*agents]
        self.agents: list[str] = []
        self.spoil, self.blue, self.time, self.episode = spoil, blue, 0, -1

    def observation_space(self, agent: str) -> Any:
        return self.blue if agent == "blue" else SPACE

    def action_space(self, _: str) -> Any:
        return spaces.Discrete(3)

    def close(self) -> None:
        pass

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents, self.time, self.episode = [*self.possible_agents], 0, self.episode + 1
        self.seeds = [*getattr(self, "seeds", ()), seed]
        return {agent: np.zeros(4) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions: Any) -> Any:
        self.time += 1
        acted = self.agents
        is_over = self.time == 3
        self.agents = [] if is_over else [*acted]
        seen = {agent: np.full(4, float(self.time)) for agent in acted}
        ends = dict.fromkeys(acted, False), dict.fromkeys(acted, is_over)
        result = seen, dict.fromkeys(acted, 1.0), *ends, {agent: {} for agent in acted}
        if self.spoil is not None and (self.episode, self.time) == (1, 2):
            self.spoil(self, *result)
        return result


class Turns(AecColony):
    """The same as a game of turns: the colony without births, deaths and chance.

    Args:
        spoil: changes the environment after the third turn of the first played episode.
    """

    def __init__(self, spoil: Any = None) -> None:
        super().__init__(2, 3)
        self.possible_agents = ["red", "blue"]
        self.spoil = spoil

    def begin(self, seed: int | None) -> None:
        self.episode += 1
        self.time, self.n_turns, self.acted, self.agents = 0, 0, {}, [*self.possible_agents]

    def pay(self, agent: str) -> float:
        return 1.0

    def births(self) -> list[str]:
        return []

    def fates(self) -> dict[str, tuple[bool, bool]]:
        return dict.fromkeys(self.agents, (False, self.time >= self.longest))

    def step(self, action: Any) -> None:
        super().step(action)
        self.n_turns += 1
        if self.spoil is not None and (self.episode, self.n_turns) == (1, 3):
            self.spoil(self)
