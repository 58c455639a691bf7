"""Gymnasium's vector environments in rounds: one step's transitions, ended episodes and begun episodes.

A vector environment steps N sub-environments at once and begins their next episodes in one of three ways
(Gymnasium's ``AutoresetMode``). In each of them a ``Round`` holds exactly the transitions that were made: the
last observation of an episode is its own, never the first of the next one, and a step that only resets is no
transition. Arrays stay arrays, and are copied once in each round.

The sub-environments of a ``SyncVectorEnv`` are checked and copied from one by one. Those of an
``AsyncVectorEnv`` are in other processes, where Gymnasium has converted their results; with SAME_STEP it also
resets one before it sends the last observation, so an environment that reuses its array needs another mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from stoker.envs.results import (
    ARRAY_SPACES,
    BatchResults,
    PartWrapper,
    Results,
    ResultsWrapper,
    close_of,
    owned,
    then,
)
from stoker.envs.rounds import Outcome, Round, Values
from stoker.errors import ConfigError
from stoker.types import ActorId

SeedOf = Callable[[int], int | None]
"""The seed of the next episode of a sub-environment, by its index; None: it keeps its generator."""


class Moves(NamedTuple):
    """The input of a step.

    Attributes:
        actions: one per sub-environment; that of one that does not act is ignored.
        seed_of: called for each episode that this step resets, which is only where the environment does not
            reset itself (``AutoresetMode.DISABLED``) and takes a seed for each.
    """

    actions: Sequence[Any]
    seed_of: SeedOf = lambda _: None


class VectorRounds:
    """A vector environment that is stepped in rounds, with the interface of one environment.

    Args:
        env: the vector environment.
        actor_ids: the actor of each sub-environment; None: 0 to N - 1.

    Raises:
        ConfigError: It is not a vector environment, has another number of them, or does not say how it
            resets; it is closed.
    """

    checks_results = True
    """Its results need no further check or copy."""

    def __init__(self, env: VectorEnv[Any, Any, Any], actor_ids: Sequence[ActorId] | None = None) -> None:
        try:
            self.mode: AutoresetMode = _checked(env, actor_ids)
        except ConfigError:
            close_of(env)
            raise
        self._env: Any = env  # its spaces are of unknown things
        self.unwrapped: Any = env.unwrapped
        self._results = BatchResults(env)
        if isinstance(env.unwrapped, SyncVectorEnv):
            subs: list[Any] = env.unwrapped.envs
            for index, sub in enumerate(subs):
                if not isinstance(sub, ResultsWrapper):
                    subs[index] = PartWrapper(sub, Results(sub, f"sub-environment {index}"))
        self.num_envs: int = env.num_envs
        self._everyone = list(range(env.num_envs))
        self._actor_ids: tuple[ActorId, ...] = tuple(self._everyone if actor_ids is None else actor_ids)
        self.observation_space: Any = self._env.single_observation_space
        self.action_space: Any = self._env.single_action_space
        self.takes_seeds: bool = isinstance(env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
        """Whether ``reset`` takes a seed for each sub-environment; others take one number, or none."""
        self._has_arrays = isinstance(self.observation_space, ARRAY_SPACES)
        self._takes_arrays = isinstance(self.action_space, ARRAY_SPACES)
        self._shown, self._actions = Values([]), Values([])
        self._ended: list[int] = []  # sub-environments that the environment resets in the next step
        self._acting, self._acting_ids = self._everyone, self._actor_ids
        self._where: NDArray[np.intp] | None = None

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Round, Mapping[str, Any]]:
        """Begin an episode in each sub-environment: a round without transitions, and the info.

        Args:
            seed: a ``SeedOf``, or None. Where all share one seed, it is that of the first sub-environment.
            options: as in Gymnasium.
        """
        seed_of: SeedOf = (lambda _: None) if seed is None else seed
        seeds = [seed_of(index if self.takes_seeds else 0) for index in range(self.num_envs)]
        given = None if seeds[0] is None else seeds if self.takes_seeds else seeds[0]
        observations, info = self._results.reset(self._env.reset(seed=given, options=options))
        self._shown, self._ended = self._values(observations), []
        return self._round(None, list(enumerate(seeds))), info

    def step(self, moves: Moves) -> tuple[Round, float, bool, bool, Mapping[str, Any]]:
        """Step all sub-environments once, and reset those that ended where the environment does not.

        Returns:
            Gymnasium's five values: the round, the sum of its rewards, twice False, and the info.

        Raises:
            ConfigError: The actions do not fit the action space, or the environment breaks the rules of its
                ``AutoresetMode``.
        """
        resetting, acted, where, before = self._ended, self._acting, self._where, self._shown
        self._actions = actions = self._moved(moves.actions)
        given: Any = self._results.step(self._env.step(self._together(actions)))
        observations, rewards, terminated, truncated, info = given
        self._shown = last = self._values(observations)
        ended: list[int] = (terminated | truncated).nonzero()[0].tolist()
        if ended and self.mode is AutoresetMode.SAME_STEP:
            last = last.replaced(self._finals(info, ended))
        if resetting:
            rewards, terminated, truncated = rewards[where], terminated[where], truncated[where]
        truncated = truncated > terminated
        flags = rewards, terminated, truncated
        outcome = Outcome(acted, self._acting_ids, before, actions, *flags, last, where)
        begun = self._begin(resetting, ended, moves.seed_of) if ended or resetting else []
        return self._round(outcome, begun), float(rewards.sum()), False, False, info

    def close(self) -> None:
        """Close the environment; where that fails, end its worker processes."""
        try:
            self._env.close()
        except BaseException:
            for process in getattr(self._env.unwrapped, "processes", ()):
                process.terminate()
            self._env.unwrapped.closed = True  # else it would try again when it is freed
            raise

    def _begin(self, resetting: list[int], ended: list[int], seed_of: SeedOf) -> list[tuple[int, int | None]]:
        """The episodes that have begun, also those that are reset here."""
        if self.mode is AutoresetMode.DISABLED:
            return self._reset_ended(ended, seed_of)
        if self.mode is AutoresetMode.SAME_STEP:
            return [(index, None) for index in ended]
        if again := sorted({*resetting}.intersection(ended)):
            raise ConfigError(
                f"a {type(self._env.unwrapped).__name__} with autoreset_mode NEXT_STEP ended an episode of "
                f"sub-environment {again[0]} in the step that only begins it: set the autoreset_mode that "
                "the environment has, or both flags to False in that step"
            )
        self._ended = ended
        return [(index, None) for index in resetting]

    def _reset_ended(self, ended: list[int], seed_of: SeedOf) -> list[tuple[int, int | None]]:
        mask = np.isin(np.arange(self.num_envs), ended)
        seeds = [seed_of(index) if mask[index] and self.takes_seeds else None for index in range(len(mask))]
        seed: Any = seeds if self.takes_seeds else None
        observations, _ = self._results.reset(self._env.reset(seed=seed, options={"reset_mask": mask}))
        firsts = self._values(observations).all
        # Of the others it may show anything: their episodes go on.
        self._shown = self._shown.replaced({index: firsts[index] for index in ended})
        return [(index, seeds[index]) for index in ended]

    def _round(self, outcome: Outcome | None, begun: list[tuple[int, int | None]]) -> Round:
        if not self._ended:
            self._acting, self._acting_ids, self._where = self._everyone, self._actor_ids, None
        else:
            self._acting, ids = self._everyone.copy(), list(self._actor_ids)
            for index in reversed(self._ended):
                del self._acting[index], ids[index]
            self._acting_ids, self._where = tuple(ids), np.array(self._acting, np.intp)
        return Round(self._shown, self._acting, self._acting_ids, self._where, outcome, begun)

    def _values(self, observations: Any) -> Values:
        """The observation of each, from a copy of what the environment gave."""
        if self._has_arrays and isinstance(observations, np.ndarray):
            return Values(cast("NDArray[Any]", observations))
        return Values(list(iterate(self._env.observation_space, observations)))

    def _moved(self, given: Sequence[Any]) -> Values:
        """A copy of the actions; a sub-environment that resets repeats its last one, which is ignored.

        Raises:
            ConfigError: They are no arrays of one shape.
        """
        if not self._takes_arrays:
            actions = owned(list(given))
            for index in self._ended:  # of the right form
                actions[index] = self._actions.all[index]
            return Values(actions)
        acted, resetting = self._acting, self._ended
        if not acted:
            return self._actions
        try:
            actions: Any = given
            if type(actions) is np.ndarray:
                actions = actions.copy()
                if resetting:
                    actions[resetting] = self._actions.of(resetting)
                return Values(actions)
            actions = np.array([given[index] for index in acted])
            if resetting:
                whole = np.empty((self.num_envs, *actions.shape[1:]), actions.dtype)
                whole[acted], whole[resetting] = actions, self._actions.of(resetting)
                actions = whole
        except (TypeError, ValueError) as error:
            raise self._misfit(given, error) from error
        return Values(actions)

    def _together(self, actions: Values) -> Any:
        """A copy of the actions as the environment takes them.

        Raises:
            ConfigError: They do not fit the action space.
        """
        space, values = self._env.single_action_space, actions.all
        if not isinstance(values, list) and values.shape != (shape := (self.num_envs, *space.shape)):
            raise self._misfit(values, f"their shape is {values.shape}, not {shape}")
        try:
            if isinstance(values, list):
                return concatenate(space, values, create_empty_array(space, self.num_envs))
            return values.astype(space.dtype, casting="same_kind")
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise self._misfit(values, error) from error

    def _misfit(self, actions: Any, why: object) -> ConfigError:
        return ConfigError(f"the actions {actions!r} do not fit {self.action_space}: {why}")

    def _finals(self, info: Mapping[str, Any], ended: list[int]) -> dict[int, Any]:
        """The last observation of each ended episode, which the first one of the next has replaced."""
        finals: Any = info.get("final_obs")
        if isinstance(finals, dict | tuple):  # batched, as observations are
            finals = list(iterate(self._env.observation_space, cast("Any", finals)))
        for index in ended:
            if finals is None or finals[index] is None:
                raise ConfigError(
                    f"a {type(self._env.unwrapped).__name__} with autoreset_mode SAME_STEP ended an episode "
                    f"of sub-environment {index} without its last observation in info['final_obs']: without "
                    "that no transition is whole; use another autoreset_mode"
                )
            if self._has_arrays and np.shape(finals[index]) != self.observation_space.shape:
                raise ConfigError(
                    f"info['final_obs'] of sub-environment {index} has shape {np.shape(finals[index])}, not "
                    f"{self.observation_space.shape}: Gymnasium's is the last observation of the episode"
                )
        return {index: owned(finals[index]) for index in ended}


def in_rounds(make_env: Callable[[], Any], actor_ids: Sequence[ActorId] | None = None) -> Any:
    """Make a vector environment and have it in rounds; an awaitable of that if ``make_env`` is async."""
    return then(make_env(), partial(VectorRounds, actor_ids=actor_ids))


def autoreset_mode(env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """The way of a vector environment to begin episodes, from ``metadata["autoreset_mode"]``.

    Raises:
        ConfigError: It is missing, or none of the modes, their values or names. A wrong guess would mix up
            episodes unseen.
    """
    said: Any = env.metadata.get("autoreset_mode")
    for mode in AutoresetMode:
        if said in (mode, mode.value, mode.name):
            return mode
    choices = ", ".join(f"AutoresetMode.{mode.name}" for mode in AutoresetMode)
    problem = "does not say" if said is None else f"says {said!r} of"
    raise ConfigError(
        f"a {type(env.unwrapped).__name__} {problem} how it begins the next episodes: set "
        f'env.metadata["autoreset_mode"] to one of {choices}'
    )


def _checked(env: Any, actor_ids: Sequence[ActorId] | None) -> AutoresetMode:
    if not isinstance(env, VectorEnv):
        raise ConfigError(
            f"make_env gave a {type(env).__name__}, which is not a gymnasium.vector.VectorEnv: make one with "
            "gymnasium.make_vec or SyncVectorEnv, or play single environments with run_actors"
        )
    vector = cast("VectorEnv[Any, Any, Any]", env)
    if actor_ids is not None and vector.num_envs != len(actor_ids):
        raise ConfigError(
            f"{len(actor_ids)} actor ids for a vector environment of {vector.num_envs}: give one for each "
            "sub-environment, or none for 0 to N - 1"
        )
    return autoreset_mode(vector)
