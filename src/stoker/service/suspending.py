"""Run a coroutine at once, and make what waiting needs only if it really waits.

    step = service.step(message)
    is_over, result = begun(step)
    if not is_over and result is None:  # it gives other tasks a turn
        is_over, result = await after_turns(step)
    if not is_over:
        ...  # it waits for something: count it, let another task read on
        result = await finished(step, result)

Most messages are answered without a wait, and a time limit or a task around each would cost more than the
message itself. No cancel scope may be entered where it waits: it would cross those that the coroutine has
entered. Changing the deadline of one that is around both is fine.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


def begun(coroutine: Coroutine[Any, Any, Any]) -> tuple[bool, Any]:
    """Run a coroutine as far as it goes without a wait: whether it is over, and its result.

    If it is not over, what it waits for comes instead; None on asyncio: only for its next turn.
    """
    try:
        return False, coroutine.send(None)
    except StopIteration as done:
        return True, done.value


@types.coroutine
def after_turns(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, tuple[bool, Any]]:
    """Give other tasks a turn, and go on as ``begun``; as often as that is all it asks for."""
    is_over, awaited = False, None
    while not is_over and awaited is None:
        is_over, awaited = yield from _passed(coroutine, None)
    return is_over, awaited


@types.coroutine
def finished(coroutine: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that was begun by hand, as ``await`` does.

    Args:
        coroutine: its first ``send`` has returned.
        awaited: what that was; None is something that a task waits for, too.
    """
    while True:
        is_over, awaited = yield from _passed(coroutine, awaited)
        if is_over:
            return awaited


def _passed(coroutine: Coroutine[Any, Any, Any], awaited: Any) -> Generator[Any, Any, tuple[bool, Any]]:
    """Let the task wait for this, and go on with what comes of it: whether it is over, and its result."""
    try:
        try:
            answer = yield awaited
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # noqa: BLE001 - the coroutine's to handle
            return False, coroutine.throw(error)
        return False, coroutine.send(answer)
    except StopIteration as done:
        return True, done.value
