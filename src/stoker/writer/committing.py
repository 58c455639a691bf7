"""One commit: what several logs are to take is written and made durable, all at once.

Each log's own thread writes and syncs in one go, so that the event loop is asked for nothing in between; and
it lets the next log's thread begin between the two. So the logs are written in their order, a journal before
the rows that follow from it, and synced at the same time: the disk takes hardly longer for several than for
one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

import anyio

from stoker.writer.activities import Activities
from stoker.writer.logs import Log

__all__ = ["commit", "written_bytes"]

_PATIENCE_S = 10.0
"""So long the others may take when one log was refused."""


async def commit(pieces: Mapping[Log, bytes], activities: Activities) -> None:
    """Return when these bytes, and all that the logs took before, are durable.

    Cancelled, it leaves at once: what a log was asked for by then is done all the same, before anything that
    it is asked for later; the others take nothing.

    Args:
        pieces: what each log is to take, in the order in which they are to be written; perhaps nothing.
        activities: where progress is reported.

    Raises:
        WriteFailed: The disk refused, and for which log first. One that cannot be made durable keeps no other
            from it; behind one that could not be written none has taken anything.
    """
    links: list[_Link] = []
    begin: Callable[[], None] = _nothing
    for log, data in reversed(list(pieces.items())):
        links.append(_Link(log, data, begin))
        begin = links[-1].begin
    links.reverse()
    refused: Exception | None = None
    with ExitStack() as telling, anyio.CancelScope() as waiting:
        for link in links:
            words, n_bytes = partial(_doing, link.log), partial(written_bytes, link.log)
            telling.enter_context(link.telling).enter_context(activities.at(words, n_bytes))
        begin()
        try:
            for link in links:
                if not link.is_begun:  # the one before could not be written
                    break
                try:
                    with link.telling:
                        await link.call.wait()
                except Exception as error:  # noqa: BLE001 - raised below
                    refused = refused or error
                    waiting.deadline = min(waiting.deadline, anyio.current_time() + _PATIENCE_S)
        finally:
            for link in links:
                link.is_left = True
    if refused is not None:
        raise refused


class _Link:
    """One log's part, which the log before it begins."""

    def __init__(self, log: Log, data: bytes, begin_next: Callable[[], None]) -> None:
        self.log = log
        self.call = log.prepare_commit(data, begin_next)
        self.telling = ExitStack()
        self.is_begun = self.is_left = False

    def begin(self) -> None:
        """Ask the log for it, unless nobody waits any more. From any thread."""
        if not self.is_left:
            self.log.hand_in(self.call)
            self.is_begun = True


def written_bytes(log: Log) -> int:
    """``log.written_bytes``, as a function."""
    return log.written_bytes


def _doing(log: Log) -> str:
    return log.doing


def _nothing() -> None:
    """What comes behind the last log."""
