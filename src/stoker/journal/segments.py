"""Segments: the files of a journal. Each is a header record and then one record per event, in order.

    record: 2 bytes magic | 4 bytes length | 4 bytes CRC-32 of the payload | payload (little endian)

A record counts only if its last byte is there and its checksum matches, so a flipped bit anywhere in it is
noticed. A writer that was killed leaves a torn tail: half a record, zeros, or an empty file. That is not
damage. A record that cannot be read while a later one can is.

The number of an event is the header's ``first_event`` plus its place in the segment. To read a segment, no
other one is needed.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from stoker.errors import ConfigError, JournalBroken, RunBroken
from stoker.journal.events import (
    EventDecoder,
    JournalEvent,
    Recent,
    encode_batch,
    encode_experience,
    encode_other,
    is_record,
    n_events_in,
)
from stoker.journal.header import OtherFormat, SegmentHeader, decoded_header, encoded_header
from stoker.types import Experience, ExperienceBatch
from stoker.writer import files

MAGIC = b"\xf5\x4a"
"""No text holds the first byte, and no run of equal bytes both."""
LONGEST_BYTES = 1 << 30
"""A length beyond this, or of 0, is damage."""
FEWEST_ROWS = 6
"""Of a batch that is stored as columns: below, what columns save is less than what they take to describe."""

_FIRST_BYTES, _MOST_BYTES = 1 << 15, 1 << 20
"""What is read of a file at once, at first and later: often only its header is wanted."""
_FRAME = struct.Struct("<2sII")
_NAME = re.compile(r"(\d{4,})-(\d{12,})\.journal", re.ASCII)


def segment_name(attempt: int, first_event: int) -> str:
    """The file name of the segment of that attempt which begins with that event."""
    return f"{attempt:04d}-{first_event:012d}.journal"


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """The attempt and the first event in a file name, or None if it is not a segment's."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    attempt, first_event = int(match[1]), int(match[2])
    return (attempt, first_event) if segment_name(attempt, first_event) == name else None


def frame(payload: bytes) -> bytes:
    """A payload as a record; it is not empty: magic and then zeros would be a whole record of nothing.

    Raises:
        ConfigError: It is longer than ``LONGEST_BYTES``.
    """
    size = len(payload)
    if size > LONGEST_BYTES:
        raise ConfigError(
            f"an event of {size} bytes: the journal takes at most {LONGEST_BYTES}; pass journal=False to "
            "train without a journal"
        )
    return _FRAME.pack(MAGIC, size, zlib.crc32(payload)) + payload


class SegmentEncoder:
    """Events as the bytes that a segment takes, one segment after the other.

    What it returns must be written in this order and without gaps. After an error it takes no event until
    the next ``begin``.
    """

    def __init__(self) -> None:
        self._recent: Recent | None = None

    def begin(self, header: SegmentHeader) -> bytes:
        """The bytes that a new segment begins with.

        Raises:
            ConfigError: ``agent`` or ``rebuild`` holds what a journal cannot.
        """
        self._recent = None
        data = frame(encoded_header(header))
        self._recent = Recent()
        return data

    def encode_all(self, events: Iterable[JournalEvent]) -> bytes:
        """The bytes of these events.

        Raises:
            ConfigError: One holds what a journal cannot, named by its place in the event; none of them counts
                as written.
        """
        recent, self._recent = self._recent, None  # stays None where one of them fails
        if recent is None:
            raise RuntimeError("no segment was begun, or its encoder failed: begin a new one")
        records = [
            encode_experience(event, recent) if isinstance(event, Experience) else encode_other(event, recent)
            for event in events
        ]
        data = b"".join(map(frame, records))
        self._recent = recent
        return data

    def encode_batch(self, batch: ExperienceBatch) -> bytes:
        """The bytes of a batch.

        Small ones are stored as single events, which are shorter, unless the segment has a larger one: where
        batches vary in size, columns need to know the observations of the batch before.

        Raises:
            ConfigError: As for ``encode_all``.
        """
        recent, self._recent = self._recent, None
        if recent is None:
            raise RuntimeError("no segment was begun, or its encoder failed: begin a new one")
        if len(batch) < FEWEST_ROWS and recent.last.batch is None:
            records = [encode_experience(event, recent) for event in batch.experiences()]
        else:
            records = [encode_batch(batch, recent)]
        data = b"".join(map(frame, records))
        self._recent = recent
        return data


class SegmentReader:
    """Reads one segment once, a record at a time; what it found at the end is in its attributes.

    Args:
        path: the file, under the name that ``segment_name`` gave it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: SegmentHeader | None = None
        """The segment's header, once it was read; None also if it cannot be."""
        self.whole_bytes: int = 0
        """Where the last whole record ends that was read."""
        self.torn_bytes: int = 0
        """The length of the torn tail, once the end was reached."""
        self.damage: str | None = None
        """What cannot be read although the file continues behind it."""
        self.n_behind: int = 0
        """Events that are whole behind damage."""

    def events(self) -> Iterator[JournalEvent]:
        """The events in their order, up to the end, a torn tail or damage.

        Raises:
            JournalBroken: The file is missing or the disk cannot read it.
            RunBroken: The system refuses to read it, or it is of another format.
        """
        decoder = EventDecoder()
        for record in self.records():
            try:
                event = decoder.event(record)
            except msgspec.DecodeError as error:
                self.note_unreadable([record], error)
                return
            if isinstance(event, ExperienceBatch):
                yield from event.experiences()
            else:
                yield event

    def records(self) -> Iterator[bytes]:
        """The events in their order as they are stored, not decoded; ``header`` is set before the first.

        Raises:
            JournalBroken, RunBroken: As for ``events``.
        """
        records = self._records()
        if self._take_header(records):
            yield from records

    def read_header(self) -> SegmentHeader | None:
        """The header, without reading on; None if it cannot be read.

        Raises:
            RunBroken: The system refuses to read the file, or it is of another format.
        """
        with contextlib.suppress(JournalBroken):
            self._take_header(self._records())
        return self.header

    def _take_header(self, records: Iterator[bytes]) -> bool:
        """Read the header; return whether events can follow."""
        record = next(records, None)
        if record is None:
            return False
        try:
            header = decoded_header(record)
        except OtherFormat as error:
            raise RunBroken(self.path, str(error)) from error
        except msgspec.DecodeError as error:
            self.note_unreadable([record], error)
            return False
        says = header.attempt, header.first_event
        if parse_segment_name(self.path.name) not in (None, says):
            problem = f"it says attempt {says[0]}, event {says[1]}: the file was renamed"
            self.note_unreadable([record], problem)
            return False
        self.header = header
        return True

    def note_unreadable(self, records: Sequence[bytes], problem: object) -> None:
        """Note that the first of the records that were read last holds no event."""
        self.whole_bytes -= sum(_FRAME.size + len(record) for record in records)
        self.damage = f"the record at byte {self.whole_bytes} cannot be read ({problem})"

    def _records(self) -> Iterator[bytes]:
        """Each whole record; then ``torn_bytes`` or ``damage`` is set."""
        try:
            with files.open_to_read(self.path) as file:
                size = os.fstat(file.fileno()).st_size  # a live writer may add to the file meanwhile
                for record in _whole_records(file, size):
                    self.whole_bytes += _FRAME.size + len(record)
                    yield record
                file.seek(self.whole_bytes)
                tail = file.read(size - self.whole_bytes)
        except RunBroken:
            raise
        except OSError as error:
            raise JournalBroken(self.path, f"cannot be read ({error.strerror or error})") from error
        at = tail.find(MAGIC, 1)
        while at >= 0 and not _is_record_at(tail, at):
            at = tail.find(MAGIC, at + 1)
        if at < 0:
            self.torn_bytes = len(tail)
        else:
            end = self.whole_bytes + at - 1
            self.damage = f"bytes {self.whole_bytes} to {end} are damaged, records follow behind them"
            self.n_behind = _n_events_in(tail, at)


def _whole_records(file: IO[bytes], size: int) -> Iterator[bytes]:
    """The payloads of the whole records that a file of this size begins with."""
    unpack, crc32, frame_size = _FRAME.unpack_from, zlib.crc32, _FRAME.size
    data, at, n_left, n_wanted, n_bytes = b"", 0, size, frame_size, _FIRST_BYTES
    n_data = 0
    while True:  # once for each record: whatever is computed here counts
        if n_data - at < n_wanted:
            data = data[at:] + file.read(min(max(n_bytes, n_wanted), n_left))
            n_left, at, n_bytes = size - file.tell(), 0, min(2 * n_bytes, _MOST_BYTES)
            n_data = len(data)
            if n_data < n_wanted:
                return
        magic, length, checksum = unpack(data, at)
        start = at + frame_size
        end = start + length
        if magic != MAGIC or not 0 < length <= LONGEST_BYTES or end > n_data + n_left:
            return
        if end > n_data:
            n_wanted = end - at
            continue
        payload = data[start:end]
        if crc32(payload) != checksum:
            return
        at, n_wanted = end, frame_size
        yield payload


def _read_record(file: IO[bytes], n_left: int) -> bytes | None:
    """The payload of the record that begins here; None if there is no whole one in the next bytes."""
    head = file.read(_FRAME.size)
    if len(head) < _FRAME.size:
        return None
    magic, size, checksum = _FRAME.unpack(head)
    if magic != MAGIC or not 0 < size <= min(LONGEST_BYTES, n_left - _FRAME.size):
        return None
    payload = file.read(size)
    return payload if zlib.crc32(payload) == checksum else None


def _is_record_at(data: bytes, at: int) -> bool:
    file = io.BytesIO(data)
    file.seek(at)
    payload = _read_record(file, len(data) - at)
    return payload is not None and is_record(payload)


def _n_events_in(data: bytes, at: int) -> int:
    """The events of all whole records from there on, whatever is damaged between them."""
    n_events = 0
    while at >= 0:
        file = io.BytesIO(data)
        file.seek(at)
        payload = _read_record(file, len(data) - at)
        if payload is not None and is_record(payload):
            n_events += n_events_in(payload)
            at = file.tell()
            if data.startswith(MAGIC, at):
                continue
        at = data.find(MAGIC, at + 1)
    return n_events
