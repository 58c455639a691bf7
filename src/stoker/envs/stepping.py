"""From an environment, or from what makes one, to the face that actors play.

Guarantee: with ``stepping="thread"`` and ``make_played`` an environment sees one thread in its whole
life, from construction to close. See ``stoker.envs.protocol.Stepping`` for the choices.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args

import gymnasium.vector

from stoker.envs.affinity import EnvThread
from stoker.envs.kinds import AutoEnv, AwaitedEnv, InlineEnv, ThreadedEnv
from stoker.envs.protocol import PlayedEnv, Stepping
from stoker.envs.results import settled
from stoker.errors import ConfigError
from stoker.exits import Contained

__all__ = ["make_played", "played"]


def played(env: Any, stepping: Stepping = "auto", name: str = "env") -> PlayedEnv:
    """Take an environment in that was constructed already.

    One whose ``step`` is a coroutine function is awaited on the event loop, whatever ``stepping`` says.
    An async one that does not look like it (a decorated one, say) is found out by what its calls return.

    Args:
        env: a ``gymnasium.Env``, an ``AsyncEnv`` or anything with their ``reset`` and ``step``.
        stepping: where a plain environment is stepped. With ``"thread"`` all calls but the construction
            come from one thread; use ``make_played`` for the construction too.
        name: names it in messages, and its thread.

    Raises:
        ConfigError: Stepping is none of the choices, or the environment cannot be played, or somebody plays
            it already.
    """
    _check_stepping(stepping)
    _check_playable(env, name)
    if _is_async(env):
        return AwaitedEnv(env, name)
    match stepping:
        case "auto":
            return AutoEnv(env, name)
        case "inline":
            return InlineEnv(env, name)
        case "thread":
            return ThreadedEnv(env, name)


async def make_played(
    factory: Callable[[], Any], stepping: Stepping = "auto", name: str = "env"
) -> PlayedEnv:
    """Construct an environment and take it in.

    With ``stepping="thread"`` the factory runs on the environment's own thread, else on the event loop.
    Cancellation does not wait for a thread; an environment that is finished too late is closed there.

    Args:
        factory: makes the environment; it may be async, and is then awaited on the event loop.
        stepping: where a plain environment is stepped.
        name: names it in messages, and its thread.

    Raises:
        ConfigError: Stepping is none of the choices, or what was made cannot be played, or somebody plays
            it already.
        UnexpectedExit: The factory raised SystemExit or the like.
        Exception: Whatever else the factory raises.
    """
    _check_stepping(stepping)
    making = Contained(f"the factory of {name}")
    if stepping != "thread" or inspect.iscoroutinefunction(factory):
        with making:
            made = await settled(factory())
        return played(made, stepping, name)
    thread = EnvThread(name)

    def construct() -> Any:
        env = factory()
        if inspect.isawaitable(env) or _is_async(env):
            return env
        _check_playable(env, name)
        return ThreadedEnv(env, name, thread)

    try:
        with making:
            made = await thread.run(construct)
    except BaseException:
        await thread.close()
        raise
    if isinstance(made, ThreadedEnv):
        return made
    await thread.close()  # async after all: it belongs to the event loop
    with making:
        made = await settled(made)
    return played(made, stepping, name)


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
