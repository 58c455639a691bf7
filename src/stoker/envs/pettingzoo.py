"""PettingZoo's environments as joint environments: Parallel ones, and AEC ones, whose agents take turns.

Both are recognized by their methods, so that a user's own class needs no import of PettingZoo. A mask of
actions in ``infos[agent]["action_mask"]`` becomes a part of observations, as in ``ActionMaskObservation``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import gymnasium

from stoker.envs.gym import ARGUMENT_ERROR
from stoker.envs.joint import CheckedJointEnv, JointStep, Outcome
from stoker.envs.masks import MASK, mask_space, masked, n_choices, with_any_mask
from stoker.envs.protocol import JOINT
from stoker.envs.results import close_unused
from stoker.errors import ConfigError, InvalidJointStep, MissingDependency
from stoker.importing import import_named, imported_callable
from stoker.plain import as_float, shown
from stoker.types import EpisodeStatus


def make_pettingzoo(name: str, kwargs: Mapping[str, Any]) -> CheckedJointEnv:
    """Make the joint environment that a config names.

    Args:
        name: ``"pettingzoo:MODULE"``, whose ``parallel_env`` makes it, or else ``env``; or
            ``"pettingzoo:MODULE:FACTORY"``.
        kwargs: keyword arguments for that.

    Raises:
        ConfigError: There is no such module or factory, or it makes no joint environment.
        MissingDependency: The module needs PettingZoo, which is not installed.
    """
    module, _, factory = name.removeprefix(JOINT).partition(":")
    try:
        found = import_named(module, f"env={name!r}")
        if not factory:
            factory = "parallel_env" if hasattr(found, "parallel_env") else "env"
        make = imported_callable(f"{module}:{factory}", "env")
        env = make(**kwargs)
    except (ConfigError, ImportError, TypeError) as error:
        cause = error.__cause__ if isinstance(error, ConfigError) else error
        if isinstance(cause, ModuleNotFoundError) and cause.name == "pettingzoo":
            raise MissingDependency("pettingzoo", "pettingzoo") from error
        if isinstance(error, ConfigError):
            raise
        if isinstance(error, TypeError) and not ARGUMENT_ERROR.search(str(error)):
            raise  # a bug in the environment
        reason = " ".join(str(error).split())
        raise ConfigError(f"env={name!r} cannot be made: {reason}; see env_kwargs") from error
    try:
        return joint_env(env)
    except ConfigError:
        close_unused(env)
        raise


def is_joint(env: Any) -> bool:
    """Whether several agents play an environment together, by its methods."""
    return isinstance(env, CheckedJointEnv) or _has(env, "reset", "step", "spaces") or _is_pettingzoo(env)


def joint_env(env: Any) -> CheckedJointEnv:
    """A checked joint environment of a PettingZoo Parallel or AEC environment, or of a ``JointEnv``.

    Raises:
        ConfigError: It is none of these.
    """
    if isinstance(env, CheckedJointEnv):
        return env
    if _is_pettingzoo(env):
        return CheckedJointEnv(AecJoint(env) if _has(env, "last") else ParallelJoint(env))
    if is_joint(env):
        return CheckedJointEnv(env)
    raise ConfigError(
        f"a {type(env).__name__} is not an environment of several agents: give a PettingZoo Parallel or AEC "
        "environment (reset, step, observation_space(agent), action_space(agent)) or a stoker JointEnv"
    )


def _is_pettingzoo(env: Any) -> bool:
    return _has(env, "reset", "step", "observation_space", "action_space")


def _has(env: Any, *methods: str) -> bool:
    return all(callable(getattr(env, name, None)) for name in methods)


class _Adapter:
    """What both kinds share: the names of agents, their spaces and their masks.

    Args:
        env: the environment, which is reset once to see whether its infos hold masks.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self.unwrapped: Any = getattr(env, "unwrapped", env)
        self._ids: dict[str, Any] = {}  # of each agent that is known: PettingZoo's, which may be no text
        self._note(getattr(env, "possible_agents", ()))
        self._names_all = bool(self._ids)
        self._has_masks = False
        self._spaces: dict[str, tuple[Any, Any, Any]] = {}
        try:
            result = env.reset()
            infos: Any = env.infos if result is None else result[1]
            self._has_masks = any(MASK in info for info in infos.values())
        except Exception:  # noqa: BLE001 - it comes again, to a player
            return

    @property
    def agents(self) -> tuple[str, ...]:
        """``possible_agents``; without such those that have appeared so far."""
        if not self._names_all:
            self._note(getattr(self.env, "agents", ()))
        return tuple(self._ids)

    def spaces(self, agent: str) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
        """The spaces of an agent; its observations hold its mask of actions, if it has one."""
        ids = self._ids[agent]
        seen, action_space = self.env.observation_space(ids), self.env.action_space(ids)
        if not self._masks(seen, action_space):
            return seen, action_space
        known = self._spaces.get(agent)
        if known is None or known[0] is not seen:
            self._spaces[agent] = known = seen, mask_space(seen, n_choices(action_space)), action_space
        return known[1], action_space

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _note(self, ids: Iterable[Any]) -> None:
        self._ids.update((str(each), each) for each in ids)

    def _name(self, agent: Any) -> str:
        name = agent if agent.__class__ is str else str(agent)
        if name not in self._ids and not self._names_all:
            self._ids[name] = agent
        return name

    def _masks(self, seen: Any, action_space: Any) -> bool:
        has_own = MASK in getattr(seen, "spaces", ())
        return self._has_masks and not has_own and n_choices(action_space) > 0

    def _shown(self, agent: Any, observation: Any, info: Any, *, is_over: bool) -> Any:
        """The observation of an agent, with the mask of its info."""
        if not self._has_masks:
            return observation
        action_space = self.env.action_space(agent)
        if not self._masks(self.env.observation_space(agent), action_space):
            return observation
        if is_over:
            info = with_any_mask(info, n_choices(action_space))
        where = f"agent {agent!r} of {type(self.unwrapped).__name__}"
        return masked(observation, info, action_space, where)


class ParallelJoint(_Adapter):
    """A Parallel environment: all live agents act, and each of them gets an outcome."""

    def reset(self, *, seed: int | None = None) -> JointStep:
        """See ``JointEnv``.

        Raises:
            InvalidJointStep: An agent has no observation, or one that does not play has.
        """
        observations, infos = self._dicts(self.env.reset(seed=seed), 2, "reset")
        self._live = [*self.env.agents]
        self._check_alive(observations, {}, {*self._live})
        acting = self._newborn(self._live, observations, infos)
        return JointStep(acting, is_over=not acting)

    def step(self, actions: Mapping[str, Any]) -> JointStep:
        """See ``JointEnv``.

        Raises:
            InvalidJointStep: An agent is missing from a dict, or one that does not live is in one; or it left
                without an end, or stayed after it.
        """
        acted = self._live
        given = self.env.step({self._ids[name]: action for name, action in actions.items()})
        observations, rewards, terminations, truncations, infos = self._dicts(given, 5, "step")
        self._live = [*self.env.agents]
        live = {*self._live}
        outcomes: dict[str, Outcome] = {}
        acting: dict[str, Any] = {}
        # In each step, for each agent: kept short.
        has_masks, continuing = self._has_masks, EpisodeStatus.CONTINUING
        for agent in acted:
            name = agent if agent.__class__ is str else self._name(agent)
            try:
                terminated, truncated = bool(terminations[agent]), bool(truncations[agent])
                reward, seen = rewards[agent], observations[agent]
            except KeyError:
                raise InvalidJointStep(name, self._missing(agent, given)) from None
            is_over = terminated or truncated
            if is_over is (agent in live):
                problem = "is still in env.agents" if is_over else "has left env.agents"
                raise InvalidJointStep(name, f"{problem} with terminated={terminated}, truncated={truncated}")
            info = infos.get(agent, {})
            if has_masks:
                seen = self._shown(agent, seen, info, is_over=is_over)
            if is_over:
                outcomes[name] = Outcome(reward, seen, EpisodeStatus.of(terminated, truncated), info)
            else:
                outcomes[name] = Outcome(reward, seen, continuing, info)
                acting[name] = seen
        unearned: dict[str, float] = {}
        if live.difference(acted) or len(observations) > len(acted) or len(rewards) > len(acted):
            born = [agent for agent in self._live if agent not in acted]
            self._check_alive(observations, rewards, {*acted, *born})
            acting |= self._newborn(born, observations, infos)
            unearned = {self._name(agent): rewards[agent] for agent in born if rewards.get(agent)}
        return JointStep(acting, outcomes, not acting, unearned)

    def _newborn(self, agents: list[Any], observations: Any, infos: Any) -> dict[str, Any]:
        """The first observations of agents."""
        found: dict[str, Any] = {}
        for agent in agents:
            name = self._name(agent)
            if agent not in observations:
                raise InvalidJointStep(name, "plays and has no observation")
            found[name] = self._shown(agent, observations[agent], infos.get(agent, {}), is_over=False)
        return found

    def _check_alive(self, observations: Any, rewards: Any, alive: set[Any]) -> None:
        """Refuse what belongs to an agent that does not play."""
        for agent in observations:
            if agent not in alive:
                raise InvalidJointStep(self._name(agent), "has an observation and does not play: it is dead")
        for agent, reward in rewards.items():
            if agent not in alive and as_float(reward) != 0.0:
                problem = f"got a reward of {shown(reward)} without an action: it does not play"
                raise InvalidJointStep(self._name(agent), problem)

    def _missing(self, agent: Any, given: tuple[Any, ...]) -> str:
        names = ("observations", "rewards", "terminations", "truncations")
        missing = [name for name, part in zip(names, given, strict=False) if agent not in part]
        return f"acted and is missing from the {', '.join(missing)} of step"

    def _dicts(self, result: Any, count: int, method: str) -> tuple[Any, ...]:
        values = cast("tuple[Any, ...]", result if isinstance(result, tuple) else ())
        if len(values) != count or not all(
            each.__class__ is dict or isinstance(each, Mapping) for each in values
        ):
            raise ConfigError(
                f"{type(self.unwrapped).__name__}.{method} returned {shown(result)}: in a Parallel "
                f"environment {method} returns {count} dicts by agent"
            )
        return values


class AecJoint(_Adapter):
    """An AEC environment: one agent acts in each joint step.

    An action is closed at its agent's next turn, with all rewards since: the sum that ``last()`` gives. Dead
    agents are stepped with None, so each of them gets its last observation.
    """

    def reset(self, *, seed: int | None = None) -> JointStep:
        """See ``JointEnv``."""
        self.env.reset(seed=seed)
        self._open: set[Any] = set()
        return self._advance()

    def step(self, actions: Mapping[str, Any]) -> JointStep:
        """See ``JointEnv``.

        Raises:
            InvalidJointStep: It is the turn of an agent that does not play, or a dead one stays.
        """
        ((name, action),) = actions.items()
        self._open.add(self._ids[name])
        self.env.step(action)
        return self._advance()

    def _advance(self) -> JointStep:
        """Go on to the next agent that can act."""
        env = self.env
        outcomes: dict[str, Outcome] = {}
        unearned: dict[str, float] = {}
        while env.agents:
            agent = env.agent_selection
            name = self._name(agent)
            if agent not in env.agents:
                raise InvalidJointStep(name, "has the turn and does not play: it is dead, or never lived")
            seen, reward, terminated, truncated, info = env.last()
            status = EpisodeStatus.of(bool(terminated), bool(truncated))
            seen = self._shown(agent, seen, info, is_over=status.is_done)
            if agent in self._open:
                self._open.discard(agent)
                outcomes[name] = Outcome(reward, seen, status, info)
            elif as_float(reward) != 0.0:
                unearned[name] = reward
            if not status.is_done:
                return JointStep({name: seen}, outcomes, unearned=unearned)
            env.step(None)
            if agent in env.agents:
                raise InvalidJointStep(name, "is dead and still in env.agents after step(None)")
        return JointStep({}, outcomes, is_over=True, unearned=unearned)
