"""The agent suite drives agents as a session does, and feeds the same transitions to all of them.

Two actors take turns. One agent of the suite's factory plays the transitions while it learns; every other
agent is fed these transitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from stoker.agents.protocol import HasReplay, LearningAgent, Policy, PortablePolicy
from stoker.envs.results import owned
from stoker.testing.contract import through_file
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience

__all__ = [
    "ACTORS",
    "AgentSuite",
    "Report",
    "feed",
    "greedy",
    "is_close",
    "load_state",
    "reshaped",
    "snapshot",
    "state_of",
]

ACTORS: tuple[ActorId, ActorId] = (0, "one")
_N_OBSERVATIONS = 24


class Report(NamedTuple):
    """What an agent reports about one transition.

    Attributes:
        metrics: from ``learn``; None if it skipped the step.
        extras: from ``episode_extras`` if the transition ended an episode, else None.
    """

    metrics: Mapping[str, float] | None
    extras: Mapping[str, float] | None


class AgentSuite:
    """The factories and the transitions that all checks of an agent share.

    Args:
        make_agent: makes the agent, each time with the same seed and settings.
        make_env: makes a ``gymnasium.Env`` that the agent can learn from.
        steps: the number of transitions; the warm-up must end within the first half.
    """

    def __init__(
        self, make_agent: Callable[[], LearningAgent], make_env: Callable[[], Any], *, steps: int = 300
    ) -> None:
        self.make_agent = make_agent
        self.steps = steps
        self._make_env = make_env

    @cached_property
    def experiences(self) -> list[Experience]:
        """The transitions of both actors, interleaved."""
        return self.play(self.make_agent())[0]

    @cached_property
    def observations(self) -> list[Any]:
        """Observations of random actions."""
        found: list[Any] = []
        is_over = True
        with closing(self._make_env()) as env:
            env.action_space.seed(0)
            while len(found) < _N_OBSERVATIONS:
                if is_over:
                    (observation, _), is_over = env.reset(seed=None if found else 3), False
                else:
                    observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
                    is_over = bool(terminated or truncated)
                found.append(owned(observation))
        return found

    @cached_property
    def action_space(self) -> Any:
        """The environment's action space."""
        with closing(self._make_env()) as env:
            return env.action_space

    def trained(self) -> LearningAgent:
        """An agent that learned all transitions."""
        agent = self.make_agent()
        feed(agent, self.experiences)
        return agent

    def play(self, agent: LearningAgent) -> tuple[list[Experience], list[Report]]:
        """Let an agent act and learn; return its transitions and its reports about them, in order."""
        experiences: list[Experience] = []
        reports: list[Report] = []
        with ExitStack() as opened:
            envs = [opened.enter_context(closing(self._make_env())) for _ in ACTORS]
            policy = agent.policy()
            observations = [owned(env.reset(seed=7 + place)[0]) for place, env in enumerate(envs)]
            for actor_id in ACTORS:
                agent.on_episode_start(actor_id)
            while len(experiences) < self.steps:
                actions, extras = policy.act(list(observations), ActMode.EXPLORE)
                for place, env in enumerate(envs):
                    after, reward, terminated, truncated, _ = env.step(actions[place])
                    after, status = owned(after), EpisodeStatus.of(terminated, truncated)
                    experience = Experience(
                        observations[place],
                        actions[place],
                        float(reward),
                        after,
                        status,
                        ACTORS[place],
                        None if extras is None else extras[place],
                    )
                    experiences.append(experience)
                    reports.extend(feed(agent, [experience]))
                    observations[place] = owned(env.reset()[0]) if status.is_done else after
                agent.publish(policy)
        return experiences, reports


def feed(agent: LearningAgent, experiences: Sequence[Experience]) -> list[Report]:
    """Hand transitions to an agent one by one, as a session does."""
    reports: list[Report] = []
    for experience in experiences:
        agent.observe([experience])
        metrics, extras = agent.learn(), None
        if experience.status.is_done:
            extras = dict(agent.episode_extras(experience.actor_id))
            agent.on_episode_start(experience.actor_id)
        reports.append(Report(metrics, extras))
    return reports


def greedy(policy: Policy, observations: Sequence[Any]) -> list[Any]:
    """The policy's actions without exploration."""
    return list(policy.act(list(observations), ActMode.EXPLOIT)[0])


def snapshot(policy: Policy, suite: AgentSuite) -> dict[str, Any]:
    """The greedy actions of a policy and, if it has them, its weights, to compare it with another one."""
    if isinstance(policy, PortablePolicy):
        weights = through_file(policy.weights())
    else:
        parts = getattr(policy, "__dict__", {}).items()
        modules = {name: part.state_dict() for name, part in parts if isinstance(part, torch.nn.Module)}
        weights = through_file(modules)
    return {"weights": weights, "actions": greedy(policy, suite.observations)}


def is_close(one: Any, other: Any) -> bool:
    """Whether two actions are equal; floats may differ by what the order of a sum changes."""
    mine, its = np.asarray(one), np.asarray(other)
    if mine.dtype.kind == "f":
        return mine.shape == its.shape and np.allclose(mine, its, rtol=1e-3, atol=1e-5)
    return np.array_equal(mine, its)


def state_of(agent: LearningAgent) -> dict[str, Any]:
    """Everything that a checkpoint holds of an agent, read back from a file."""
    state: dict[str, Any] = {"agent": agent.state_dict()}
    if isinstance(agent, HasReplay):
        state["replay"] = agent.replay.state_dict()
    return through_file(state)


def load_state(agent: LearningAgent, state: dict[str, Any]) -> None:
    """Restore an agent from ``state_of``."""
    agent.load_state_dict(state["agent"])
    if isinstance(agent, HasReplay):
        agent.replay.load_state_dict(state["replay"])


def reshaped(state: Any) -> Any:
    """The state with each of its float tensors one entry longer."""
    if isinstance(state, torch.Tensor):
        return torch.cat([state, state[:1]]) if state.ndim and state.is_floating_point() else state
    if isinstance(state, dict):
        return {key: reshaped(part) for key, part in cast("dict[Any, Any]", state).items()}
    if isinstance(state, list | tuple):
        return [reshaped(part) for part in cast("Sequence[Any]", state)]
    return state
