"""Environments that several agents play together: who acts, and what the last action of each led to.

    reset --> JointStep(acting) --> actions of the acting --> step --> JointStep(outcomes, acting) --> ...

One protocol serves environments whose agents act at the same time and those whose agents take turns.

Guarantee of ``CheckedJointEnv``: each action has exactly one outcome, before its agent acts again or when its
agent dies, and at the end every open action has one. Observations are copies. What breaks that is an
``InvalidJointStep`` that names the agent.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import gymnasium
import msgspec

from stoker.envs.results import IMMUTABLE, Results, owned, then
from stoker.errors import ConfigError, InvalidJointStep
from stoker.plain import as_float, shown
from stoker.types import EpisodeStatus

_CONTINUING = EpisodeStatus.CONTINUING


class Outcome(msgspec.Struct, frozen=True, eq=False):
    """What the last action of an agent led to.

    Attributes:
        reward: the sum of all rewards that the agent was given since that action, finite.
        next_observation: what the agent sees now; of one that died, the last that it saw.
        status: of the agent; CONTINUING: it acts again in this joint step.
        info: of the agent.
    """

    reward: float
    next_observation: Any
    status: EpisodeStatus
    info: Mapping[str, Any] = {}


class JointStep(msgspec.Struct, frozen=True, eq=False):
    """The result of a reset or of a step of all who acted.

    Attributes:
        acting: the observation of each agent that must act now.
        outcomes: of the agents whose last action is closed: those that act again, and those that died.
        is_over: whether nobody is left; then nobody acts, and every action has its outcome.
        unearned: rewards of agents without an open action, such as one that has not acted yet. They are part
            of a score, but there is no action to learn them for.
    """

    acting: Mapping[str, Any]
    outcomes: Mapping[str, Outcome] = {}
    is_over: bool = False
    unearned: Mapping[str, float] = {}

    def rewards(self) -> Iterator[tuple[str, float]]:
        """All rewards of this step by agent, those without an action too."""
        for agent, outcome in self.outcomes.items():
            yield agent, outcome.reward
        yield from self.unearned.items()


class JointEnv(Protocol):
    """An environment of several agents; ``reset`` and ``step`` may be plain or async.

    It may also have ``close()``, plain or async. ``stoker.testing.check_joint_env`` checks your own.
    """

    @property
    def agents(self) -> tuple[str, ...]:
        """All agents that may appear, or those that have appeared so far."""
        ...

    def spaces(self, agent: str) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
        """The spaces of an agent's observations and actions."""
        ...

    def reset(self, *, seed: int | None = None) -> JointStep | Awaitable[JointStep]:
        """Begin an episode; actions that are open are abandoned. No seed: the generator goes on."""
        ...

    def step(self, actions: Mapping[str, Any], /) -> JointStep | Awaitable[JointStep]:
        """Do the actions of all who must act."""
        ...


class _AgentView(NamedTuple):
    """What ``Results`` needs of one agent's environment."""

    observation_space: Any
    unwrapped: Any


class CheckedJointEnv:
    """A joint environment whose results are checked and copied; actors play it like a single one.

    Args:
        env: the environment.

    Attributes:
        env: the same.
    """

    checks_results = True
    """Its results need no further check or copy."""

    def __init__(self, env: JointEnv) -> None:
        self.env = env
        self.unwrapped: Any = getattr(env, "unwrapped", env)
        self._name = type(self.unwrapped).__name__
        self._results: dict[str, tuple[Any, Results]] = {}  # of each agent, and its space
        self._open: set[str] = set()  # agents whose action has no outcome yet
        self._acting: set[str] = set()

    @property
    def agents(self) -> tuple[str, ...]:
        """All agents that may appear, or those that have appeared so far."""
        return tuple(self.env.agents)

    def spaces(self, agent: str) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
        """The spaces of an agent's observations and actions."""
        return self.env.spaces(agent)

    def reset(self, *, seed: int | None = None) -> Any:
        """See ``JointEnv``.

        Raises:
            InvalidJointStep: Nobody acts, an agent is unknown, or there are outcomes without an action.
            InvalidExperience, ConfigError: As for ``stoker.envs.results.Results``.
        """
        self._open.clear()
        return then(self.env.reset(seed=seed), self._checked)

    def step(self, actions: Mapping[str, Any]) -> Any:
        """See ``JointEnv``; the environment gets copies of the actions.

        Raises:
            InvalidJointStep: The result breaks the guarantee, or a reward is not finite.
            InvalidExperience, ConfigError: As for ``stoker.envs.results.Results``.
        """
        if wrong := actions.keys() ^ self._acting:
            agent = next(iter(wrong))
            must = "has no action, and must act", "has an action, and cannot act"
            raise InvalidJointStep(agent, must[agent not in self._acting])
        self._open |= self._acting
        given = {
            agent: action if action.__class__ in IMMUTABLE else owned(action)
            for agent, action in actions.items()
        }
        result: Any = self.env.step(given)
        return self._checked(result) if result.__class__ is JointStep else then(result, self._checked)

    def close(self) -> Any:
        """Close the environment, if it has a ``close``."""
        close = getattr(self.env, "close", None)
        return None if close is None else close()

    def _checked(self, now: JointStep) -> JointStep:
        """The step in plain numbers, with copies of observations; notes whose actions are open."""
        if not isinstance(now, JointStep):  # pyright: ignore[reportUnnecessaryIsInstance] - the user's
            raise ConfigError(f"{self._name} gave {shown(now)}: a joint environment gives a JointStep")
        acting: dict[str, Any] = {}
        outcomes = {agent: self._closed(agent, outcome, now) for agent, outcome in now.outcomes.items()}
        for agent, observation in now.acting.items():
            if (outcome := outcomes.get(agent)) is not None:
                acting[agent] = outcome.next_observation
            elif agent in self._open:
                raise InvalidJointStep(agent, "must act again, but its last action has no outcome")
            else:
                acting[agent] = self._results_of(agent).reset((observation, {}))[0]
        if now.is_over and (acting or self._open):
            agent = next(iter(acting or self._open))
            raise InvalidJointStep(agent, "acts, or waits for an outcome, after the end of the episode")
        if not now.is_over and not acting:
            raise InvalidJointStep(
                next(iter(self._open or outcomes or self.agents), "?"),
                "cannot act, and neither can another, but the episode is not over",
            )
        unearned = {agent: _finite(agent, reward) for agent, reward in now.unearned.items()}
        if earned := unearned.keys() & outcomes.keys():
            raise InvalidJointStep(next(iter(earned)), "has an outcome and another reward without an action")
        self._acting = set(acting)
        return JointStep(acting, outcomes, now.is_over, unearned)

    def _closed(self, agent: str, outcome: Outcome, now: JointStep) -> Outcome:
        """An outcome in plain numbers; the agent's action is closed."""
        if agent not in self._open:
            raise InvalidJointStep(agent, f"got a reward of {shown(outcome.reward)} without an action")
        status, reward, info = outcome.status, outcome.reward, outcome.info
        if (agent in now.acting) is not (status is _CONTINUING):
            problem = "acts after its last step" if status.is_done else "goes on, but does not act"
            raise InvalidJointStep(agent, f"has status {status.value} and {problem}")
        if reward.__class__ is not float or reward - reward != 0.0:
            reward = _finite(agent, reward)
        results = self._results_of(agent)
        if info.__class__ is dict:  # nearly always: kept short, as this is done for each agent
            observation = results.taken(outcome.next_observation, "step")
        else:
            observation, *_, info = results.step((outcome.next_observation, reward, False, False, info))
        self._open.discard(agent)
        return Outcome(reward, observation, status, info)

    def _results_of(self, agent: str) -> Results:
        """The checks of one agent's observations; anew if its space is another object than before."""
        if (known := self._results.get(agent)) is not None and agent in self._open:
            return known[1]
        if agent not in self.agents:
            raise InvalidJointStep(agent, f"is none of the agents {', '.join(map(repr, self.agents))}")
        space = self.spaces(agent)[0]
        if known is None or known[0] is not space:
            name = f"agent {agent!r} of {self._name}"
            known = self._results[agent] = space, Results(_AgentView(space, self.unwrapped), name)
        return known[1]


def shared_spaces(
    env: JointEnv | CheckedJointEnv, agents: Iterable[str], policy: str = "one policy"
) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
    """The spaces of observations and actions that agents under one policy share.

    Args:
        env: the environment.
        agents: those of the policy, at least one.
        policy: names it in messages.

    Raises:
        ConfigError: Two agents have different spaces, or there is no agent.
    """
    first: str | None = None
    found: tuple[gymnasium.Space[Any], gymnasium.Space[Any]] | None = None
    for agent in agents:
        spaces = env.spaces(agent)
        if found is None:
            first, found = agent, spaces
        for kind, one, other in zip(("observations", "actions"), found, spaces, strict=True):
            if one is not other and one != other:
                raise ConfigError(
                    f"agents {first!r} and {agent!r} under {policy} have different {kind}: {one} and "
                    f"{other}; give them policies of their own, or pad their spaces (supersuit has wrappers)"
                )
    if found is None:
        raise ConfigError(f"no agent is known for {policy}: an environment names its possible_agents")
    return found


def _finite(agent: str, reward: Any) -> float:
    value = as_float(reward)
    if value is None or not math.isfinite(value):
        raise InvalidJointStep(agent, f"got reward={shown(reward)}: a reward is one finite number")
    return value
