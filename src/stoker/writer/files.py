"""The disk: the only module that touches it.

Everything above speaks of rows, checkpoints and runs; here are bytes. Plain functions block and are
called in threads; ``AppendFile`` is awaited, through aiofiles on asyncio and through anyio on trio.

A file under a final name is whole: it is written beside, flushed, fsynced and renamed, and its directory
is fsynced. Any refusal of the operating system comes out as ``WriteFailed`` with the path and the cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any, Protocol, cast

import aiofiles
import anyio
from anyio import to_thread

from stoker.errors import WriteFailed

__all__ = [
    "AppendFile",
    "cut_torn_tail",
    "directories_in",
    "files_in",
    "link_atomically",
    "make_directory",
    "modified_at",
    "move_aside",
    "read_bytes",
    "remove",
    "remove_leftovers",
    "sizes_in",
    "write_atomically",
]

# Durable data needs fdatasync; macOS has only fsync.
_fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
_COPY_BYTES = 1 << 20


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


def files_in(directory: Path) -> list[str]:
    """The names of the plain files there, in no order; none where there is no such directory."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def directories_in(directory: Path) -> list[str]:
    """The names of the directories there, in no order; none where there is no such directory."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def sizes_in(directory: Path) -> dict[str, int]:
    """The plain files there by name, in no order, with their sizes in bytes; none where nothing is there."""
    try:
        with os.scandir(directory) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def modified_at(path: Path) -> float:
    """When the file last changed, in seconds since the epoch; 0.0 where there is none."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def make_directory(path: Path, *, exclusive: bool = False) -> bool:
    """Make a directory and its parents, durably.

    Returns:
        False where ``exclusive`` was asked for and somebody else has made it, else True.
    """
    with _refusals_of(path):
        missing = [path, *path.parents]
        missing = missing[: next((i for i, parent in enumerate(missing) if parent.is_dir()), len(missing))]
        if exclusive and not missing:
            return False
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
        _sync_directory(path.parent)


def link_atomically(source: Path, target: Path) -> None:
    """Give the file a second final name, replacing what had it; a copy where links are not to be had."""
    beside = _beside(target)
    with _refusals_of(target):
        beside.unlink(missing_ok=True)
        try:
            beside.hardlink_to(source)
        except OSError:  # no hard links on this file system
            write_atomically(target, lambda file: _copy(source, file))
            return
        beside.replace(target)
        _sync_directory(target.parent)


def remove(path: Path) -> None:
    """Remove a file; it may be gone already."""
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


def cut_torn_tail(path: Path) -> int:
    """Cut a row file back to its last whole line; what is cut goes to ``<name>.torn``.

    Returns:
        How many bytes were cut.
    """
    with _refusals_of(path):
        try:
            file = path.open("r+b")
        except FileNotFoundError:
            return 0
        with file:
            end = file.seek(0, os.SEEK_END)
            tail = b""
            start = end
            while start > 0 and b"\n" not in tail:
                step = min(_COPY_BYTES, start)
                start = file.seek(start - step)
                tail = file.read(step) + tail
            whole = start + tail.rfind(b"\n") + 1
            torn = tail[tail.rfind(b"\n") + 1 :]
            if not torn:
                return 0
            with path.with_name(path.name + ".torn").open("ab") as side:
                side.write(torn + b"\n")
                side.flush()
                os.fsync(side.fileno())
            file.truncate(whole)
            os.fsync(file.fileno())
            return len(torn)


def _beside(path: Path) -> Path:
    """A name of its own for each writer, as ``remove_leftovers`` knows them."""
    return path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")


def _copy(source: Path, file: IO[bytes]) -> None:
    with source.open("rb") as original:
        while chunk := original.read(_COPY_BYTES):
            file.write(chunk)


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
        self.refusal: OSError | None = None

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = rest.nbytes
        try:
            while rest.nbytes:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.refusal = error
            raise
        return size

    def flush(self) -> None:
        """Nothing is held back."""


class _AwaitedFile(Protocol):
    """What aiofiles' and anyio's raw files have in common."""

    def fileno(self) -> int: ...

    async def write(self, data: bytes, /) -> int: ...


class AppendFile:
    """A file that only grows, by whole pieces.

    One task at a time. A piece that cannot be written whole (a full disk) is taken back, so that the file
    ends with the last whole piece, and ``WriteFailed`` is raised.
    """

    def __init__(self, path: Path, file: _AwaitedFile, close: Callable[[], Any], size: int) -> None:
        self._path = path
        self._file = file
        self._close = close
        self._size = size

    @classmethod
    async def open(cls, path: Path) -> AppendFile:
        """Open the file for appending; make it if it is missing."""
        with _refusals_of(path):
            if _on_asyncio():
                raw = await aiofiles.open(path, "ab", buffering=0)
                file, close = cast("_AwaitedFile", raw), raw.close
            else:
                other = await anyio.open_file(path, "ab", buffering=0)
                file, close = cast("_AwaitedFile", _TrioFile(other)), other.aclose
            return cls(path, file, close, os.fstat(file.fileno()).st_size)

    async def append(self, data: bytes) -> None:
        """Write the bytes behind what is there, in one call unless the system takes only a part."""
        with _refusals_of(self._path):
            written = 0
            try:
                while written < len(data):
                    written += await self._file.write(data[written:] if written else data)
            except OSError:
                # Where even this is refused, the torn tail is cut off when the file is next opened.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file.fileno(), self._size)
                raise
            self._size += written

    async def sync(self) -> None:
        """Return when all that was appended is durable."""
        with _refusals_of(self._path):
            await to_thread.run_sync(_fdatasync, self._file.fileno())

    async def aclose(self) -> None:
        """Close the file; what was appended is not made durable by that."""
        await self._close()


class _TrioFile:
    """anyio's file with ``fileno`` as a plain call, as aiofiles has it."""

    def __init__(self, file: anyio.AsyncFile[bytes]) -> None:
        self._file = file

    def fileno(self) -> int:
        return self._file.wrapped.fileno()

    async def write(self, data: bytes, /) -> int:
        return await self._file.write(data)


def _on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
