"""How records are taken: in their turn, as a whole, each once, and answered with actions.

    message --> its turn --> a plan of events --> accepted together --> streams move --> actions

Streams move in the same step of the event loop in which the session accepts the events, so that a
cancellation leaves both in step; an action whose caller was cancelled is chosen when its record is sent
again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from anyio.lowlevel import checkpoint

from stoker.errors import InvalidExperience, SessionError
from stoker.journal import EpisodeEnded, StreamEnded, StreamEvent
from stoker.protocol import ProtocolError, Record, SpaceCodec, encode_memo
from stoker.protocol.messages import TrainingState
from stoker.service.answers import ended, invalid, no_disk, training_done
from stoker.service.backend import Backend
from stoker.service.durability import GroupCommit
from stoker.service.holders import Holder, claim
from stoker.service.limits import Limits
from stoker.service.planning import Draft, Plan
from stoker.service.streams import Answered
from stoker.service.table import Stream, StreamTable
from stoker.service.turns import queue_up
from stoker.telemetry.reading import ServiceCounts
from stoker.types import ActMode

T = TypeVar("T")

_AT_ONCE = 1024
"""Records that are planned before other tasks have their turn."""

_MODES = {"explore": ActMode.EXPLORE, "exploit": ActMode.EXPLOIT}


class Ingestion:
    """Takes records into a training. Each wait is bounded: behind it comes 429 ``busy``.

    The arguments are those of ``StepService``, and its ``table``.
    """

    def __init__(
        self,
        backend: Backend,
        codec: SpaceCodec,
        limits: Limits,
        table: StreamTable,
        counts: ServiceCounts,
        clock: Callable[[], float],
        *,
        has_disk: bool,
        learns: bool,
    ) -> None:
        self.has_disk = has_disk
        """Whether there is a disk on which records become durable."""
        self._learns = learns
        self.commits: GroupCommit = GroupCommit(backend.flush, limits.flush_interval_s)
        """Makes records durable; to be run beside."""
        self.n_accepted: int = 0
        """Records that were taken, in this process."""
        self.n_in_flight: int = 0
        """Messages that are being taken."""
        self._backend = backend
        self._codec = codec
        self._max_wait_s = limits.max_wait_s
        self._table = table
        self._counts = counts
        self._clock = clock
        self.training: TrainingState = self._training()
        """How the training stood at the last message."""

    async def take(self, records: Sequence[Record], streams: Mapping[str, Stream], holder: Holder) -> Plan:
        """Take the records of a message whole, or none, and choose the actions that they ask for.

        Raises:
            ProtocolError: None was taken; or there is no action for one.
        """
        turn = queue_up(streams.values())
        self.n_in_flight += 1
        try:
            deadline = None
            if turn.behind:
                deadline = self._deadline()
                await self.in_time(turn.wait(), "earlier messages of the same actors are in flight", deadline)
            planned = Plan(streams, holder, self._codec, learns=self._learns)
            if len(records) <= _AT_ONCE:
                planned.add(records)
            else:
                for first in range(0, len(records), _AT_ONCE):
                    planned.add(records[first : first + _AT_ONCE])
                    await checkpoint()
            drafts = planned.drafts.values()
            if planned.events:
                await self._accept(planned, deadline)
            now = self._clock()
            for draft in drafts:
                stream = draft.stream
                stream.seen_at = now
                if stream.holder is not holder:
                    claim(stream, holder)
            self._counts.duplicates += planned.n_repeats
            wanting = [draft for draft in drafts if draft.wants_action]
            if wanting:
                await self._decide(planned, wanting)
            self.training = self._training()
            return planned
        finally:
            self.n_in_flight -= 1
            turn.end()
            self._table.release(streams.values())

    async def _accept(self, planned: Plan, deadline: float | None) -> None:
        """Let the session accept the events of a message, and move its streams at once."""
        if self.training == "done" and not all(type(event) is EpisodeEnded for event in planned.events):
            await self.observe(())  # raises the cause, if it has failed
            raise training_done()
        try:
            n_accepted = await self.observe(planned.events, deadline)
        except InvalidExperience as refusal:
            raise invalid(refusal, planned) from refusal
        moved = planned.commit(n_accepted)
        if not moved:
            self.training = self._training()
            raise training_done()
        self.n_accepted += moved
        for draft in planned.drafts.values():
            stream = draft.stream
            if self.has_disk:
                self.commits.note(stream)
            elif not self._learns:
                stream.durable = stream.accepted  # there is nothing to lose

    async def observe(self, events: Sequence[StreamEvent], deadline: float | None = None) -> int:
        """Let the session accept events together; return how many were."""
        try:
            n_accepted = self._backend.offer_events(events)
            if n_accepted is not None:
                return n_accepted
            waiting = self._backend.observe_events(events)
            return await self.in_time(waiting, "the learner has no room for more", deadline)
        except SessionError as error:
            raise ended(error) from error

    async def _decide(self, planned: Plan, wanting: Sequence[Draft]) -> None:
        """Choose an action for each of these; those in one mode share a forward pass."""
        mode = wanting[0].record.mode
        others = [draft for draft in wanting if draft.record.mode != mode]
        drafts = [draft for draft in wanting if draft.record.mode == mode] if others else wanting
        streams = [draft.stream for draft in drafts]
        try:
            decisions = await self._backend.decide_many(
                planned.seen_by(streams), [stream.name for stream in streams], _MODES[mode]
            )
        except InvalidExperience as refusal:
            raise ProtocolError("invalid", f"taken, but there is no action for it: {refusal}") from refusal
        except SessionError as error:
            raise ended(error) from error
        encode = self._codec.encode_action
        for stream, decision in zip(streams, decisions, strict=True):
            action, version = decision.action, decision.policy_version
            memo = encode_memo(version, action, decision.policy_extras)
            stream.answered = Answered(encode(action), memo, version, decision)
        if others:
            await self._decide(planned, others)

    @asynccontextmanager
    async def turn(
        self, streams: Collection[Stream], problem: str = "its messages in flight are not taken yet"
    ) -> AsyncGenerator[None]:
        """Around a block that needs these streams at rest: when the messages in flight are taken.

        Raises:
            ProtocolError: 429, the problem: they were not taken in time.
        """
        turn = queue_up(streams)
        try:
            await self.in_time(turn.wait(), problem)
            yield
        finally:
            turn.end()
            self._table.release(streams)

    async def end(self, stream: Stream) -> None:
        """End a stream in its turn, if it has begun: its number is forgotten."""
        if stream.accepted:
            await self.observe((StreamEnded(stream.name),))
            stream.forget()

    def check_ack(self, ack: str) -> None:
        """Refuse to wait for a disk that there is not."""
        if ack == "durable" and self._learns and not self.has_disk:
            raise no_disk()

    async def become_durable(self, streams: Iterable[Stream]) -> None:
        """Wait until what was accepted of these streams is on disk."""
        if any(stream.durable < stream.accepted for stream in streams):
            try:
                await self.in_time(self.commits.wait(), "the disk did not catch up")
            except SessionError as error:
                raise ended(error) from error

    def _deadline(self) -> float:
        return anyio.current_time() + self._max_wait_s

    async def in_time(self, call: Awaitable[T], problem: str, deadline: float | None = None) -> T:
        """Wait for a call, as long as a message may wait at all."""
        with anyio.CancelScope(deadline=deadline if deadline is not None else self._deadline()):
            return await call
        raise ProtocolError(
            "busy", f"{problem}, within {self._max_wait_s:g} s: send it again", retry_after=1.0
        )

    def _training(self) -> TrainingState:
        if not self._learns:
            return "off"
        return "done" if self._backend.is_done else "running"
