"""Gymnasium's vector environments in rounds: one step's transitions, ended episodes and begun episodes.

A vector environment steps N sub-environments at once and begins their next episodes in one of three ways
(Gymnasium's ``AutoresetMode``). In each of them a ``Round`` holds exactly the transitions that were made: the
last observation of an episode is its own, never the first of the next one, and a step that only resets is no
transition. Every observation is a copy.

The sub-environments of a ``SyncVectorEnv`` are checked and copied from one by one. Those of an
``AsyncVectorEnv`` are in other processes, where Gymnasium has converted their results; with SAME_STEP it also
resets one before it sends the last observation, so an environment that reuses its array needs another mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from stoker.envs.results import BatchResults, Results, ResultsWrapper, close_of, owned
from stoker.errors import ConfigError
from stoker.types import ActorId, EpisodeStatus, Experience

__all__ = ["Moves", "Round", "SeedOf", "VectorRounds", "autoreset_mode"]


SeedOf = Callable[[int], int | None]
"""The seed of the next episode of a sub-environment, by its index; None: it keeps its generator."""


class Round(NamedTuple):
    """The result of a reset or a step of all sub-environments.

    Attributes:
        observations: the present observation of each, by index.
        acting: the indices that need an action for the next step, in order.
        transitions: one for each index that acted before, in that order; none after a reset.
        begun: the index of each that shows the first observation of an episode, and the seed of that episode;
            None where it is unknown.
    """

    observations: list[Any]
    acting: list[int]
    transitions: list[Experience]
    begun: list[tuple[int, int | None]]


class Moves(NamedTuple):
    """The input of a step.

    Attributes:
        actions: one per sub-environment; that of one that does not act is ignored.
        seed_of: called for each episode that this step resets, which is only where the environment does not
            reset itself (``AutoresetMode.DISABLED``) and takes a seed for each.
    """

    actions: Sequence[Any]
    seed_of: SeedOf


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
            self.mode = _checked(env, actor_ids)
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
                    subs[index] = ResultsWrapper(sub, Results(sub, f"sub-environment {index}"))
        self.num_envs = env.num_envs
        self._actor_ids = range(env.num_envs) if actor_ids is None else actor_ids
        self.observation_space: Any = self._env.single_observation_space
        self.action_space: Any = self._env.single_action_space
        self.takes_seeds = isinstance(env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
        """Whether ``reset`` takes a seed for each sub-environment; others take one number, or none."""
        self._observations: list[Any] = []
        self._actions: list[Any] = []
        self._ended: set[int] = set()  # sub-environments that the environment resets in the next step

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
        self._observations, self._actions, self._ended = self._apart(observations), [], set()
        return self._round([], list(enumerate(seeds))), info

    def step(self, moves: Moves) -> tuple[Round, float, bool, bool, Mapping[str, Any]]:
        """Step all sub-environments once, and reset those that ended where the environment does not.

        Returns:
            Gymnasium's five values: the round, the sum of its rewards, twice False, and the info.

        Raises:
            ConfigError: The actions do not fit the action space, or the environment breaks the rules of its
                ``AutoresetMode``.
        """
        resetting = self._ended
        actions = owned(list(moves.actions))
        for index in resetting:  # ignored by the environment, but of the right form
            actions[index] = self._actions[index]
        self._actions = actions
        given: Any = self._results.step(self._env.step(self._together(actions)))
        observations, rewards, terminations, truncations, info = given
        before, now = self._observations, self._apart(observations)
        ended: list[int] = []
        transitions: list[Experience] = []
        for index in range(self.num_envs):
            status = EpisodeStatus.of(terminations[index], truncations[index])
            if status.is_done:
                ended.append(index)
            if index in resetting:
                continue
            last = now[index]
            if status.is_done and self.mode is AutoresetMode.SAME_STEP:
                last = self._final(info, index)
            actor_id = self._actor_ids[index]
            transitions.append(
                Experience(before[index], actions[index], rewards[index], last, status, actor_id)
            )
        self._observations = now
        begun = self._begin(resetting, ended, moves.seed_of)
        return self._round(transitions, begun), sum(t.reward for t in transitions), False, False, info

    def close(self) -> None:
        """Close the environment; where that fails, end its worker processes."""
        try:
            self._env.close()
        except BaseException:
            for process in getattr(self._env.unwrapped, "processes", ()):
                process.terminate()
            self._env.unwrapped.closed = True  # else it would try again when it is freed
            raise

    def _begin(self, resetting: set[int], ended: list[int], seed_of: SeedOf) -> list[tuple[int, int | None]]:
        """The episodes that have begun, also those that are reset here."""
        if self.mode is AutoresetMode.DISABLED:
            return self._reset_ended(ended, seed_of) if ended else []
        if self.mode is AutoresetMode.SAME_STEP:
            return [(index, None) for index in ended]
        if again := sorted(resetting.intersection(ended)):
            raise ConfigError(
                f"a {type(self._env.unwrapped).__name__} with autoreset_mode NEXT_STEP ended an episode of "
                f"sub-environment {again[0]} in the step that only begins it: set the autoreset_mode that "
                "the environment has, or both flags to False in that step"
            )
        self._ended = set(ended)
        return [(index, None) for index in sorted(resetting)]

    def _reset_ended(self, ended: list[int], seed_of: SeedOf) -> list[tuple[int, int | None]]:
        mask = np.isin(np.arange(self.num_envs), ended)
        seeds = [seed_of(index) if mask[index] and self.takes_seeds else None for index in range(len(mask))]
        seed: Any = seeds if self.takes_seeds else None
        observations, _ = self._results.reset(self._env.reset(seed=seed, options={"reset_mask": mask}))
        firsts = self._apart(observations)
        for index in ended:  # of the others it may show anything: their episodes go on
            self._observations[index] = firsts[index]
        return [(index, seeds[index]) for index in ended]

    def _round(self, transitions: list[Experience], begun: list[tuple[int, int | None]]) -> Round:
        acting = [index for index in range(self.num_envs) if index not in self._ended]
        return Round(list(self._observations), acting, transitions, begun)

    def _apart(self, observations: Any) -> list[Any]:
        """The observation of each."""
        return list(iterate(self._env.observation_space, observations))

    def _together(self, actions: list[Any]) -> Any:
        space = self._env.single_action_space
        try:
            return concatenate(space, actions, create_empty_array(space, self.num_envs))
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise ConfigError(f"the actions {actions!r} do not fit {space}: {error}") from error

    def _final(self, info: Mapping[str, Any], index: int) -> Any:
        """The last observation of an episode, which the first one of the next has replaced."""
        finals: Any = info.get("final_obs")
        if isinstance(finals, dict | tuple):  # batched, as observations are
            finals = list(iterate(self._env.observation_space, cast("Any", finals)))
        if finals is None or finals[index] is None:
            raise ConfigError(
                f"a {type(self._env.unwrapped).__name__} with autoreset_mode SAME_STEP ended an episode of "
                f"sub-environment {index} without its last observation in info['final_obs']: without that "
                "no transition is whole; use another autoreset_mode"
            )
        return owned(finals[index])


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
