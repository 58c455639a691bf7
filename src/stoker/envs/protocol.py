"""The types of an environment's calls: ``AsyncEnv`` for users to implement, where to step, and the results.

Actors play a ``stoker.envs.stepping.PlayedEnv``, whichever kind of environment is behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias

JOINT = "pettingzoo:"
"""What the names of environments begin with that several agents play together."""

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
