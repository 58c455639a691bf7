"""Run a coroutine at once, and make what waiting needs only if it really waits.

    step = service.step(message)
    try:
        awaited = step.send(None)
    except StopIteration as done:
        answer = done.value
    else:
        ...  # it waits: count it, let somebody else read on
        answer = await finished(step, awaited)

Most messages are answered without a wait, and a time limit or a task around each would cost more than the
message itself. No cancel scope may be entered where it waits: it would cross those that the coroutine has
entered. Changing the deadline of one that is around both is fine.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

__all__ = ["finished"]

T = TypeVar("T")


@types.coroutine
def finished(coroutine: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that was begun by hand, as ``await`` does.

    Args:
        coroutine: its first ``send`` has returned.
        awaited: what that was; None is something that a task waits for, too.
    """
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
