"""The kinds of played environment: awaited, stepped on the event loop, or kept on a thread.

They differ only in where a call into the environment is made (``call``). ``stoker.envs.stepping``
chooses among them; ``PlayedEnv`` states what all of them promise.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVarTuple

import anyio
from gymnasium.error import ClosedEnvironmentError

from stoker.envs.affinity import CLOSE_GRACE_S, EnvThread
from stoker.envs.in_play import EnvClaim
from stoker.envs.owned import IMMUTABLE
from stoker.envs.protocol import ResetResult, StepResult
from stoker.envs.results import (
    PassedOn,
    Results,
    check_reset_signature,
    checked_extras,
    close_of,
    extras_of,
    settled,
)
from stoker.exits import Contained

__all__ = ["AutoEnv", "AwaitedEnv", "EnvBase", "InlineEnv", "SlowSteps", "ThreadedEnv"]

Ts = TypeVarTuple("Ts")

_log = logging.getLogger(__name__)

SLOW_STEP_S = 2e-3
"""A step that blocks the event loop for longer than this, in seconds, is slow."""

SLOW_STEPS = 3
"""So many slow steps, at least, out of ``SLOW_WINDOW`` move an environment to a thread."""

SLOW_WINDOW = 20


class EnvBase(abc.ABC):
    """What all kinds share: checked results, counted time, closing once.

    Args:
        env: a ``gymnasium.Env``, an ``AsyncEnv`` or anything with their ``reset`` and ``step``.
        name: names it in messages, and its thread.
    """

    def __init__(self, env: Any, name: str) -> None:
        self.observation_space: Any = getattr(env, "observation_space", None)
        self.action_space: Any = getattr(env, "action_space", None)
        self.busy_s: float = 0.0
        self._claim = EnvClaim(env, name)
        self._results: Any = PassedOn() if getattr(env, "checks_results", False) else Results(env, name)
        self._env = env
        self._name = name
        self._in_step = Contained(f"{name}.step")
        self._closed = False

    @abc.abstractmethod
    async def call(self, function: Callable[[*Ts], Any], *args: *Ts) -> Any:
        """Call a function where the environment's calls belong, and await what it returns if need be."""

    async def reset(self, seed: int | None = None) -> ResetResult:
        """See ``PlayedEnv``."""
        self._check_open()
        begin = perf_counter()
        try:
            with Contained(f"{self._name}.reset"):
                result = await self.call(self._reset, seed)
        except TypeError as error:
            check_reset_signature(error, self._env, self._name)
            raise
        finally:
            self.busy_s += perf_counter() - begin
        return self._results.reset(result)

    async def step(self, action: Any) -> StepResult:
        """See ``PlayedEnv``."""
        self._check_open()
        if action.__class__ not in IMMUTABLE:
            action = self._results.given(action)
        begin = perf_counter()
        try:
            result = await self.call(self._env.step, action)
        except BaseException as error:
            self._in_step.check(error)
            raise
        finally:
            self.busy_s += perf_counter() - begin
        return self._results.step(result)

    async def episode_extras(self) -> dict[str, float]:
        """See ``PlayedEnv``."""
        self._check_open()
        with Contained(f"{self._name}.episode_extras"):
            result = await self.call(extras_of, self._env)
        return checked_extras(result, self._name)

    async def close(self) -> None:
        """See ``PlayedEnv``."""
        if self._closed:
            return
        self._closed = True
        with Contained(f"{self._name}.close"):
            result = await self._close()
            with anyio.move_on_after(CLOSE_GRACE_S, shield=True) as grace:
                await settled(result)
        if grace.cancelled_caught:
            _log.warning("%s: closing it took over %g s; it is left behind", self._name, CLOSE_GRACE_S)

    async def _close(self) -> Any:
        return self._close_env()

    def _close_env(self) -> Any:
        """Called where the environment's calls belong, when none of them runs any more."""
        try:
            return close_of(self._env)
        finally:
            self._claim.release()

    def _reset(self, seed: int | None) -> Any:
        return self._env.reset(seed=seed)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedEnvironmentError(f"{self._name}: the environment was closed")


class InlineEnv(EnvBase):
    """A plain environment, stepped on the event loop: no thread hop, and nothing else runs meanwhile."""

    async def call(self, function: Callable[[*Ts], Any], *args: *Ts) -> Any:
        """Call the function here."""
        return await settled(function(*args))


class AwaitedEnv(InlineEnv):
    """An environment written as async: whatever it returns that can be awaited is awaited here."""


class ThreadedEnv(EnvBase):
    """A plain environment on its own thread.

    Args:
        env: the environment.
        name: names it in messages.
        thread: the thread that it was constructed on; this is then called there, too. None: a new one.
    """

    def __init__(self, env: Any, name: str, thread: EnvThread | None = None) -> None:
        super().__init__(env, name)
        if thread is None:
            thread = EnvThread(name, self._close_env)
        else:
            thread.closes_with(self._close_env)
        self._thread = thread

    async def call(self, function: Callable[[*Ts], Any], *args: *Ts) -> Any:
        """Call the function on the thread; a result that can be awaited is awaited on the event loop."""
        return await settled(await self._thread.run(function, *args))

    async def _close(self) -> Any:
        return await self._thread.close()


class SlowSteps:
    """Decides from step times alone whether an environment is too slow for the event loop.

    It is when, among its last ``SLOW_WINDOW`` steps, at least ``SLOW_STEPS`` took over ``SLOW_STEP_S`` each
    and these together over ``SLOW_WINDOW * SLOW_STEP_S``. The first step is a warm-up and does not count.

    Why not fewer: in a busy process a step of microseconds now and then waits milliseconds for the
    interpreter lock or for a processor, and a thread hop at every step costs a fast environment more than
    all of these together.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._slow: list[tuple[int, float]] = []  # the number and the time of each slow step in the window

    def note(self, step_s: float) -> bool:
        """Take in the next step's time, in seconds; return whether the environment is too slow by now."""
        self._steps += 1
        if step_s <= SLOW_STEP_S or self._steps == 1:
            return False
        first = self._steps - SLOW_WINDOW
        self._slow = [*(slow for slow in self._slow if slow[0] > first), (self._steps, step_s)]
        together_s = sum(slow[1] for slow in self._slow)
        return len(self._slow) >= SLOW_STEPS and together_s > SLOW_WINDOW * SLOW_STEP_S


class AutoEnv(EnvBase):
    """Inline until its steps prove slow (see ``SlowSteps``), then on its own thread for good."""

    def __init__(self, env: Any, name: str) -> None:
        super().__init__(env, name)
        self._slow_steps = SlowSteps()
        self._blocked_s = 0.0
        self._thread: EnvThread | None = None

    async def call(self, function: Callable[[*Ts], Any], *args: *Ts) -> Any:
        """Call the function here, or on the thread once there is one."""
        if self._thread is not None:
            return await settled(await self._thread.run(function, *args))
        begin = perf_counter()
        result = function(*args)
        self._blocked_s = perf_counter() - begin  # without the await: only that holds the event loop up
        return await settled(result)

    async def step(self, action: Any) -> StepResult:
        """See ``PlayedEnv``; may move the environment when the step is over."""
        result = await super().step(action)
        if self._thread is None and self._slow_steps.note(self._blocked_s):
            self._thread = EnvThread(self._name, self._close_env)
        return result

    async def _close(self) -> Any:
        return await super()._close() if self._thread is None else await self._thread.close()
