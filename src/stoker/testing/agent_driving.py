"""The agent suite drives agents as a session does, and feeds the same transitions to all of them.

Two actors take turns. One agent of the suite's factory plays the transitions while it learns; every other
agent is fed these transitions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from typing import Any, TypeAlias

import msgspec
import numpy as np
import torch

from stoker.agents.protocol import HasReplay, LearningAgent, Policy, PortablePolicy
from stoker.envs.results import owned
from stoker.nested import has_tuple
from stoker.testing.contract import through_file
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience, ExperienceBatch

ACTORS: tuple[ActorId, ActorId] = (0, "one")
_N_OBSERVATIONS = 24

ActResult: TypeAlias = tuple[Sequence[Any], Sequence[Any] | None]
"""An action per observation, and as many policy extras or None."""

Report: TypeAlias = tuple[Mapping[str, float] | None, Mapping[str, float] | None]
"""The metrics of ``learn`` after one transition, and the extras of the episode that it ended."""


class AgentSuite(msgspec.Struct, dict=True, eq=False):
    """The factories and the transitions that all checks of an agent share.

    Attributes:
        make_agent: makes the agent, each time with the same seed and settings.
        make_env: makes a ``gymnasium.Env`` that the agent can learn from.
        steps: the number of transitions; the warm-up must end within the first half.
    """

    make_agent: Callable[[], LearningAgent]
    make_env: Callable[[], Any]
    steps: int = 300

    @cached_property
    def experiences(self) -> list[Experience]:
        """The transitions of both actors, interleaved."""
        return self.play(self.make_agent())[0]

    @cached_property
    def observations(self) -> list[Any]:
        """Observations of random actions."""
        space = self.action_space
        space.seed(0)
        played = self._transitions(lambda seen: ([space.sample() for _ in seen], None), _N_OBSERVATIONS)
        return [experience.observation for experience in played]

    @property
    def has_columns(self) -> bool:
        """Whether observations can be columns of a batch: arrays, or dicts of such, but not tuples."""
        return not has_tuple(self.observations[0])

    @cached_property
    def action_space(self) -> Any:
        """The environment's action space."""
        with closing(self.make_env()) as env:
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
        policy = agent.policy()

        def act(observations: list[Any]) -> ActResult:
            agent.publish(policy)
            return policy.act(observations, ActMode.EXPLORE)

        for actor_id in ACTORS:
            agent.on_episode_start(actor_id)
        with closing(self._transitions(act, self.steps)) as transitions:
            for experience in transitions:
                experiences.append(experience)
                reports.extend(feed(agent, [experience]))
        return experiences, reports

    def _transitions(self, act: Callable[[list[Any]], ActResult], count: int) -> Generator[Experience]:
        """This many transitions of both actors, interleaved; ``act`` chooses the actions of both."""
        with ExitStack() as opened:
            envs = [opened.enter_context(closing(self.make_env())) for _ in ACTORS]
            observations = [owned(env.reset(seed=7 + place)[0]) for place, env in enumerate(envs)]
            for _ in range(0, count, len(ACTORS)):
                actions, extras = act(list(observations))
                for place, (actor_id, env) in enumerate(zip(ACTORS, envs, strict=True)):
                    before, action = observations[place], actions[place]
                    after, reward, terminated, truncated, _ = env.step(action)
                    after, status = owned(after), EpisodeStatus.of(terminated, truncated)
                    policy_extras = None if extras is None else extras[place]
                    yield Experience(before, action, float(reward), after, status, actor_id, policy_extras)
                    observations[place] = owned(env.reset()[0]) if status.is_done else after

    def snapshot(self, policy: Policy) -> dict[str, Any]:
        """The greedy actions of a policy and, if it has them, its weights, to compare it with another one."""
        if isinstance(policy, PortablePolicy):
            weights = policy.weights()
        else:
            parts = getattr(policy, "__dict__", {}).items()
            weights = {name: part.state_dict() for name, part in parts if isinstance(part, torch.nn.Module)}
        return {"weights": through_file(weights), "actions": greedy(policy, self.observations)}


def feed(agent: LearningAgent, experiences: Sequence[Experience]) -> list[Report]:
    """Hand transitions to an agent one by one, as a session does."""
    reports: list[Report] = []
    for experience in experiences:
        agent.observe([experience])
        metrics, extras = agent.learn(), None
        if experience.status.is_done:
            extras = dict(agent.episode_extras(experience.actor_id))
            agent.on_episode_start(experience.actor_id)
        reports.append((metrics, extras))
    return reports


def as_batch(experiences: Sequence[Experience], *, with_extras: bool = True) -> ExperienceBatch:
    """Transitions as columns."""
    statuses = [experience.status for experience in experiences]
    extras = [experience.policy_extras for experience in experiences]
    return ExperienceBatch(
        _column([experience.observation for experience in experiences]),
        _column([experience.action for experience in experiences]),
        np.array([experience.reward for experience in experiences]),
        _column([experience.next_observation for experience in experiences]),
        np.array([status is EpisodeStatus.TERMINATED for status in statuses]),
        np.array([status is EpisodeStatus.TRUNCATED for status in statuses]),
        tuple(experience.actor_id for experience in experiences),
        np.array(extras) if with_extras and extras[0] is not None else None,
    )


def _column(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        return {key: _column([value[key] for value in values]) for key in values[0]}  # pyright: ignore[reportUnknownVariableType]
    return np.array(values)


def greedy(policy: Policy, observations: Sequence[Any]) -> list[Any]:
    """The policy's actions without exploration."""
    return list(policy.act(list(observations), ActMode.EXPLOIT)[0])


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
