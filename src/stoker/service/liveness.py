"""What happens to streams whose actors are silent, or were cut off by a kill of the service.

An actor that is silent for too long has its running episode abandoned; its numbers stay, so that a late
resend is still exact, and a new episode goes on from there. An episode that was over, and whose end a kill
has taken, gets its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import anyio

from stoker.errors import SessionError
from stoker.service.backend import Backend
from stoker.service.streams import abandoned
from stoker.service.table import Stream, StreamTable
from stoker.service.turns import queue_up

_TOGETHER = 256
"""How many episodes are abandoned together: others wait for as long as these wait for room."""


class Liveness:
    """Ends episodes that nobody else will end.

    Args:
        backend: takes their ends.
        table: the streams.
        timeout_s: after this long without a record an actor is silent.
        clock: the time in seconds.
        learns: whether there is a training; without one, silent actors are forgotten.
    """

    def __init__(
        self,
        backend: Backend,
        table: StreamTable,
        timeout_s: float,
        clock: Callable[[], float],
        *,
        learns: bool,
    ) -> None:
        self._backend = backend
        self._table = table
        self._timeout_s = timeout_s
        self._clock = clock
        self._learns = learns
        self.n_silent: int = 0
        """Episodes that were abandoned because their actors were silent."""

    async def run(self) -> None:
        """End silent episodes, until cancelled or the session ends."""
        try:
            while True:
                await anyio.sleep(self._until_next())
                await self.abandon_silent()
        except SessionError:  # every message gets it, too
            return

    async def abandon_silent(self) -> int:
        """Abandon the running episodes of silent actors; return how many."""
        before = self._clock() - self._timeout_s
        n_before = self.n_silent
        while silent := list(islice(self._silent_since(before), _TOGETHER)):
            await self._abandon(silent)
        return self.n_silent - n_before

    def _silent_since(self, before: float) -> Iterator[Stream]:
        for stream in self._table.values():
            if stream.seen_at <= before and self._is_watched(stream) and not stream.n_turns:
                yield stream

    def _is_watched(self, stream: Stream) -> bool:
        return stream.state.is_open or stream.state.ending is not None or not self._learns

    async def _abandon(self, silent: Sequence[Stream]) -> None:
        turn = queue_up(silent)
        try:
            if self._learns:
                ends = [abandoned(stream.name, stream.state) for stream in silent]
                await self._backend.observe_events([event for event, _ in ends])
                for stream, (_, state) in zip(silent, ends, strict=True):
                    stream.state, stream.answered = state, None
            else:
                for stream in silent:
                    stream.forget()
            self.n_silent += len(silent)
        finally:
            turn.end()
            self._table.release(silent)

    def _until_next(self) -> float:
        """Seconds until an actor can be silent for too long: at least a twentieth of the limit."""
        oldest = min((s.seen_at for s in self._table.values() if self._is_watched(s)), default=self._clock())
        return max(oldest + self._timeout_s - self._clock(), self._timeout_s / 20)
