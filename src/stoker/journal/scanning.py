"""One segment's file, read from its beginning to wherever it ends or is damaged.

A writer that was killed leaves a torn tail: half a record, zeros, or nothing but an empty file. That is no
damage. A record that cannot be read while a later one can is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from stoker.errors import JournalBroken
from stoker.journal.events import JournalEvent
from stoker.journal.frames import HEADER_BYTES, find_frame, needed_bytes, scan
from stoker.journal.segments import SegmentDecoder, SegmentHeader, is_message, parse_segment_name
from stoker.writer import files

__all__ = ["SegmentReader", "read_header", "read_segment", "set_torn_aside"]

_CHUNK_BYTES = 1 << 20


class SegmentReader:
    """Reads one segment once, a chunk at a time; what it found at the end is in its attributes.

    Args:
        path: the file, under the name that ``segment_name`` gave it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
            JournalBroken: The file is missing or the system cannot read it.
        """
        decoder = SegmentDecoder()
        for offset, payload in self._payloads():
            try:
                if self.header is None:
                    self.header = self._checked(decoder.header(payload))
                    continue
                event = decoder.event(payload)
            except msgspec.DecodeError as error:
                self.damage = f"the record at byte {offset} cannot be read ({error})"
                self.whole_bytes = offset
                return
            yield event

    def _checked(self, header: SegmentHeader) -> SegmentHeader:
        named = parse_segment_name(self.path.name)
        if named not in (None, (header.attempt, header.first_event)):
            raise msgspec.DecodeError(
                f"it says attempt {header.attempt}, event {header.first_event}: the file was renamed"
            )
        return header

    def _payloads(self) -> Iterator[tuple[int, bytes]]:
        """Offset and payload of each whole frame; then the ending is told."""
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
                yield base + offset, payload
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
            with files.open_to_read(self.path) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise JournalBroken(self.path, f"cannot be read ({error.strerror or error})") from error


def read_header(path: Path) -> SegmentHeader | None:
    """What the segment begins with, or None where its writer was killed before that was on the disk.

    Raises:
        JournalBroken: The header is damaged, or the file cannot be read.
    """
    reader = SegmentReader(path)
    next(reader.events(), None)
    if reader.header is None and reader.damage is not None:
        raise JournalBroken(path, reader.damage)
    return reader.header


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
