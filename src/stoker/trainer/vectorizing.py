"""How a training steps its environments: each by an actor, or all at once as a vector environment.

``"auto"`` decides by measuring a few steps of environments that are closed again, and the decision replaces
it in the config, so that a resumed run plays as before. Free of torch.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, Literal, NamedTuple, cast

import anyio
import gymnasium
import msgspec
from anyio import to_thread
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from stoker.actors.places import n_workers_for
from stoker.agents.registry import AGENTS
from stoker.envs.gym import make_native
from stoker.envs.masks import without_mask
from stoker.envs.results import extras_of, owned
from stoker.envs.rounds import EPISODE_EXTRAS
from stoker.envs.stepping import SLOW_STEP_S
from stoker.envs.vector import Moves, VectorRounds
from stoker.errors import ConfigError
from stoker.multi import OpponentEnv
from stoker.raising import described
from stoker.trainer.cluster_config import with_envs, worker_range
from stoker.trainer.config import TrainConfig, alone_because
from stoker.trainer.making import env_for, plays_jointly, probed

LEAST_ENVS = 16
"""``"auto"`` leaves fewer environments to an actor each, which keeps their episodes independent."""

ACTOR_STEP_S = 50e-6
"""What a step of an actor costs beside its environment, in seconds; a round costs that once for all."""

_MEASURED_S = 0.1
_WAYS: tuple[Literal["sync", "native"], ...] = ("sync", "native")
_log = logging.getLogger(__name__)


class Choice(NamedTuple):
    """How the environments are stepped, and why.

    Attributes:
        config: the config, without ``"auto"``.
        why: the reason, in a few words.
    """

    config: TrainConfig
    why: str

    def line(self) -> str:
        """The choice as one line."""
        return f"vectorize={self.config.vectorize}: {self.why}"


async def decided(config: TrainConfig, make: Callable[[], Any] | None = None) -> Choice:
    """Decide as ``choose`` does, in a thread; an environment that hangs is left behind.

    Args:
        config: the config.
        make: makes one environment instead of those that the config names; they are then not measured.
    """
    if config.vectorize != "auto":
        return Choice(config, "as configured")
    if make is not None:
        return _none(config, "the environments are made by a function")
    with anyio.move_on_after(config.actor_timeout_s):
        return await to_thread.run_sync(choose, config, abandon_on_cancel=True)
    return _none(config, f"a few steps took over {config.actor_timeout_s:g} s")


def choose(config: TrainConfig) -> Choice:
    """Decide what ``"auto"`` is, by measuring; a config without it is returned as it is. Blocks.

    An environment that needs an actor of its own, one of few (below ``LEAST_ENVS``), one whose steps are so
    slow that actors step it on threads at the same time, and one that fails while it is measured: for all of
    these it is ``"none"``.

    Raises:
        ConfigError: The environment cannot be made.
    """
    if config.vectorize != "auto":
        return Choice(config, "as configured")
    if plays_jointly(config):
        return _none(config, "the agents of an environment act together")
    if (setting := alone_because(config)) is not None:
        return _none(config, setting)
    if config.max_staleness is not None:
        return _none(config, f"max_staleness={config.max_staleness}, for which all would wait")
    if config.num_envs < LEAST_ENVS:
        return _none(config, f"{config.num_envs} environments are few")
    with probed(config) as env:
        if not isinstance(env, gymnasium.Env):
            return _none(config, f"a {type(env).__name__} is not a gymnasium.Env")
        try:
            alone_s = _step_s(cast("gymnasium.Env[Any, Any]", env))
        except Exception as error:  # noqa: BLE001 - reported; the training will meet it, and survive it or not
            return _none(config, f"measuring it failed: {described(error)}")
    if alone_s > SLOW_STEP_S:
        return _none(config, f"a step takes {1e3 * alone_s:.1f} ms, and actors step on threads")
    times: dict[Any, float] = {"none": alone_s + ACTOR_STEP_S}
    for way in _WAYS:
        try:
            rounds = VectorRounds(vector_env_for(msgspec.structs.replace(config, vectorize=way)))
        except ConfigError as error:
            _log.debug("vectorize=%s: %s", way, error)
            continue
        try:
            times[way] = _round_s(rounds) / config.num_envs
        except Exception as error:  # noqa: BLE001 - the same
            return _none(config, f"measuring {way} failed: {described(error)}")
        finally:
            rounds.close()
    best = min(times, key=times.__getitem__)
    speeds = ", ".join(f"{way} {1e6 * step_s:.1f}" for way, step_s in times.items())
    return Choice(msgspec.structs.replace(config, vectorize=best), f"microseconds per step: {speeds}")


def vector_env_for(config: TrainConfig, make: Callable[[], Any] | None = None) -> VectorEnv[Any, Any, Any]:
    """Make the vector environment that a config describes, as ``env_for`` makes one environment.

    Sub-environments that have ``episode_extras`` give them in the last ``info`` of each episode. A
    ``SyncVectorEnv`` resets in the same step; an ``AsyncVectorEnv`` is reset by the actors, with the seeds
    of their episodes, and its processes are started anew and import what they need.

    Args:
        config: ``vectorize`` is ``"sync"``, ``"async"`` or ``"native"``.
        make: makes one environment instead of those that the config names.

    Raises:
        ConfigError: The environment has no such form, or cannot be made.
    """
    if config.vectorize == "native":
        if make is not None:
            raise ConfigError("vectorize='native' needs a named environment, not a factory: use 'sync'")
        native = make_native(config.env, config.num_envs, config.env_kwargs)
        return without_mask(native, config.env) if config.agent in AGENTS else native
    single = partial(_single, partial(env_for, config) if make is None else make)
    if config.vectorize == "async":
        factories = [partial(_in_worker, single, os.getpid())] * config.num_envs
        return AsyncVectorEnv(factories, context="spawn", autoreset_mode=AutoresetMode.DISABLED)
    return SyncVectorEnv([single] * config.num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def vector_factory_for(
    config: TrainConfig, make: Callable[[], Any] | None = None
) -> Callable[[], VectorEnv[Any, Any, Any]] | None:
    """The factory of a training's vector environment, or of that of each worker; None: it has none.

    Raises:
        ConfigError: The workers cannot have equal shares of the environments.
    """
    if config.vectorize in ("auto", "none"):
        return None
    share = with_envs(config, config.num_envs // _n_workers_of(config))
    return partial(vector_env_for, share, make)


def _n_workers_of(config: TrainConfig) -> int:
    """How many workers share the environments that are stepped together."""
    match config.actors:
        case "tasks":
            return 1
        case "ray":
            return worker_range(config.workers or 1).most
        case _:
            return n_workers_for(config.num_envs, cast("int | None", config.workers))


def eval_factory_for(
    config: TrainConfig, make: Callable[[], Any] | None = None, n_episodes: int | None = None
) -> Callable[[], Any]:
    """The factory of a config's evaluations: vector environments if that is how the config trains.

    They have a sub-environment for each episode, as far as the evaluations of the training have; with
    ``"async"`` at most ``num_envs``, each of which is a process. ``episode_extras`` are in the last ``info``.

    Args:
        config: its ``vectorize`` is decided.
        make: makes one environment instead of those that the config names.
        n_episodes: in one evaluation; None: the config's.

    With ``self_play`` an episode is a game against a random opponent.
    """
    single = partial(env_for, config) if make is None else make
    if config.self_play:
        return partial(OpponentEnv, single)
    if config.vectorize in ("auto", "none"):
        return single
    most = config.num_envs if config.vectorize == "async" else max(config.num_envs, config.eval_episodes)
    config = with_envs(config, min(n_episodes or config.eval_episodes, most))
    return partial(
        vector_env_for, config, make if config.vectorize == "native" else partial(_one_episode, single)
    )


class _Reporting(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gives the ``episode_extras`` of an episode in its last ``info``: the next step may be another's."""

    def step(self, action: Any) -> Any:
        """See ``gymnasium.Env``."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            info = {**info, EPISODE_EXTRAS: (extras_of(self.env),)}
        return observation, reward, terminated, truncated, info


class _OneEpisode(_Reporting):
    """Plays one episode after each seeded reset, and rests.

    A vector environment goes on with sub-environments whose episode is over, until all are. At rest it shows
    the first observation of its episode, on which a policy can act: the last one may allow no action.
    """

    _first: Any = None
    _rests = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """See ``gymnasium.Env``; without a seed an environment at rest stays there."""
        if seed is None and self._rests:
            return self._first, {}
        self._rests = False
        observation, info = self.env.reset(seed=seed, options=options)
        self._first = owned(observation)
        return observation, info

    def step(self, action: Any) -> Any:
        """See ``gymnasium.Env``."""
        if self._rests:
            return self._first, 0.0, False, False, {}
        observation, reward, terminated, truncated, info = super().step(action)
        self._rests = bool(terminated or truncated)
        return observation, reward, terminated, truncated, info


def _one_episode(make: Callable[[], Any]) -> gymnasium.Env[Any, Any]:
    return _OneEpisode(_single(make))


def _single(make: Callable[[], Any]) -> gymnasium.Env[Any, Any]:
    env = make()
    if isinstance(env, gymnasium.Env):
        single = cast("gymnasium.Env[Any, Any]", env)
        has_extras = not isinstance(env, _Reporting) and single.has_wrapper_attr("episode_extras")
        return _Reporting(single) if has_extras else single
    raise ConfigError(
        f"a {type(env).__name__} is not a gymnasium.Env, which a vector environment needs: use "
        "vectorize='none'"
    )


def _in_worker(single: Callable[[], gymnasium.Env[Any, Any]], owner: int) -> gymnasium.Env[Any, Any]:
    """Make an environment in a process of its own, or in the owner, which looks at its spaces."""
    if os.getpid() != owner:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the owner, which ends these
    return single()


def _none(config: TrainConfig, why: str) -> Choice:
    return Choice(msgspec.structs.replace(config, vectorize="none"), why)


def _step_s(env: gymnasium.Env[Any, Any]) -> float:
    """Seconds per step of one environment with random actions, resets included."""
    env.action_space.seed(0)
    env.reset(seed=0)
    env.step(env.action_space.sample())  # a warm-up
    actions = [env.action_space.sample() for _ in range(1000)]
    env.reset()
    begun = perf_counter()
    for n_steps, action in enumerate(actions, 1):
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
        if (elapsed_s := perf_counter() - begun) > _MEASURED_S:
            return elapsed_s / n_steps
    return (perf_counter() - begun) / len(actions)


def _round_s(rounds: VectorRounds) -> float:
    """Seconds per round of a vector environment with random actions, resets included."""
    rounds.action_space.seed(0)
    actions = [[rounds.action_space.sample() for _ in range(rounds.num_envs)] for _ in range(10)]
    moves = [Moves(each) for each in actions]
    rounds.reset()
    rounds.step(moves[0])  # a warm-up
    begun, n_rounds = perf_counter(), 0
    while n_rounds < 3 or (n_rounds < 100 and perf_counter() - begun < _MEASURED_S):
        rounds.step(moves[n_rounds % len(moves)])
        n_rounds += 1
    return (perf_counter() - begun) / n_rounds
