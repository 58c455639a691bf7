"""Environments as actors play them: awaited, stepped on the event loop, or kept on a thread.

One class serves all kinds of environments; they differ only in where a call into the environment is made. See
``stoker.envs.protocol.Stepping`` for the choices.
"""

from __future__ import annotations

import inspect
import logging
import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any, TypeVarTuple, cast, get_args
from weakref import WeakValueDictionary

import anyio
import gymnasium.vector
from gymnasium.error import ClosedEnvironmentError

from stoker.envs.protocol import ResetResult, Stepping, StepResult
from stoker.envs.results import IMMUTABLE, PassedOn, Results, close_of, extras_of, settled
from stoker.errors import ConfigError
from stoker.exits import Contained
from stoker.plain import shown
from stoker.threads import DedicatedThread, ThreadCall

Ts = TypeVarTuple("Ts")

_log = logging.getLogger(__name__)

CLOSE_GRACE_S = 5.0
"""How long closing an environment may hold up a cancellation, in seconds."""

SLOW_STEP_S = 2e-3
"""A step that blocks the event loop for longer than this, in seconds, is slow."""

SLOW_STEPS = 3
"""At least this many slow steps out of ``SLOW_WINDOW`` move an environment to a thread."""

SLOW_WINDOW = 20

_NO_SUCH_ARGUMENT = re.compile(r"unexpected keyword argument '(seed|options)'")


class SlowSteps:
    """Decides from step times alone whether an environment is too slow for the event loop.

    It is when, among its last ``SLOW_WINDOW`` steps, at least ``SLOW_STEPS`` took over ``SLOW_STEP_S`` each
    and these together over ``SLOW_WINDOW * SLOW_STEP_S``. The first step is a warm-up and does not count.

    Why not fewer: in a busy process a fast step may wait milliseconds for the interpreter lock now and then,
    and a thread hop at every step would cost more than all of these waits.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._slow: list[tuple[int, float]] = []  # the number and the time of each slow step in the window

    def note(self, step_s: float) -> bool:
        """Count a step; return whether the environment is too slow by now."""
        self._steps += 1
        if step_s <= SLOW_STEP_S or self._steps == 1:
            return False
        first = self._steps - SLOW_WINDOW
        self._slow = [*(slow for slow in self._slow if slow[0] > first), (self._steps, step_s)]
        together_s = sum(slow[1] for slow in self._slow)
        return len(self._slow) >= SLOW_STEPS and together_s > SLOW_WINDOW * SLOW_STEP_S


class _Claim:
    """The exclusive right to play an environment, until ``release`` or until the player is freed.

    It covers the environments below wrappers (``env``, ``unwrapped``) and the sub-environments of a vector
    environment. Safe from any thread.
    """

    def __init__(self, env: Any, name: str) -> None:
        self.name = name
        self.parts = _parts_of(env)  # kept alive, so that no other object gets one of their ids
        claims = {id(part): self for part in self.parts}
        with _lock:
            for part in self.parts:
                if (holder := _in_play.get(id(part))) is not None and holder.parts:
                    raise ConfigError(
                        f"{name} is the same {type(part).__name__} object that {holder.name} still plays: "
                        "make a new environment in each call of the factory, or close the first one before"
                    )
            if len(claims) < len(self.parts):
                raise ConfigError(
                    f"{name}: two sub-environments of the {type(self.parts[0]).__name__} are one object: "
                    "make a new environment in each call of the factory"
                )
            _in_play.update(claims)

    def release(self) -> None:
        """Let others play the environment; a second call does nothing."""
        self.parts = []


_lock = threading.Lock()
_in_play: WeakValueDictionary[int, _Claim] = WeakValueDictionary()
"""By the id of each part; a claim without parts was released."""


def _parts_of(env: Any) -> list[Any]:
    """The environments that a step reaches: the innermost first, each once but for sub-environments."""
    layers = [env]
    while (below := _below(layers[-1])) is not None and all(below is not layer for layer in layers):
        layers.append(below)
    layers.reverse()
    subs = getattr(layers[0], "envs", ())  # of a SyncVectorEnv
    return [*layers, *(_parts_of(sub)[0] for sub in subs)]


def _below(env: Any) -> Any:
    """The environment below a wrapper, Gymnasium's or the user's own; None: it is not a wrapper."""
    inner = getattr(env, "env", None)
    if callable(getattr(inner, "reset", None)) and callable(getattr(inner, "step", None)):
        return inner
    unwrapped = getattr(env, "unwrapped", env)
    return None if unwrapped is env else unwrapped


class PlayedEnv:
    """One environment as an actor plays it. One call at a time.

    Each observation is a copy, and the environment gets a copy of each action. ``info`` is the environment's:
    read it before the next call.

    A cancelled ``reset`` or ``step`` returns at once, also when the environment hangs on its thread; only an
    environment that blocks the event loop itself cannot be left. Begin a new episode after a cancelled call.

    Args:
        env: a ``gymnasium.Env``, an ``AsyncEnv`` or anything with their ``reset`` and ``step``.
        stepping: where a plain environment is stepped.
        name: names it in messages, and its thread.
        thread: the thread that it was constructed on; this is then called there, too.

    Attributes:
        observation_space: the environment's, as it was at first; None if it has none.
        action_space: likewise.
        busy_s: seconds spent in ``reset`` and ``step`` so far.

    Raises:
        ConfigError: The environment cannot be played, or is being played already.
    """

    def __init__(
        self, env: Any, stepping: Stepping, name: str, thread: DedicatedThread | None = None
    ) -> None:
        _check_playable(env, name)
        self.observation_space: Any = getattr(env, "observation_space", None)
        self.action_space: Any = getattr(env, "action_space", None)
        self.busy_s: float = 0.0
        self._claim = _Claim(env, name)
        kind: Any = env.__class__  # the env itself may forward the attributes of one that it wraps
        self._results: Any = PassedOn() if hasattr(kind, "checks_results") else Results(env, name)
        self._env = env
        self._name = name
        self._in_step = Contained(f"{name}.step")
        self._closed = False
        self._thread = thread
        self._slow_steps: SlowSteps | None = None
        self._blocked_s = 0.0
        if stepping == "thread" and thread is None and not _is_async(env):
            self._thread = DedicatedThread(name)
        elif stepping == "auto" and not _is_async(env):
            self._slow_steps = SlowSteps()

    async def call(self, function: Callable[[*Ts], Any], *args: *Ts) -> Any:
        """Call a function where the environment's calls belong, and await an awaitable result here."""
        if self._thread is not None:
            return await settled(await self._thread.run(function, *args))
        if self._slow_steps is None:
            return await settled(function(*args))
        begin = perf_counter()
        result = function(*args)
        self._blocked_s = perf_counter() - begin  # without the await: only that holds the event loop up
        return await settled(result)

    async def reset(self, seed: int | None = None) -> ResetResult:
        """Begin an episode: ``observation, info``. Without a seed the generator goes on where it is.

        Raises:
            ConfigError: The result has another form, or the environment takes no seed.
            InvalidExperience: The observation does not fit its space, but an earlier one did.
            UnexpectedExit: The environment raised SystemExit or the like; so do the other calls.
            gymnasium.error.ClosedEnvironmentError: The environment was closed.
        """
        self._check_open()
        begin = perf_counter()
        try:
            with Contained(f"{self._name}.reset"):
                result = await self.call(partial(self._env.reset, seed=seed))
        except TypeError as error:
            if (found := _NO_SUCH_ARGUMENT.search(str(error))) is None:
                raise
            kind = type(getattr(self._env, "unwrapped", self._env)).__name__
            raise ConfigError(
                f"{self._name} ({kind}).reset takes no {found[1]!r} ({error}): Gymnasium's signature is "
                "reset(self, *, seed=None, options=None)"
            ) from error
        finally:
            self.busy_s += perf_counter() - begin
        return self._results.reset(result)

    async def step(self, action: Any) -> StepResult:
        """Do one action: ``observation, reward, terminated, truncated, info``.

        May move a slow environment to a thread when the step is over.

        Raises:
            ConfigError: The result has another form, such as old Gym's four values or a reward of shape (1,).
            InvalidExperience: The observation does not fit its space, but an earlier one did.
            gymnasium.error.ClosedEnvironmentError: The environment was closed.
        """
        self._check_open()
        if action.__class__ not in IMMUTABLE:
            action = self._results.given(action)
        begin = perf_counter()
        try:
            if self._thread is None and self._slow_steps is None:  # ``call``, without two coroutines per step
                result = self._env.step(action)
                if result.__class__ is not tuple and inspect.isawaitable(result):
                    result = await result
            else:
                result = await self.call(self._env.step, action)
        except BaseException as error:
            self._in_step.check(error)
            raise
        finally:
            self.busy_s += perf_counter() - begin
        result = self._results.step(result)
        if self._slow_steps is not None and self._slow_steps.note(self._blocked_s):
            self._slow_steps, self._thread = None, DedicatedThread(self._name)
        return result

    async def episode_extras(self) -> dict[str, float]:
        """The ``episode_extras`` of the environment, or of one below its wrappers; empty if it has none.

        Raises:
            ConfigError: It is not a mapping.
            gymnasium.error.ClosedEnvironmentError: The environment was closed.
        """
        self._check_open()
        with Contained(f"{self._name}.episode_extras"):
            extras = await self.call(extras_of, self._env)
        if isinstance(extras, Mapping):
            return dict(cast("Mapping[str, float]", extras))
        raise ConfigError(
            f"{self._name}.episode_extras returned {shown(extras)}: give a mapping of names to numbers"
        )

    async def close(self) -> None:
        """Close the environment where its calls belong; a second call does nothing.

        A cancellation waits for it, for at most ``CLOSE_GRACE_S`` seconds. An environment that hangs in an
        abandoned call is closed without waiting, when that call returns.
        """
        if self._closed:
            return
        self._closed = True
        with Contained(f"{self._name}.close"), anyio.move_on_after(CLOSE_GRACE_S, shield=True) as grace:
            if self._thread is None:
                await settled(self._close_env())
            elif self._thread.since is None:  # an abandoned call that has not begun is skipped
                try:
                    await settled(await self._thread.run(self._close_env, is_kept=True))
                finally:
                    self._thread.close()
            else:  # an abandoned call still runs there
                self._thread.submit(self.discard)
                self._thread.close()
        if grace.cancelled_caught:
            _log.warning("%s: closing it took over %g s; it is left behind", self._name, CLOSE_GRACE_S)

    def _close_env(self) -> Any:
        """Close the environment; called where its calls belong, when none of them runs any more."""
        try:
            return close_of(self._env)
        finally:
            self._claim.release()

    def discard(self) -> None:
        """Close the environment after its caller has left; an error is logged."""
        try:
            self._close_env()
        except BaseException:  # noqa: BLE001 - logged: the caller has left
            _log.exception("%s: closing it failed after an abandoned call", self._name)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedEnvironmentError(f"{self._name}: the environment was closed")


def played(env: Any, stepping: Stepping = "auto", name: str = "env") -> PlayedEnv:
    """Make a constructed environment playable.

    If ``step`` is a coroutine function, it is awaited on the event loop, whatever ``stepping`` says. An async
    environment in disguise (a decorated one, say) is recognized by its results.

    Args:
        env: a ``gymnasium.Env``, an ``AsyncEnv`` or anything with their ``reset`` and ``step``.
        stepping: where a plain environment is stepped. With ``"thread"`` all calls but the construction
            come from one thread; use ``make_played`` for the construction too.
        name: names it in messages, and its thread.

    Raises:
        ConfigError: Stepping is unknown, or the environment cannot be played, or is being played already.
    """
    _check_stepping(stepping)
    return PlayedEnv(env, stepping, name)


async def make_played(
    factory: Callable[[], Any], stepping: Stepping = "auto", name: str = "env"
) -> PlayedEnv:
    """Construct an environment and make it playable.

    With ``stepping="thread"`` the environment sees one thread in its whole life, from the factory to close;
    else the factory runs on the event loop. Cancellation does not wait for a thread; an environment that is
    finished too late is closed there.

    Args:
        factory: makes the environment; it may be async, and is then awaited on the event loop.
        stepping: where a plain environment is stepped.
        name: names it in messages, and its thread.

    Raises:
        ConfigError: Stepping is unknown, or the environment cannot be played, or is being played already.
        UnexpectedExit: The factory raised SystemExit or the like.
        Exception: Whatever else the factory raises.
    """
    _check_stepping(stepping)
    with Contained(f"the factory of {name}"):
        if stepping == "thread" and not inspect.iscoroutinefunction(factory):
            made = await settled(await _made_on_thread(factory, name))
        else:
            made = await settled(factory())
    return made if isinstance(made, PlayedEnv) else PlayedEnv(made, stepping, name)


async def _made_on_thread(factory: Callable[[], Any], name: str) -> Any:
    """The environment, playable on the thread that constructs it; an async one, or an awaitable, as it is."""
    thread = DedicatedThread(name)

    def construct() -> Any:
        env = factory()
        return env if inspect.isawaitable(env) or _is_async(env) else PlayedEnv(env, "thread", name, thread)

    construction = ThreadCall(construct)
    thread.hand_in(construction)
    try:
        made = await construction.wait()
        if isinstance(made, PlayedEnv):
            return made
    except BaseException:
        thread.submit(_discard, construction)  # behind a construction that still runs
        thread.close()
        raise
    thread.close()  # async after all: it belongs to the event loop
    return made


def _discard(construction: ThreadCall[Any]) -> None:
    if isinstance(construction.result, PlayedEnv):
        construction.result.discard()


def _is_async(env: Any) -> bool:
    return inspect.iscoroutinefunction(getattr(env, "step", None))


def _check_stepping(stepping: Stepping) -> None:
    choices = get_args(Stepping)
    if stepping not in choices:
        raise ConfigError(f"stepping={stepping!r} is unknown: choose one of {', '.join(map(repr, choices))}")


def _check_playable(env: Any, name: str) -> None:
    if isinstance(env, gymnasium.vector.VectorEnv):
        raise ConfigError(
            f"{name} is a vector environment: give each actor a single one, or play it with run_vector_actors"
        )
    if isinstance(env, type):
        raise ConfigError(f"{name} is the class {env.__name__}: give an instance, such as {env.__name__}()")
    for method in ("reset", "step"):
        if not callable(getattr(env, method, None)):
            raise ConfigError(
                f"{name} is a {type(env).__name__} without a method {method!r}: stoker plays a gymnasium.Env "
                "or an object with the same reset and step"
            )
