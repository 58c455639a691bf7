"""Which environments are being played in this process, so that no two players step the same one.

An environment counts as itself and as each that its wrappers wrap (``env``, ``unwrapped``); a vector
environment also as each of its sub-environments. An entry ends when the environment is closed, or with its
player.
"""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakValueDictionary

from stoker.errors import ConfigError

__all__ = ["EnvClaim"]


class EnvClaim:
    """An environment in play: nobody else may claim it until this is released. Safe from any thread.

    Args:
        env: the environment.
        name: the player's, for messages.

    Raises:
        ConfigError: The environment, or one below its wrappers, is in play already.
    """

    def __init__(self, env: Any, name: str) -> None:
        self.name = name
        self._parts = _parts_of(env)  # kept alive, so that no other object gets one of their ids
        ids = [id(part) for part in self._parts]
        with _lock:
            held = [(part, holder) for part in self._parts if (holder := _in_play.get(id(part))) is not None]
            if not held and len(set(ids)) == len(ids):
                _in_play.update(dict.fromkeys(ids, self))
                return
        if not held:
            raise ConfigError(
                f"{name}: two sub-environments of the {type(self._parts[0]).__name__} are one object: make a "
                "new environment in each call of the factory"
            )
        part, holder = held[0]
        raise ConfigError(
            f"{name} is the same {type(part).__name__} object that {holder.name} still plays: make a new "
            "environment in each call of the factory, or close the first one before"
        )

    def release(self) -> None:
        """Let others play the environment; a second call does nothing."""
        with _lock:
            for part in self._parts:
                if _in_play.get(id(part)) is self:
                    del _in_play[id(part)]


_lock = threading.RLock()  # an entry may end, by garbage collection, in the thread that holds it
_in_play: WeakValueDictionary[int, EnvClaim] = WeakValueDictionary()


def _parts_of(env: Any) -> list[Any]:
    """What is stepped when the environment is: the innermost first, each once but for sub-environments."""
    layers = [env]
    while (below := _below(layers[-1])) is not None and all(below is not layer for layer in layers):
        layers.append(below)
    layers.reverse()
    subs = getattr(layers[0], "envs", ())  # of a SyncVectorEnv
    return [*layers, *(_parts_of(sub)[0] for sub in subs)]


def _below(env: Any) -> Any:
    """What a wrapper wraps, of Gymnasium or the user's own; None: it is no wrapper."""
    inner = getattr(env, "env", None)
    if callable(getattr(inner, "reset", None)) and callable(getattr(inner, "step", None)):
        return inner
    unwrapped = getattr(env, "unwrapped", env)
    return None if unwrapped is env else unwrapped
