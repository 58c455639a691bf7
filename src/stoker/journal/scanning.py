"""One segment's file, read from its beginning to wherever it ends or is damaged.

A writer that was killed leaves a torn tail: half a record, zeros, or nothing but an empty file. That is no
damage. A record that cannot be read while a later one can is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from stoker.errors import JournalBroken, RunBroken
from stoker.journal.events import JournalEvent
from stoker.journal.frames import HEADER_BYTES, find_frame, needed_bytes, scan
from stoker.journal.segments import SegmentDecoder, SegmentHeader, is_message, parse_segment_name
from stoker.writer import files

__all__ = ["SegmentReader", "count_events", "length_of", "read_header", "read_segment", "set_torn_aside"]

_CHUNK_BYTES = 1 << 20
_HEADER_CHUNK_BYTES = 1 << 12
"""What is read first where only the header is wanted; more where it is longer."""


class SegmentReader:
    """Reads one segment once, a chunk at a time; what it found at the end is in its attributes.

    Args:
        path: the file, under the name that ``segment_name`` gave it.
        first_chunk_bytes: how much is read at first; each further chunk is twice as long, up to 1 MiB.
    """

    def __init__(self, path: Path, first_chunk_bytes: int = _CHUNK_BYTES) -> None:
        self.path = path
        self._first_chunk_bytes = first_chunk_bytes
        self.header: SegmentHeader | None = None
        """What the segment begins with, once that has been read; None too where it cannot be."""
        self.whole_bytes = 0
        """Where the last whole record ends that was read."""
        self.torn_bytes = 0
        """The length of the torn tail, once the end was reached."""
        self.damage: str | None = None
        """What cannot be read although the file goes on behind it."""

    def events(self) -> Iterator[JournalEvent]:
        """The events in their order, up to the end, a torn tail or damage.

        Raises:
            JournalBroken: The file is missing or the disk cannot give it.
            RunBroken: The system refuses to read it.
        """
        decoder = SegmentDecoder()
        for payload in self.records():
            try:
                event = decoder.event(payload)
            except msgspec.DecodeError as error:
                self._note_unreadable(payload, error)
                return
            yield event

    def records(self) -> Iterator[bytes]:
        """The events in their order as they are stored, not decoded; ``header`` is set before the first.

        Raises:
            JournalBroken: As for ``events``.
        """
        payloads = self._payloads()
        if self._take_header(payloads):
            yield from payloads

    def read_header(self) -> None:
        """Read no further than the header, if there is one.

        Raises:
            JournalBroken: As for ``events``.
        """
        self._take_header(self._payloads())

    def _take_header(self, payloads: Iterator[bytes]) -> bool:
        """Whether records can follow."""
        payload = next(payloads, None)
        if payload is None:
            return False
        try:
            self.header = self._checked(SegmentDecoder().header(payload))
        except msgspec.DecodeError as error:
            self._note_unreadable(payload, error)
            return False
        return True

    def _note_unreadable(self, payload: bytes, error: msgspec.DecodeError) -> None:
        self.whole_bytes -= HEADER_BYTES + len(payload)
        self.damage = f"the record at byte {self.whole_bytes} cannot be read ({error})"

    def _checked(self, header: SegmentHeader) -> SegmentHeader:
        named = parse_segment_name(self.path.name)
        if named not in (None, (header.attempt, header.first_event)):
            raise msgspec.DecodeError(
                f"it says attempt {header.attempt}, event {header.first_event}: the file was renamed"
            )
        return header

    def _payloads(self) -> Iterator[bytes]:
        """The payload of each whole frame; then ``ending`` is set."""
        buffer = bytearray()  # what was read behind the last whole frame
        needed = 0
        chunks = self._chunks()
        for chunk in chunks:
            buffer += chunk
            if len(buffer) < needed:
                continue
            base, taken = self.whole_bytes, 0
            for offset, payload in scan(buffer):
                taken = offset + HEADER_BYTES + len(payload)
                self.whole_bytes = base + taken
                yield payload
            del buffer[:taken]
            needed = needed_bytes(buffer, 0)
            if len(buffer) >= needed:
                break
        for chunk in chunks:
            buffer += chunk
        following = find_frame(buffer, 1, is_message)
        if following is None:
            self.torn_bytes = len(buffer)
        else:
            self.damage = (
                f"bytes {self.whole_bytes} to {self.whole_bytes + following - 1} are damaged, "
                "records follow behind them"
            )

    def _chunks(self) -> Iterator[bytes]:
        try:
            size = self._first_chunk_bytes
            with files.open_to_read(self.path) as file:
                while chunk := file.read(size):
                    yield chunk
                    size = min(2 * size, _CHUNK_BYTES)
        except RunBroken:
            raise
        except OSError as error:
            raise JournalBroken(self.path, f"cannot be read ({error.strerror or error})") from error


def read_header(path: Path) -> SegmentHeader | None:
    """What the segment begins with, or None where its writer was killed before that was on the disk.

    Raises:
        JournalBroken: The header is damaged, or the file cannot be read.
    """
    reader = SegmentReader(path, _HEADER_CHUNK_BYTES)
    reader.read_header()
    if reader.header is None and reader.damage is not None:
        raise JournalBroken(path, reader.damage)
    return reader.header


def count_events(path: Path) -> int:
    """How many events can be read of a segment, by their frames: they are not decoded.

    Raises:
        JournalBroken: The file is missing or the system cannot read it.
    """
    return sum(1 for _ in SegmentReader(path).records())


def length_of(path: Path, n_events: int) -> int | None:
    """The length in bytes of a segment's header and first ``n_events`` events, at least one.

    Returns:
        None where so many cannot be read.

    Raises:
        JournalBroken: The file is missing or the system cannot read it.
    """
    reader = SegmentReader(path)
    for number, _ in enumerate(reader.records(), 1):
        if number == n_events:
            return reader.whole_bytes
    return None


def read_segment(path: Path) -> Iterator[JournalEvent]:
    """The events of a segment up to its end or its torn tail, in memory for one chunk and one record.

    Raises:
        JournalBroken: It is damaged; raised where the damage is.
    """
    reader = SegmentReader(path)
    yield from reader.events()
    if reader.damage is not None:
        raise JournalBroken(path, reader.damage)


def set_torn_aside(path: Path) -> int:
    """Cut a segment's torn tail off, durably, keeping it in ``<name>.torn``.

    Returns:
        How many bytes were cut.

    Raises:
        JournalBroken: It is damaged in the middle: nothing was cut.
        WriteFailed: The disk refused.
    """
    reader = SegmentReader(path)
    for _ in reader.events():
        pass
    if reader.damage is not None:
        raise JournalBroken(path, f"{reader.damage}; it is left as it is")
    return files.cut_at(path, reader.whole_bytes) if reader.torn_bytes else 0
