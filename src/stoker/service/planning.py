"""What a message of records amounts to: events for the session, and how its streams will have moved.

Planning changes nothing. ``Plan.commit`` moves the streams, once the session has accepted the events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from stoker.journal import StreamEvent
from stoker.protocol import ProtocolError, Record, SpaceCodec
from stoker.service.holders import Holder, refuse_others
from stoker.service.streams import StreamState, advance, check_repeat, unknown
from stoker.service.table import Stream


class Draft:
    """How one stream moves by a message.

    Attributes:
        stream: as it is.
        state: behind the records so far.
        record: the last one of the message.
    """

    __slots__ = ("record", "state", "stream")

    def __init__(self, stream: Stream, record: Record) -> None:
        self.stream: Stream = stream
        self.state: StreamState = stream.state
        self.record: Record = record

    @property
    def wants_action(self) -> bool:
        """Whether an action is asked for, and is not known."""
        stream = self.stream
        state = stream.state
        return (
            stream.answered is None
            and state.observation is not None
            and self.record.act
            and self.record.seq == state.next - 1
        )


class Plan:
    """What the records of a message amount to, if the session accepts the events.

    Args:
        streams: of all actors of the message.
        holder: who sends it.
        codec: of the training's spaces.
        learns: whether there is a training; if not, a stream may begin anywhere, because its past means
            nothing.

    Attributes:
        drafts: by actor.
        events: for the session, in order.
        marks: for each record that is taken: its first event, its stream, the state behind it, and its place
            in the message.
        n_repeats: records that were taken before.
    """

    __slots__ = (
        "_codec",
        "_holder",
        "_learns",
        "_seen",
        "_streams",
        "drafts",
        "events",
        "marks",
        "n_records",
        "n_repeats",
    )

    def __init__(
        self, streams: Mapping[str, Stream], holder: Holder, codec: SpaceCodec, *, learns: bool = True
    ) -> None:
        self._streams = streams
        self._holder = holder
        self._codec = codec
        self._learns = learns
        self.drafts: dict[str, Draft] = {}
        self.events: list[StreamEvent] = []
        self.marks: list[tuple[int, Stream, StreamState, int]] = []
        self.n_records: int = 0
        self.n_repeats: int = 0
        self._seen: Any = None  # the observations of the records that were added last, as one array

    def add(self, records: Sequence[Record]) -> None:
        """Check the next records of the message; those of each actor must be in ascending order.

        Raises:
            ProtocolError: 409, a record cannot be taken now; 422, one cannot be taken at all.
        """
        drafts, events, at = self.drafts, self.events, self.n_records
        rows: Iterable[Any] = repeat(None)
        if len(records) > 1 and all(record.action_mask is None for record in records):
            self._seen = self._codec.observations([record.observation for record in records])
            if self._seen is not None:
                rows = map(np.ndarray.copy, self._seen)  # each is kept for another time
        for record, row in zip(records, rows, strict=False):
            draft = drafts.get(record.actor)
            if draft is None:
                draft = drafts[record.actor] = self._draft(record)
            elif record.seq <= draft.record.seq:
                raise _out_of_order(draft.record, record, at)
            else:
                draft.record = record
            stream, state = draft.stream, draft.state
            if not self._learns and not (record.start or state.is_open):
                state = unknown(state, record)
            if record.seq == state.next:
                answered = stream.answered if state is stream.state else None
                first = len(events)
                draft.state = after = advance(state, answered, record, at, self._codec, events, row)
                self.marks.append((first, stream, after, at))
            elif record.seq < state.next:
                self.n_repeats += 1
                if record.seq == stream.state.next - 1:
                    check_repeat(stream.state, record, at, self._codec)
            else:
                raise _gap(record, state, at)
            at += 1
        self.n_records = at

    def seen_by(self, streams: Sequence[Stream]) -> Sequence[Any]:
        """What these streams, which have moved, see now: as an array if each has one record of all."""
        if (
            self._seen is not None
            and len(streams) == len(self._seen) == self.n_records
            and not self.n_repeats
        ):
            return self._seen
        return [stream.state.observation for stream in streams]

    def place_of(self, event: int) -> int:
        """The record in the message that an event is of."""
        return next(at for first, _, _, at in reversed(self.marks) if first <= event)

    def commit(self, n_accepted: int) -> int:
        """Move the streams by the records of the first events, those accepted; return how many records."""
        if n_accepted < len(self.events):  # the training has ended in between
            self.marks = [mark for mark in self.marks if mark[0] < n_accepted]
        for _, stream, state, _ in self.marks:
            stream.state = state
            stream.answered = None
        return len(self.marks)

    def _draft(self, record: Record) -> Draft:
        stream, holder = self._streams[record.actor], self._holder
        if stream.holder is not holder and (stream.holder is not None or holder.fenced):
            refuse_others(stream, holder)
        return Draft(stream, record)


def _out_of_order(before: Record, record: Record, at: int) -> ProtocolError:
    return ProtocolError(
        "invalid",
        f"actor {record.actor!r}: record {record.seq} comes after {before.seq} in one message: send an "
        "actor's records in ascending order, each once",
        path=f"steps[{at}].seq",
    )


def _gap(record: Record, state: StreamState, at: int) -> ProtocolError:
    return ProtocolError(
        "gap",
        f"actor {record.actor!r}: record {record.seq} came, and {state.next} is next: send the records from "
        "there on",
        path=f"steps[{at}].seq",
    )
