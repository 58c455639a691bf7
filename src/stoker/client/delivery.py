"""What a client's actors have sent, and how calls wait until the server has it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio

from stoker.client.foractors import ForActors
from stoker.client.sending import Sender
from stoker.client.streams import RemoteStream
from stoker.errors import SessionClosed, SessionFailed, StokerError
from stoker.protocol import Spec, encode_msgpack
from stoker.types import ActorId

_MOST_KEPT = 4096
"""Records of an actor that are not on the server's disk; beyond, its calls wait for the disk."""


class Delivery(ForActors):
    """The streams of a client's actors: each is opened once, waited for, and failed together with the others.

    Args:
        spec: of the server.
        prefix: what the server calls actor 3: this and ``3``.
        find: the number of the last record that the server has of a name.
        action: gives the action of an answer as the environment takes it.
    """

    def __init__(
        self,
        spec: Spec,
        prefix: str,
        find: Callable[[str], Awaitable[int]],
        action: Callable[[Any], Any],
    ) -> None:
        super().__init__()
        self.spec: Spec = spec
        """What the server said about itself when it was connected last."""
        self.prefix = prefix
        """What the server calls actor 3: this and ``3``."""
        self._streams: dict[ActorId, RemoteStream] = {}
        self._wants_actions = True  # of the server
        self._find = find
        self._opening: dict[ActorId, anyio.Lock] = {}
        self._failure: StokerError | None = None
        self._is_closed = False
        self._is_stopped = False
        self.heard_at: float = time.monotonic()
        """When the server answered last, in monotonic seconds."""
        self.sender: Sender = Sender(
            spec.limits, action, keeps="durable" in spec.features, is_heard=self._hear
        )
        """Sends what the actors have to send."""

    def know(self, spec: Spec) -> None:
        """What the server says about itself now."""
        self.spec = spec
        self.sender.limits, self.sender.keeps = spec.limits, "durable" in spec.features

    @property
    def is_done(self) -> bool:
        """Whether the training takes no more steps: it has ended, ``stop`` was called, or it has failed."""
        return self.sender.is_done or self._is_stopped or self._failure is not None or self._is_closed

    @property
    def has_ended(self) -> bool:
        """Whether the server has said that the training has all its steps."""
        return self.sender.is_done

    @property
    def is_draining(self) -> bool:
        """Whether it takes no more calls."""
        return self._is_closed

    @property
    def failure(self) -> StokerError | None:
        """Why the session has failed."""
        return self._failure

    def require_open(self, what: str) -> None:
        """Refuse a call that needs a running session.

        Raises:
            SessionError: It has been left, or has failed.
        """
        if self._failure is not None:
            raise self._failure
        if self._is_closed:
            raise SessionClosed(what, entered=True)

    @property
    def accepted_steps(self) -> int:
        """Steps of this client that the server has accepted."""
        return sum(stream.steps for stream in self._streams.values())

    @property
    def names(self) -> list[str]:
        """What the server calls the actors that have played."""
        return [stream.name for stream in self._streams.values() if not stream.is_lost]

    def stop(self) -> None:
        """Accept no more steps from this client; the training itself goes on."""
        self._is_stopped = True

    async def barrier(self) -> None:
        """Return when the server has accepted everything observed so far."""
        for stream in list(self._streams.values()):
            stream.seal(wants_action=True)
            self.sender.offer(stream)
            wanted = stream.sealed
            await self._until(stream, partial(_is_taken, stream, wanted))

    async def flush(self) -> None:
        """Return when everything observed so far is on the server's disk; without a disk, as ``barrier``.

        Raises:
            SessionError: The server has failed.
        """
        streams = [stream for stream in self._streams.values() if not stream.is_lost]
        wanted: list[tuple[RemoteStream, int]] = []
        for stream in streams:
            stream.seal(wants_action=True)
            stream.wants_durable = self.sender.keeps
            wanted.append((stream, stream.sealed))
            self.sender.offer(stream)
        try:
            for stream, last in wanted:
                await self._until(stream, partial(_is_durable, stream, last))
        finally:
            for stream in streams:
                stream.wants_durable = False

    def fail(self, part: str, error: BaseException) -> None:
        """End the session: this part has failed; every call raises it from now on."""
        if self._failure is None:
            is_own = isinstance(error, StokerError)
            self._failure = error if is_own else SessionFailed(part, error)
            for stream in self._streams.values():
                stream.notify()

    def end(self) -> None:
        """Take no more calls."""
        self._is_closed = True

    async def _stream(self, actor_id: ActorId) -> RemoteStream:
        """The stream of an actor; the first time, the server is asked where it stands."""
        async with self._opening.setdefault(actor_id, anyio.Lock()):
            if (stream := self._streams.get(actor_id)) is None:
                self.require_open("the call")
                name = f"{self.prefix}{actor_id}"
                last = await self._find(name)
                stream = RemoteStream(actor_id, name, last, encode_msgpack, wants_actions=self._wants_actions)
                self._streams[actor_id] = stream
        return stream

    async def _until(self, stream: RemoteStream, is_true: Callable[[], bool]) -> None:
        """Wait for something that an answer changes.

        Raises:
            StokerError: The session failed, or the server refused a record of the stream.
        """
        while True:
            stream.check()
            if self._failure is not None:
                raise self._failure
            if is_true():
                return
            await stream.changed.wait()

    async def _room(self, stream: RemoteStream) -> None:
        """Wait while the stream has too much that is not accepted, or not on disk."""
        most = self.spec.limits.credit_per_actor
        if stream.n_waiting >= most:
            await self._until(stream, lambda: stream.n_waiting < most or self.sender.is_done)
        if len(stream.kept) >= _MOST_KEPT:
            stream.wants_durable = True
            self.sender.offer(stream)
            await self._until(stream, lambda: len(stream.kept) < _MOST_KEPT or self.sender.is_done)
            stream.wants_durable = False

    def _hear(self) -> None:
        self.heard_at = time.monotonic()


def _is_taken(stream: RemoteStream, last: int) -> bool:
    return stream.is_lost or stream.taken >= min(last, stream.sealed)


def _is_durable(stream: RemoteStream, last: int) -> bool:
    return stream.is_lost or stream.durable >= min(last, stream.sealed)
