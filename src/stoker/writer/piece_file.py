"""A file that grows by whole pieces, and knows how much of it is durable. All of it blocks."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import stoker.writer.files as files
from stoker.errors import WriteFailed

__all__ = ["PieceFile"]

_WRITE_BYTES = 1 << 20
"""So much is written at once, so that others see how far a large piece has come."""


class PieceFile(io.FileIO):
    """A raw file that grows by whole pieces; opening it makes it, durably, if it is missing.

    A piece that cannot be written whole (a full disk) is taken back, so that the file ends with the last
    whole piece, and ``WriteFailed`` is raised. When a sync fails, the system may have dropped what it could
    not write, and would call the next sync a success: from then on every call raises that ``WriteFailed``.

    For one thread at a time. A call runs to its end in its thread even where nobody awaits it any more (its
    task was cancelled), so what it found out is noted here and not by the awaiting side.
    """

    def __init__(self, path: Path) -> None:
        with files.refusals_of(path):
            super().__init__(path, "ab")
            self._path = path
            self._end = self._durable = os.fstat(self.fileno()).st_size
            self.n_written = 0
            """Bytes that have reached the file, also those of a piece that is not whole yet."""
            self.refusal: OSError | None = None
            """Why nothing more can be done with this file, or None while all is well."""
            files.sync_directory(
                path.parent
            )  # a file made just now, or by one that was killed before it could

    @property
    def unsynced_bytes(self) -> int:
        """How much was appended since the last ``sync``."""
        return self._end - self._durable

    def write(self, data: Any, /) -> int:
        """Write the piece behind what is there, and return its size in bytes."""
        self._raise_if_refused()
        rest = memoryview(data).cast("B")
        size = rest.nbytes
        with files.refusals_of(self._path):
            try:
                while rest.nbytes:
                    n_taken = super().write(rest[:_WRITE_BYTES])
                    self.n_written += n_taken
                    rest = rest[n_taken:]
            except OSError as error:
                try:
                    os.ftruncate(self.fileno(), self._end)
                except OSError:
                    self.refusal = error  # a piece behind the torn one would never be read
                raise
        self._end += size
        return size

    def sync(self) -> None:
        """Return when all that was appended is durable."""
        self._raise_if_refused()
        if not self.unsynced_bytes:
            return
        with files.refusals_of(self._path):
            try:
                files.fdatasync(self.fileno())
            except OSError as error:
                self.refusal = error
                raise
        self._durable = self._end

    def finish(self) -> None:
        """Make durable and close; it is closed even where that is refused."""
        try:
            self.sync()
        finally:
            with files.refusals_of(self._path):
                self.close()

    def _raise_if_refused(self) -> None:
        if self.refusal is not None:
            raise WriteFailed(self._path, self.refusal)
