"""How the agent suite drives agents: as a session does, and with the same lessons for all of them.

Two actors play, in turns. The transitions are played once, by an agent of the suite's factory that acts and
learns; all other agents are fed these.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
import torch
from torch import nn

from stoker.agents.protocol import HasReplay, LearningAgent, Policy, PortablePolicy
from stoker.envs.owned import owned
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience

__all__ = [
    "ACTORS",
    "Lessons",
    "Played",
    "Said",
    "changed",
    "feed",
    "greedy",
    "is_close",
    "load_state",
    "state_of",
    "take",
    "through_file",
    "weights_of",
]

ACTORS: tuple[ActorId, ActorId] = (0, "one")
_N_OBSERVATIONS = 24
_DEEPEST = 3


class Said(NamedTuple):
    """What an agent had to say of a transition.

    Attributes:
        metrics: of ``learn``; None: it was skipped.
        extras: of the episode that ended with it; None: none did.
    """

    metrics: Mapping[str, float] | None
    extras: Mapping[str, float] | None


class Played(NamedTuple):
    """What came of an agent that played.

    Attributes:
        experiences: in the order in which they were observed.
        actions: in that order.
        said: what the agent had to say of each.
        state: the agent's, at the end.
    """

    experiences: list[Experience]
    actions: list[Any]
    said: list[Said]
    state: dict[str, Any]


class Lessons:
    """What the checks of an agent share.

    Args:
        make_agent: makes the agent.
        make_env: makes the environment.
        steps: how many transitions there are.
    """

    def __init__(
        self, make_agent: Callable[[], LearningAgent], make_env: Callable[[], Any], steps: int
    ) -> None:
        self.make_agent = make_agent
        self.steps = steps
        self._make_env = make_env

    @cached_property
    def experiences(self) -> list[Experience]:
        """The transitions of both actors."""
        return self.play(self.make_agent()).experiences

    @property
    def halves(self) -> tuple[list[Experience], list[Experience]]:
        """The same, cut in two; as a rule in the middle of episodes."""
        middle = len(self.experiences) // 2
        return self.experiences[:middle], self.experiences[middle:]

    @cached_property
    def observations(self) -> list[Any]:
        """Some that random actions lead to: no agent is needed for them."""
        env = self._make_env()
        try:
            env.action_space.seed(0)
            seen, is_over = [owned(env.reset(seed=3)[0])], False
            while len(seen) < _N_OBSERVATIONS:
                if is_over:
                    observation, is_over = env.reset()[0], False
                else:
                    observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
                    is_over = bool(terminated or truncated)
                seen.append(owned(observation))
            return seen
        finally:
            env.close()

    @cached_property
    def action_space(self) -> Any:
        """The environment's."""
        env = self._make_env()
        env.close()
        return env.action_space

    def trained(self) -> LearningAgent:
        """An agent that has had all of the lessons."""
        agent = self.make_agent()
        feed(agent, self.experiences)
        return agent

    def play(self, agent: LearningAgent) -> Played:
        """Have an agent act and learn."""
        envs = [self._make_env() for _ in ACTORS]
        try:
            return self._play(agent, envs)
        finally:
            for env in envs:
                env.close()

    def _play(self, agent: LearningAgent, envs: Sequence[Any]) -> Played:
        policy = agent.policy()
        seen = [owned(env.reset(seed=7 + place)[0]) for place, env in enumerate(envs)]
        for actor_id in ACTORS:
            agent.on_episode_start(actor_id)
        played = Played([], [], [], {})
        while len(played.experiences) < self.steps:
            actions, extras = policy.act(list(seen), ActMode.EXPLORE)
            for place, env in enumerate(envs):
                after, reward, terminated, truncated, _ = env.step(actions[place])
                after, status = owned(after), EpisodeStatus.of(terminated, truncated)
                policy_extras = None if extras is None else extras[place]
                experience = Experience(
                    seen[place], actions[place], float(reward), after, status, ACTORS[place], policy_extras
                )
                played.experiences.append(experience)
                played.actions.append(actions[place])
                played.said.append(take(agent, experience))
                seen[place] = owned(env.reset()[0]) if status.is_done else after
            agent.publish(policy)
        played.state.update(state_of(agent))
        return played


def take(agent: LearningAgent, experience: Experience) -> Said:
    """One transition, as a session hands it over."""
    agent.observe([experience])
    metrics, extras = agent.learn(), None
    if experience.status.is_done:
        extras = dict(agent.episode_extras(experience.actor_id))
        agent.on_episode_start(experience.actor_id)
    return Said(metrics, extras)


def feed(agent: LearningAgent, experiences: Sequence[Experience]) -> list[Said]:
    """Many of them."""
    return [take(agent, experience) for experience in experiences]


def greedy(policy: Policy, observations: Sequence[Any]) -> list[Any]:
    """What it would do, without exploring."""
    return list(policy.act(list(observations), ActMode.EXPLOIT)[0])


def changed(experience: Experience, **changes: Any) -> Experience:
    """The transition with other values."""
    return msgspec.structs.replace(experience, **changes)


def is_close(one: Any, other: Any) -> bool:
    """Whether two actions are the same; where they are floats, but for what a sum's order may change."""
    mine, its = np.asarray(one), np.asarray(other)
    if mine.dtype.kind == "f":
        return mine.shape == its.shape and np.allclose(mine, its, rtol=1e-3, atol=1e-5)
    return np.array_equal(mine, its)


def through_file(state: Any) -> Any:
    """What comes back of a state that was saved: with its own memory, and only what may be loaded."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def state_of(agent: LearningAgent) -> dict[str, Any]:
    """All that a checkpoint holds of an agent, as it comes back from one."""
    state: dict[str, Any] = {"agent": agent.state_dict()}
    if isinstance(agent, HasReplay):
        state["replay"] = agent.replay.state_dict()
    return through_file(state)


def load_state(agent: LearningAgent, state: dict[str, Any]) -> None:
    """Bring an agent to where ``state_of`` was taken."""
    agent.load_state_dict(state["agent"])
    if isinstance(agent, HasReplay):
        agent.replay.load_state_dict(state["replay"])


def weights_of(policy: Any) -> Any:
    """Copies of the tensors that a policy acts with, as far as they can be found."""
    if isinstance(policy, PortablePolicy):
        return through_file(policy.weights())
    return _tensors(policy, 0)


def _tensors(value: Any, depth: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, nn.Module):
        return {name: tensor.detach().clone() for name, tensor in value.state_dict().items()}
    parts: dict[Any, Any] = {}
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            parts = dict(cast("Mapping[Any, Any]", value))
        elif isinstance(value, list | tuple):
            parts = dict(enumerate(cast("Sequence[Any]", value)))
        elif not isinstance(value, type):
            parts = dict(getattr(value, "__dict__", {}))
    found = {key: _tensors(part, depth + 1) for key, part in parts.items()}
    return {key: tensors for key, tensors in found.items() if tensors is not None} or None
