"""Await a coroutine, and do something only if it really waits.

Most messages are answered without a wait, and most answers go out without one. A time limit or a task around
each of them would cost more than the message itself; here the coroutine runs in the caller's task, and the
caller makes what waiting needs when it first suspends. No cancel scope may be entered then: it would cross
those that the coroutine has entered. Changing the deadline of one that is around both is fine.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

__all__ = ["noting_suspension"]

T = TypeVar("T")


@types.coroutine
def noting_suspension(
    coroutine: Coroutine[Any, Any, T], suspended: Callable[[], object]
) -> Generator[Any, Any, T]:
    """Await a coroutine, and call ``suspended`` when it first waits for something."""
    try:
        awaited = coroutine.send(None)
    except StopIteration as done:
        return done.value
    suspended()
    return (yield from _rest(coroutine, awaited))


def _rest(coroutine: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that waits, as ``await`` does."""
    try:
        while True:
            try:
                answer = yield awaited
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001 - the coroutine's to handle
                awaited = coroutine.throw(error)
            else:
                awaited = coroutine.send(answer)
    except StopIteration as done:
        return done.value
