"""Two interfaces of an environment: ``AsyncEnv`` for users to implement, ``PlayedEnv`` for actors to await.

Actors know only ``PlayedEnv``. Whether the environment behind it is awaited, stepped on the event loop or
kept on its own thread is decided in ``stoker.envs.stepping``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias

__all__ = ["AsyncEnv", "PlayedEnv", "ResetResult", "StepResult", "Stepping"]

Stepping: TypeAlias = Literal["auto", "inline", "thread"]
"""Where a plain environment is stepped; an async one is awaited on the event loop in any case.

- ``"inline"``: on the event loop. Right for steps of microseconds; nothing else runs meanwhile.
- ``"thread"``: construction and every call on one thread of its own. Right for simulators, and needed
  for environments that are bound to their thread (OpenGL and the like).
- ``"auto"``: inline, until the environment proves slow; then on its own thread for good. It changes
  threads while it lives, so an environment that is bound to its thread must say ``"thread"``.
"""

ResetResult: TypeAlias = tuple[Any, Mapping[str, Any]]
"""``observation, info``."""

StepResult: TypeAlias = tuple[Any, float, bool, bool, Mapping[str, Any]]
"""``observation, reward, terminated, truncated, info``."""


class AsyncEnv(Protocol):
    """An environment written as async: Gymnasium's calls and meanings, awaited on the event loop.

    It may also have ``observation_space`` and ``action_space``, ``close()`` (plain or async), and
    ``episode_extras() -> Mapping[str, float]`` (plain or async): what to log about the episode so far.
    """

    async def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Any]:
        """Begin an episode: ``observation, info``. Without a seed the generator goes on where it is."""
        ...

    async def step(self, action: Any) -> tuple[Any, Any, Any, Any, Any]:
        """Do one action: ``observation, reward, terminated, truncated, info``."""
        ...


class PlayedEnv(Protocol):
    """One environment as an actor plays it. One call at a time.

    Each observation is a copy, and the environment gets a copy of each action. ``info`` is the environment's:
    read it before the next call.

    A cancelled ``reset`` or ``step`` returns at once, also when the environment hangs on its thread; only an
    environment that blocks the event loop itself cannot be left. Begin a new episode after a cancelled call.
    """

    @property
    def observation_space(self) -> Any:
        """The environment's, as it was at first; None if it has none."""
        ...

    @property
    def action_space(self) -> Any:
        """The environment's, as it was at first; None if it has none."""
        ...

    @property
    def busy_s(self) -> float:
        """Seconds spent in ``reset`` and ``step`` so far."""
        ...

    async def reset(self, seed: int | None = None) -> ResetResult:
        """Begin an episode: ``observation, info``. Without a seed the generator goes on where it is.

        Raises:
            ConfigError: The result has another form, or the environment takes no seed.
            InvalidExperience: The observation does not fit its space, but an earlier one did.
            UnexpectedExit: The environment raised SystemExit or the like; so do the other calls.
            gymnasium.error.ClosedEnvironmentError: The environment was closed.
        """
        ...

    async def step(self, action: Any) -> StepResult:
        """Do one action: ``observation, reward, terminated, truncated, info``.

        Raises:
            ConfigError: The result has another form, such as old Gym's four values or a reward of shape (1,).
            InvalidExperience: The observation does not fit its space, but an earlier one did.
            gymnasium.error.ClosedEnvironmentError: The environment was closed.
        """
        ...

    async def episode_extras(self) -> dict[str, float]:
        """The ``episode_extras`` of the environment, or of one below its wrappers; empty if it has none.

        Raises:
            ConfigError: It is not a mapping.
            gymnasium.error.ClosedEnvironmentError: The environment was closed.
        """
        ...

    async def close(self) -> None:
        """Close the environment where its calls belong; a second call does nothing.

        A cancellation waits for it, for at most ``CLOSE_GRACE_S`` seconds. An environment that hangs in an
        abandoned call is closed without waiting, when that call returns.
        """
        ...
