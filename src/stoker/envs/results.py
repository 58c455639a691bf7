"""What the calls of an environment must give back, and the two calls that it need not have.

Without a loop or a thread of their own; ``stoker.envs.kinds`` checks with these what an actor gets to see.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

from stoker.envs.protocol import ResetResult, StepResult
from stoker.errors import ConfigError

__all__ = ["checked_extras", "checked_reset", "checked_step", "close_of", "extras_of", "settled"]


async def settled(result: Any) -> Any:
    """The result itself, or what it comes to when it is awaitable."""
    # The exact type first: nearly every result is a plain tuple, and isawaitable costs more than that.
    if result.__class__ is not tuple and inspect.isawaitable(result):
        return await result
    return result


def checked_step(result: Any, name: str) -> StepResult:
    """The five values of a step.

    Raises:
        ConfigError: They are not five.
    """
    if isinstance(result, tuple) and len(cast("tuple[Any, ...]", result)) == 5:
        return cast("StepResult", result)
    raise ConfigError(
        f"{name}.step returned {_described(result)}; stoker needs Gymnasium's five: "
        "observation, reward, terminated, truncated, info"
    )


def checked_reset(result: Any, name: str) -> ResetResult:
    """The two values of a reset.

    Raises:
        ConfigError: They are not two, or the second is no mapping.
    """
    if isinstance(result, tuple):
        values = cast("tuple[Any, ...]", result)
        if len(values) == 2 and isinstance(values[1], Mapping):
            return cast("ResetResult", result)
    raise ConfigError(
        f"{name}.reset returned {_described(result)}; stoker needs Gymnasium's two: "
        "observation, info (a dict)"
    )


def checked_extras(result: Any, name: str) -> dict[str, float]:
    """A copy of what ``episode_extras`` gave, because environments tend to reuse theirs.

    Raises:
        ConfigError: It is no mapping.
    """
    if isinstance(result, Mapping):
        return dict(cast("Mapping[str, float]", result))
    raise ConfigError(
        f"{name}.episode_extras returned {_described(result)}; stoker needs a mapping of names to numbers"
    )


def extras_of(env: Any) -> Any:
    """Call ``episode_extras`` of the environment, or of the nearest one below its wrappers; else ``{}``."""
    if hasattr(env, "has_wrapper_attr"):
        # Gymnasium's wrappers hide the attributes of what they wrap, except when asked in this way.
        extras = env.get_wrapper_attr("episode_extras") if env.has_wrapper_attr("episode_extras") else None
    else:
        extras = getattr(env, "episode_extras", None)
    return {} if extras is None else extras()


def close_of(env: Any) -> Any:
    """Call ``close`` of the environment if it has one."""
    close = getattr(env, "close", None)
    return None if close is None else close()


def _described(result: Any) -> str:
    if isinstance(result, tuple):
        values = cast("tuple[Any, ...]", result)
        return f"{len(values)} value{'' if len(values) == 1 else 's'}"
    return "None" if result is None else f"one value of type {type(result).__name__}"
