"""The disk: the only module that touches it.

Everything above speaks of rows, checkpoints and runs; here are bytes. All of it blocks and is called in
threads.

A file under a final name is whole: it is written beside, flushed, fsynced and renamed, and its directory
is fsynced. Any refusal of the operating system comes out as ``WriteFailed`` with the path and the cause.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import threading
from collections.abc import Callable, Generator
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any, cast

from stoker.errors import RunDirectoryError, WriteFailed

__all__ = [
    "Meter",
    "PieceFile",
    "cut_at",
    "directories_in",
    "files_in",
    "link_atomically",
    "make_directory",
    "metered",
    "move_aside",
    "open_to_read",
    "put_in_place",
    "read_bytes",
    "read_tail",
    "remove",
    "remove_leftovers",
    "sizes_in",
    "sync_directory",
    "write_atomically",
]

# Durable data needs fdatasync; macOS has only fsync.
_fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
_COPY_BYTES = 1 << 20
_SYNC_BYTES = 64 << 20
"""A large file is made durable in parts of this size while it is written, for its meter to tell the truth."""


class Meter:
    """Counts bytes as they reach files; read from any thread."""

    def __init__(self) -> None:
        self.n_bytes = 0


_meter: ContextVar[Meter | None] = ContextVar("stoker_meter", default=None)


@contextlib.contextmanager
def metered(meter: Meter) -> Generator[None]:
    """Meanwhile, in this thread, count what ``write_atomically`` writes."""
    token = _meter.set(meter)
    try:
        yield
    finally:
        _meter.reset(token)


@contextlib.contextmanager
def _refusals_of(path: Path) -> Generator[None]:
    try:
        yield
    except WriteFailed:
        raise
    except OSError as error:
        raise WriteFailed(path, error) from error


def read_bytes(path: Path) -> bytes:
    """The whole file.

    Raises:
        OSError: It is missing or cannot be read.
    """
    return path.read_bytes()


def read_tail(path: Path, most_bytes: int) -> tuple[int, bytes]:
    """The last bytes of a file, at most that many, and the offset where they begin; none where no file is.

    Raises:
        WriteFailed: It cannot be read, which whoever wants to write it must know.
    """
    with _refusals_of(path):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return 0, b""
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return 0, b""  # a device has no end
            start = file.seek(max(0, file.seek(0, os.SEEK_END) - most_bytes))
            return start, file.read()


def open_to_read(path: Path) -> IO[bytes]:
    """The file, open at its start: one file until it is closed, whatever takes its name meanwhile.

    Raises:
        OSError: It is missing or cannot be read.
    """
    return path.open("rb")


def files_in(directory: Path) -> list[str]:
    """The names of the plain files there, in no order; none where there is no such directory.

    Raises:
        RunDirectoryError: It cannot be read; so also for the other two.
    """
    return [entry.name for entry in _entries_of(directory) if entry.is_file()]


def directories_in(directory: Path) -> list[str]:
    """The names of the directories there, in no order; none where there is no such directory."""
    return [entry.name for entry in _entries_of(directory) if entry.is_dir()]


def sizes_in(directory: Path) -> dict[str, int]:
    """The plain files there by name, in no order, with their sizes in bytes; none where nothing is there."""
    sizes: dict[str, int] = {}
    for entry in _entries_of(directory):
        with contextlib.suppress(FileNotFoundError):  # removed since
            if entry.is_file():
                sizes[entry.name] = entry.stat().st_size
    return sizes


def _entries_of(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunDirectoryError(directory, f"cannot be read: {error.strerror or error}") from error


def make_directory(path: Path, *, exclusive: bool = False) -> bool:
    """Make a directory and its parents, durably.

    Returns:
        False where ``exclusive`` was asked for and somebody else has made it, else True.
    """
    with _refusals_of(path):
        missing = [path, *path.parents]
        missing = missing[: next((i for i, parent in enumerate(missing) if parent.is_dir()), len(missing))]
        if not missing:
            if not exclusive:
                _sync_directory(path.parent)  # whoever made it may have been killed before this
            return not exclusive
        for directory in reversed(missing):
            try:
                directory.mkdir()
            except FileExistsError:
                if directory == path and exclusive:
                    return False
                if not directory.is_dir():
                    raise
            _sync_directory(directory.parent)
    return True


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Publish a file: ``write`` fills it beside, then it takes the final name, durably.

    Whoever opens ``path`` meanwhile, or after a crash at any point, finds the old file or the new one.
    Two writers of one path do not disturb each other's half: the last rename wins.
    """
    put_in_place(path, write)
    with _refusals_of(path):
        _sync_directory(path.parent)


def put_in_place(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """The first half of ``write_atomically``: whoever opens ``path`` from now on finds the new file, whole.

    After a power cut it may be the old one again, until ``sync_directory`` has returned.
    """
    beside = _beside(path)
    with _refusals_of(path):
        try:
            with beside.open("wb", buffering=0) as raw:
                file = _HonestFile(raw)
                try:
                    write(cast("IO[bytes]", file))
                except Exception:
                    if file.refusal is not None:
                        raise file.refusal from None
                    raise
                os.fsync(raw.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def sync_directory(path: Path) -> None:
    """The second half: what was renamed in this directory stays so."""
    with _refusals_of(path):
        _sync_directory(path)


def link_atomically(source: Path, target: Path) -> None:
    """Give the file a second final name, durably, replacing what had it; a copy where links cannot be had.

    Only for files that never change: both names stand for the same bytes.
    """
    beside = _beside(target)
    with _refusals_of(target):
        beside.unlink(missing_ok=True)
        try:
            beside.hardlink_to(source)
        except OSError:  # no hard links on this file system, or none across two
            write_atomically(target, lambda file: _copy(source, file))
            return
        try:
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)  # a rename onto another name of the same file does nothing
        _sync_directory(target.parent)


def remove(path: Path) -> None:
    """Remove a file; it may be gone already. After a power cut it may be there again."""
    with _refusals_of(path):
        path.unlink(missing_ok=True)


def remove_leftovers(directory: Path) -> None:
    """Remove what a crash left half written there: files that never got their final name."""
    for name in files_in(directory):
        if name.startswith(".") and name.endswith(".tmp"):
            remove(directory / name)


def move_aside(path: Path, suffix: str) -> Path:
    """Rename a file by adding a suffix to its name, with a number where that name is taken."""
    aside = path.with_name(path.name + suffix)
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}{suffix}{number}")
    with _refusals_of(path):
        path.rename(aside)
        _sync_directory(path.parent)
    return aside


def cut_at(path: Path, offset: int, *, separator: bytes = b"") -> int:
    """Cut a file back to its first ``offset`` bytes; what is cut goes to ``<name>.torn`` first, both durably.

    Args:
        path: the file.
        offset: where to cut.
        separator: what is put behind the cut bytes in ``<name>.torn``, where others may follow.

    Returns:
        How many bytes were cut.
    """
    aside = path.with_name(path.name + ".torn")
    with _refusals_of(path), path.open("r+b") as file:
        n_torn = file.seek(0, os.SEEK_END) - offset
        if n_torn <= 0:
            return 0
        file.seek(offset)
        with aside.open("ab") as side:
            shutil.copyfileobj(file, side, _COPY_BYTES)
            side.write(separator)
            side.flush()
            os.fsync(side.fileno())
        _sync_directory(path.parent)  # before the cut: afterwards these bytes are nowhere else
        file.truncate(offset)
        os.fsync(file.fileno())
        return n_torn


def _beside(path: Path) -> Path:
    """A name of its own for each writer, as ``remove_leftovers`` knows them."""
    return path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")


def _copy(source: Path, file: IO[bytes]) -> None:
    with source.open("rb") as original:
        shutil.copyfileobj(original, file, _COPY_BYTES)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _HonestFile:
    """An unbuffered file that writes all or raises, and remembers what the system refused.

    torch answers a full disk with an error about its own position in the file.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._meter = _meter.get() or Meter()
        self._n_unsynced = 0
        self.refusal: OSError | None = None

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = rest.nbytes
        try:
            while rest.nbytes:
                n_taken = self._file.write(rest[:_COPY_BYTES])
                rest = rest[n_taken:]
                self._n_unsynced += n_taken
                if self._n_unsynced >= _SYNC_BYTES:
                    _fdatasync(self._file.fileno())
                    self._n_unsynced = 0
                self._meter.n_bytes += n_taken
        except OSError as error:
            self.refusal = error
            raise
        return size

    def flush(self) -> None:
        """Nothing is held back."""


class PieceFile(io.FileIO):
    """A raw file that grows by whole pieces; opening it makes it, durably, if it is missing.

    A piece that cannot be written whole (a full disk) is taken back, so that the file ends with the last
    whole piece, and ``WriteFailed`` is raised. When a sync fails, the system may have dropped what it could
    not write, and would call the next sync a success: from then on every call raises that ``WriteFailed``.

    For one thread at a time. A call runs to its end in its thread even where nobody awaits it any more (its
    task was cancelled), so what it found out is noted here and not by the awaiting side.
    """

    def __init__(self, path: Path) -> None:
        with _refusals_of(path):
            super().__init__(path, "ab")
            self._path = path
            self._end = self._durable = os.fstat(self.fileno()).st_size
            self.n_written = 0
            """Bytes that have reached the file, also those of a piece that is not whole yet."""
            self.refusal: OSError | None = None
            """Why nothing more can be done with this file, or None while all is well."""
            _sync_directory(path.parent)  # a file made just now, or by one that was killed before it could

    @property
    def unsynced_bytes(self) -> int:
        """How much was appended since the last ``sync``."""
        return self._end - self._durable

    def write(self, data: Any, /) -> int:
        """Write the piece behind what is there, and return its size in bytes."""
        self._raise_if_refused()
        rest = memoryview(data).cast("B")
        size = rest.nbytes
        with _refusals_of(self._path):
            try:
                while rest.nbytes:
                    n_taken = super().write(rest[:_COPY_BYTES])
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
        with _refusals_of(self._path):
            try:
                _fdatasync(self.fileno())
            except OSError as error:
                self.refusal = error
                raise
        self._durable = self._end

    def finish(self) -> None:
        """Make durable and close; it is closed even where that is refused."""
        try:
            self.sync()
        finally:
            with _refusals_of(self._path):
                self.close()

    def _raise_if_refused(self) -> None:
        if self.refusal is not None:
            raise WriteFailed(self._path, self.refusal)
