"""Events on their way from the thread of a plain loop to a session's queue on an event loop.

Ctrl-C may interrupt the plain loop between any two bytecodes, so that all it does here is a call of
``append``, a C function: then the event is in. A task on the event loop, which no signal interrupts, does the
rest.
"""

from __future__ import annotations

import sys
from queue import SimpleQueue

import anyio

from stoker.errors import SessionClosed
from stoker.queues import BatchQueue
from stoker.session.events import Event
from stoker.threads import CallSoon
from stoker.types import Experience

__all__ = ["Handover"]


class Handover:
    """A buffer that threads append to, and the task that empties it into the queue, in order.

    Args:
        queue: the session's.
        accepted_steps: experiences accepted before, in all attempts.
        call_soon: has something called on the event loop.

    Attributes:
        append: puts an event in, from any thread, without waiting.
    """

    def __init__(self, queue: BatchQueue[Event], accepted_steps: int, call_soon: CallSoon) -> None:
        self._queue = queue
        self._n_put = accepted_steps
        self._buffer: BatchQueue[Event] = BatchQueue(sys.maxsize, consumed=lambda: self._n_put)
        self.append = self._buffer.append
        self._call_soon = call_soon
        # Not futures: an interruption inside their Python code may leave a lock behind that the loop needs.
        self._replies: list[SimpleQueue[Exception | None]] = []
        self._woken = anyio.Event()
        self._emptying = anyio.Lock()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._buffer)

    def count_steps(self) -> int:
        """How many experiences were ever put in, over all attempts."""
        return self._buffer.count(Experience)

    def wait(self) -> None:
        """Block until everything that was appended so far is in the queue. Interrupted: it goes on.

        Raises:
            SessionClosed, SessionFailed: The session does not run.
        """
        reply: SimpleQueue[Exception | None] = SimpleQueue()
        self._replies.append(reply)
        if self._is_closed:
            raise SessionClosed("observe", entered=True)
        self._call_soon(self._wake)
        if (error := reply.get()) is not None:
            raise error

    async def run(self) -> None:
        """Empty the buffer into the queue whenever a thread waits for that, until ``close``."""
        while not self._is_closed:
            await self._woken.wait()
            self._woken = anyio.Event()
            await self._empty()

    async def close(self) -> None:
        """Empty the buffer for the last time."""
        with anyio.CancelScope(shield=True):
            await self._empty()
            self._is_closed = True
            await self._empty()  # for those who came meanwhile
            self._wake()

    def _wake(self) -> None:
        self._woken.set()

    async def _empty(self) -> None:
        async with self._emptying:
            replies = self._replies[:]  # before the events: what they wait for is among these
            del self._replies[: len(replies)]
            events, error = self._buffer.take_now(), None
            try:
                with anyio.CancelScope(shield=True):  # ends when the session does: the queue is closed then
                    await self._queue.put_many(events)
            except Exception as cause:  # noqa: BLE001 - raised in the threads that wait
                error = cause
            self._n_put += sum(type(event) is Experience for event in events)
            for reply in replies:
                reply.put(error)
