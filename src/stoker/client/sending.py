"""Puts what the actors' streams have to send into messages, and gives each stream its part of the answer.

What is pending at the same time goes into one message. At most one message of a stream is under way, so its
records arrive in order. A message that is lost is made again from what the streams still keep.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import anyio
import msgspec

from stoker.client.links import Link
from stoker.client.streams import RemoteStream
from stoker.errors import ActorConflict, ConfigError, InvalidExperience, SessionFailed
from stoker.protocol import ActorAnswer, Problem, ProtocolError, SpecLimits, StepAnswer, encode_msgpack

_logger = logging.getLogger("stoker.client")

_AT_ONCE: Final = 4
"""Messages that may be under way together: a far server answers the first while the others travel."""
_OVERHEAD: Final = 256
"""Bytes of a message beside its records."""
_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
_RECORD_OF_PATH: Final = re.compile(r"steps\[(\d+)\]")


class _Batch(NamedTuple):
    """A message: its number, its streams, and of each record its stream."""

    number: int
    streams: list[RemoteStream]
    owners: list[RemoteStream]
    body: bytes


class Sender:
    """Sends for all streams of a session.

    Args:
        limits: of the server.
        action: an action of an answer, as the environment takes it.
        keeps: whether the server has a disk.
        is_heard: called at each answer of the server.
    """

    def __init__(
        self, limits: SpecLimits, action: Callable[[Any], Any], *, keeps: bool, is_heard: Callable[[], None]
    ) -> None:
        self.is_done: bool = False
        """Whether the training has ended: what it did not take is dropped."""
        self.keeps = keeps
        self.limits: SpecLimits = limits
        self._action = action
        self._is_heard = is_heard
        self._ready: dict[RemoteStream, None] = {}
        self._alone: set[RemoteStream] = set()  # in messages of their own: one of them may be to blame
        self._idle: list[anyio.Event] = []  # of the pumps that wait for something to send
        self._numbers = itertools.count(1)
        self._n_pauses = 0  # that the server asked for and that are not over
        self._unanswered = 0  # records that are under way

    def offer(self, stream: RemoteStream) -> None:
        """The stream has something to send."""
        self._ready[stream] = None
        self._wake()

    def _wake(self) -> None:
        """Let one of the pumps look for something to send."""
        if self._idle:
            self._idle.pop().set()

    async def run(self, link: Link) -> None:
        """Send until the link breaks.

        Raises:
            LinkBroken: It broke; what was under way will be sent again.
            StokerError: The server refuses this client for good, or has failed.
        """
        self._idle.clear()
        async with anyio.create_task_group() as tasks:
            for _ in range(_AT_ONCE):
                tasks.start_soon(self._pump, link)

    async def _pump(self, link: Link) -> None:
        least_s = _PAUSE_S
        while True:
            while (batch := self._next()) is None:
                self._idle.append(event := anyio.Event())
                await event.wait()
            try:
                reply = await link.exchange(batch.number, batch.body)
            except BaseException:
                self._put_back(batch)
                raise
            pause_s = self._settled(batch, reply)
            if pause_s is None:
                least_s = _PAUSE_S
                continue
            self._n_pauses += 1
            try:
                await anyio.sleep(max(pause_s, least_s))
            finally:
                self._n_pauses -= 1
            least_s = min(2 * least_s, _LONGEST_PAUSE_S)

    # Messages ---------------------------------------------------------------------------------------

    def _next(self) -> _Batch | None:
        """The next message; None: there is nothing to send now."""
        room = min(self.limits.records, self.limits.credit - self._unanswered)
        if not self._ready or self._n_pauses or room <= 0:
            return None
        space = self.limits.message_bytes - _OVERHEAD
        streams: list[RemoteStream] = []
        owners: list[RemoteStream] = []
        parts: list[msgspec.Raw] = []
        waits_for_disk: bool | None = None
        for stream in list(self._ready):
            to_send = stream.to_send()
            if not to_send:
                del self._ready[stream]
                continue
            repeats = stream.n_waiting == 0  # only to learn that it is on disk
            if streams and (
                repeats is not waits_for_disk or stream in self._alone or streams[0] in self._alone
            ):
                continue
            most = min(len(to_send), room, self.limits.credit_per_actor)
            n_sent = 0
            while n_sent < most and (not parts or len(to_send[n_sent].data) <= space):
                parts.append(msgspec.Raw(to_send[n_sent].data))
                space -= len(to_send[n_sent].data)
                n_sent += 1
            if n_sent == 0:
                break
            room -= n_sent
            owners += [stream] * n_sent
            streams.append(stream)
            stream.in_flight = to_send[n_sent - 1].seq
            waits_for_disk = repeats
            del self._ready[stream]
            if room == 0:
                break
        if not streams:
            return None
        self._unanswered += len(owners)
        if self._ready:
            self._wake()
        number = next(self._numbers)
        ack = "durable" if waits_for_disk else "accepted"
        return _Batch(number, streams, owners, encode_msgpack({"steps": parts, "ack": ack, "id": number}))

    def _put_back(self, batch: _Batch) -> None:
        """The message is under way no more: what it did not bring to the server goes into another one."""
        self._unanswered -= len(batch.owners)
        for stream in batch.streams:
            stream.in_flight = 0
            if stream.to_send():
                self.offer(stream)

    def _settled(self, batch: _Batch, reply: StepAnswer | Problem) -> float | None:
        """Take in an answer; returns how long the server wants to be left alone, None: not at all.

        Raises:
            StokerError: The server refuses this client for good, or has failed.
        """
        self._is_heard()
        try:
            if isinstance(reply, Problem):
                return self._refused(batch, reply)
            self.is_done = self.is_done or reply.training == "done"
            self._answered(batch, reply.actors)
            self._alone.difference_update(batch.streams)
            return None
        finally:
            self._put_back(batch)
            if self.is_done:
                for stream in batch.streams:
                    stream.drop_rest()

    def _answered(self, batch: _Batch, actors: Mapping[str, ActorAnswer], *, is_reply: bool = True) -> None:
        for stream in batch.streams:
            if (answer := actors.get(stream.name)) is not None:
                action = None if answer.action is None else self._action(answer.action)
                stream.answered(answer, action, keeps=self.keeps, is_reply=is_reply)

    # Problems ---------------------------------------------------------------------------------------

    def _refused(self, batch: _Batch, problem: Problem) -> float | None:
        """Nothing of the message was taken; returns how long to wait before it is sent again."""
        kind, actors = problem.kind, problem.actors or {}
        error = ProtocolError.from_problem(problem)
        match kind:
            case "gap":
                self._answered(batch, actors, is_reply=False)
            case "training-done":
                self.is_done = True
                self._answered(batch, actors, is_reply=False)
            case "training-failed":
                raise SessionFailed("server", error)
            case "fenced" | "held" | "different":
                self._blame(batch, problem, lambda stream: stream.lose(conflict(stream, error)))
            case "too-large" if len(batch.owners) > 1:
                most = max(len(each.kept[-1].data) for each in batch.streams if each.kept)
                halved = {
                    "records": max(1, len(batch.owners) // 2),
                    "message_bytes": max(1024, most + _OVERHEAD),
                }
                self.limits = msgspec.structs.replace(self.limits, **halved)
            case "no-episode" | "invalid" | "off-policy" | "too-large" | "too-deep" | "malformed":
                self._blame(batch, problem, lambda stream: stream.refused(refusal(stream, error, problem)))
            case _ if problem.status in (408, 429) or problem.status >= 500:
                _logger.debug("%s", error)
                return float(problem.retry_after or 0.0)
            case _:
                raise ConfigError(f"the server refuses this client: {error}") from error
        return None

    def _blame(self, batch: _Batch, problem: Problem, act: Callable[[RemoteStream], None]) -> None:
        """Find the stream that a problem is about; if that is open, send those of the message one by one."""
        found = _RECORD_OF_PATH.search(problem.path or "")
        if len(batch.streams) == 1:
            act(batch.streams[0])
        elif found is not None and int(found[1]) < len(batch.owners):
            act(batch.owners[int(found[1])])
        else:
            self._alone.update(batch.streams)


def conflict(stream: RemoteStream, error: ProtocolError) -> ActorConflict:
    """The error of an actor that another client has."""
    found = ActorConflict(stream.actor_id, "another client")
    found.add_note(str(error))
    found.__cause__ = error
    return found


def refusal(stream: RemoteStream, error: ProtocolError, problem: Problem) -> InvalidExperience:
    """The error of a record that the server does not take."""
    path = re.sub(r"^steps\[\d+\]\.?", "", problem.path or "")
    found = InvalidExperience(f"actor {stream.actor_id!r}: {path or 'its record'}: {error.detail}")
    found.__cause__ = error
    return found
