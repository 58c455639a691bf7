"""The disk: only this module touches it, and ``logs``, which appends.

Everything above speaks of rows, checkpoints and runs; here are bytes. All of it blocks and is called in
threads.

A file under a final name is whole: it is written beside, flushed, fsynced and renamed, and its directory
is fsynced. A refused write is ``WriteFailed`` with the path and the cause. A refused read that says nothing
about the file's content, for example a missing permission, is ``RunBroken``: it must not pass for damage.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import stat
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from stoker.errors import RunBroken, RunDirectoryError, StokerError, WriteFailed, with_way_out
from stoker.writer.fencing import check_fence
from stoker.writer.metering import meter_here

fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
"""Make a file's data durable; macOS has only ``fsync``."""
_COPY_BYTES = 1 << 20
_OF_THE_FILE = {None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.EIO}
"""The refusals that are about the file itself: it is missing, is not a file or is damaged."""
_SYNC_BYTES = 64 << 20
"""A large file is made durable in parts of this size while it is written, so that its meter is right."""


@contextlib.contextmanager
def refusals_of(path: Path) -> Generator[None]:
    """Raise what the system refuses as ``WriteFailed``."""
    try:
        yield
    except StokerError:
        raise
    except OSError as error:
        check_fence(path)  # a file that the next holder of the directory has removed or replaced
        raise WriteFailed(path, error) from error


def _unreadable(path: Path, error: OSError) -> RunBroken:
    return RunBroken(path, f"cannot be read: {with_way_out(error)}")


def read_bytes(path: Path, start: int = 0, most_bytes: int = -1) -> bytes:
    """The file from that byte to its end, or at most that many bytes; nothing where it is shorter.

    Raises:
        FileNotFoundError: It is missing.
        RunBroken: It cannot be read.
    """
    try:
        return _read(path, start, most_bytes)
    except (FileNotFoundError, RunBroken):
        raise
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(path: Path, start: int, most_bytes: int) -> bytes:
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise RunBroken(path, "it is not a file; move it away")
        file.seek(start)
        return file.read(most_bytes)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe without a writer would block forever


def _open_file(path: str, flags: int) -> int:
    descriptor = _open_at_once(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a file")
    return descriptor


def read_tail(path: Path, most_bytes: int) -> tuple[int, bytes]:
    """The last bytes of a file, at most that many, and the offset where they begin; none where no file is.

    Raises:
        WriteFailed: It cannot be read, so it must not be written.
    """
    with refusals_of(path):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return 0, b""
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return 0, b""  # a device has no end
            start = file.seek(max(0, file.seek(0, os.SEEK_END) - most_bytes))
            return start, file.read()


@contextlib.contextmanager
def open_to_read(path: Path) -> Generator[IO[bytes]]:
    """The file, open at its start: one file until the block ends, whatever takes its name meanwhile.

    Raises:
        RunBroken: The system refuses to read it, for a reason that is not in the file.
        OSError: It is missing, is not a file, or the disk cannot give its content.
    """
    try:
        with open(path, "rb", opener=_open_file) as file:
            yield file
    except OSError as error:
        if isinstance(error, StokerError) or error.errno in _OF_THE_FILE:
            raise
        raise _unreadable(path, error) from error


def files_in(directory: Path) -> dict[str, int]:
    """The plain files there by name, with their sizes in bytes; none where there is no such directory.

    Raises:
        RunDirectoryError: It cannot be read; so also for ``directories_in``.
    """
    paths = ((entry.name, Path(entry.path)) for entry in _entries_of(directory))
    stats = ((name, found) for name, path in paths if (found := stat_of(path)) is not None)
    return {name: found.st_size for name, found in stats if stat.S_ISREG(found.st_mode)}


def directories_in(directory: Path) -> list[str]:
    """The names of the directories there, in no order; none where there is no such directory."""
    return [entry.name for entry in _entries_of(directory) if _is_directory(entry)]


def _entries_of(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunDirectoryError(directory, f"cannot be read: {with_way_out(error)}") from error


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether it is a directory, or a link to one; the listing says so, without asking for each name."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno in _OF_THE_FILE:
            return False
        raise _unreadable(Path(entry.path), error) from error


def stat_of(path: Path) -> os.stat_result | None:
    """What the system knows of a file; None where there is none, or a link that leads nowhere.

    Raises:
        RunBroken: The system refuses to say.
    """
    try:
        return path.stat()
    except OSError as error:
        if error.errno in _OF_THE_FILE:
            return None
        raise _unreadable(path, error) from error


def make_directory(path: Path, *, exclusive: bool = False) -> bool:
    """Make a directory and its parents, durably.

    Returns:
        False if ``exclusive`` and the directory exists already, else True.
    """
    with refusals_of(path):
        missing = [directory for directory in (path, *path.parents) if not directory.is_dir()]
        for directory in missing[::-1] or [path]:
            try:
                directory.mkdir()
            except FileExistsError:
                if exclusive and directory == path:
                    return False
                if not directory.is_dir():
                    raise
            # Also if it was there: the process that made it may have been killed before this.
            sync_directory(directory.parent)
    return True


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Publish a file: ``write`` fills it beside, then it takes the final name, durably.

    A reader that opens ``path`` meanwhile, or after a crash at any point, finds the old file or the new one.
    Two writers of one path do not disturb each other's half: the last rename wins.
    """
    put_in_place(path, write)
    sync_directory(path.parent)


def put_in_place(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """The first half of ``write_atomically``: readers that open ``path`` from now on find the whole new file.

    After a power cut it may be the old one again, until ``sync_directory`` has returned.
    """
    beside = _beside(path)
    with refusals_of(path):
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
            check_fence(path)
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def publish_directory(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Make a directory of these files, whole or not at all, replacing the one that was there.

    Args:
        directory: its final name.
        contents: the files.

    Raises:
        WriteFailed: The disk refused; what was there before still is.
    """
    directory = directory.absolute()
    make_directory(directory.parent)
    beside = _beside(directory)
    with refusals_of(directory):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        try:
            for name, content in contents.items():
                write_atomically(beside / name, lambda file, content=content: file.write(content))
            if directory.exists():  # a directory that is not empty cannot be replaced in one step
                before = beside.with_suffix(".before.tmp")
                directory.rename(before)
                try:
                    beside.rename(directory)
                except OSError:
                    before.rename(directory)
                    raise
                shutil.rmtree(before)
            else:
                beside.rename(directory)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    sync_directory(directory.parent)


@contextlib.contextmanager
def staged(path: Path) -> Generator[Path]:
    """A name beside, for a file or directory, which takes the final name at the end; an error leaves none."""
    make_directory(path.parent)
    beside = _beside(path)
    with refusals_of(path):
        try:
            yield beside
            for each in (beside, *beside.rglob("*")):
                sync_directory(each)  # a file, too
            beside.rename(path)
        finally:
            shutil.rmtree(beside) if beside.is_dir() else beside.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """The second half: what was renamed in this directory stays so."""
    with refusals_of(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def link_atomically(source: Path, target: Path) -> None:
    """Give the file a second final name, durably, replacing what had it; a copy where links cannot be had.

    Only for files that never change: both names stand for the same bytes.
    """
    beside = _beside(target)
    with refusals_of(target):
        beside.unlink(missing_ok=True)
        try:
            beside.hardlink_to(source)
        except OSError:  # no hard links on this file system, or none across two
            with source.open("rb") as original:
                write_atomically(target, partial(shutil.copyfileobj, original, length=_COPY_BYTES))
            return
        try:
            check_fence(target)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)  # a rename onto another name of the same file does nothing
        sync_directory(target.parent)


def remove_all(paths: Iterable[Path]) -> list[Path]:
    """Remove files and return them; if one cannot be removed, the others still are.

    Some may be gone already. After a power cut they may be there again.

    Raises:
        WriteFailed: Some could not be removed; raised when all have been tried.
    """
    removed, refusals = list(paths), list[WriteFailed]()
    for path in removed:
        check_fence(path)
        try:
            with refusals_of(path):
                path.unlink(missing_ok=True)
        except WriteFailed as refusal:
            refusals.append(refusal)
    if refusals:
        raise refusals[0]
    return removed


def remove_leftovers(directory: Path) -> None:
    """Remove what a crash left half written there: files that never got their final name."""
    names = files_in(directory)
    remove_all(directory / name for name in names if name.startswith(".") and name.endswith(".tmp"))


def move_aside(path: Path, suffix: str) -> Path:
    """Rename a file by adding a suffix to its name, with a number where that name is taken."""
    aside = path.with_name(path.name + suffix)
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}{suffix}{number}")
    check_fence(path)
    with refusals_of(path):
        path.rename(aside)
        sync_directory(path.parent)
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
    with refusals_of(path), path.open("r+b") as file:
        check_fence(path)  # behind the open: the next holder replaces the file by a copy
        n_torn = file.seek(0, os.SEEK_END) - offset
        if n_torn <= 0:
            return 0
        file.seek(offset)
        with aside.open("ab") as side:
            shutil.copyfileobj(file, side, _COPY_BYTES)
            side.write(separator)
            side.flush()
            os.fsync(side.fileno())
        sync_directory(path.parent)  # before the cut: afterwards these bytes are nowhere else
        file.truncate(offset)
        os.fsync(file.fileno())
        return n_torn


def _beside(path: Path) -> Path:
    """A separate name for each writer, as ``remove_leftovers`` knows them."""
    return path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")


class _HonestFile:
    """An unbuffered file that writes all or raises, and remembers what the system refused.

    torch answers a full disk with an error about its own position in the file.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._meter = meter_here()
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
                    fdatasync(self._file.fileno())
                    self._n_unsynced = 0
                self._meter.n_bytes += n_taken
        except OSError as error:
            self.refusal = error
            raise
        return size

    def flush(self) -> None:
        """Nothing is held back."""
