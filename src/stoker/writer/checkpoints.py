"""Checkpoint files: a staged state is published whole or not at all, and a reader checks every byte.

``publish_checkpoint`` runs in the writer's thread, on a staged copy, so that learning continues meanwhile.
The file is what ``torch.save`` writes, a zip, with a comment at its end: a SHA-256 over every byte before it.
Loading checks it first, since torch checks none. Any other program may load the file with
``torch.load(weights_only=True)``: nothing from a checkpoint is ever unpickled into arbitrary objects.
torch is imported late, so that a run's rows and metadata can be read without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import stoker.writer.files as files
from stoker.errors import CheckpointCorrupt, CheckpointNotFound, RunBroken

_CHUNK_BYTES = 1 << 20
_MARK = b"stoker sha256 "
_DIGEST_BYTES = 64  # hexadecimal digits
_SEAL_BYTES = len(_MARK) + _DIGEST_BYTES
_ZIP_END_BYTES = 22
_ZIP_END = b"PK\x05\x06"


def publish_checkpoint(staged: Mapping[str, Any], path: Path) -> None:
    """Write a staged state under its final name, whole and durable, replacing what was there.

    Raises:
        WriteFailed: The disk refused; what was there before still is.
    """
    import torch

    def write(file: IO[bytes]) -> None:
        sealing = _SealingFile(file)
        torch.save(staged, cast("IO[bytes]", sealing))
        sealing.seal()

    files.write_atomically(path, write)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Check every byte of a checkpoint and read it into CPU memory.

    Raises:
        CheckpointNotFound: There is no such file.
        CheckpointCorrupt: It is not a whole checkpoint.
        RunBroken: The system refuses to read it.
        MemoryError: There is no room for it in memory.
    """
    import torch

    with _verified(path) as file:
        state = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise CheckpointCorrupt(path, f"it holds a {type(state).__name__}, not a dict")
    return cast("dict[str, Any]", state)


def verify_checkpoint(path: Path) -> None:
    """Check every byte of a checkpoint against its checksum, without loading it or torch.

    Raises:
        CheckpointNotFound, CheckpointCorrupt, RunBroken: As for ``load_checkpoint``.
    """
    with _verified(path):
        pass


@contextlib.contextmanager
def _verified(path: Path) -> Generator[IO[bytes]]:
    """The file, open at its start, once its checksum matched; any error in the block means damage."""
    try:
        with files.open_to_read(path) as file:
            _check_seal(file, path)
            file.seek(0)
            yield file
    except (CheckpointCorrupt, RunBroken, MemoryError):
        raise  # the last two are not about the file's content
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointNotFound(f"{path}: no such checkpoint") from error
    except OSError as error:
        raise CheckpointCorrupt(path, error.strerror or str(error)) from error
    except Exception as error:  # torch's reader raises errors of many classes
        reason = str(error).partition("\n")[0]
        if "DefaultCPUAllocator" in reason:  # torch has no MemoryError for it
            raise MemoryError(f"{path}: {reason}") from error
        raise CheckpointCorrupt(path, f"{type(error).__name__}: {reason}") from error


def _check_seal(file: IO[bytes], path: Path) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _SEAL_BYTES))
    seal = file.read()
    if not (len(seal) == _SEAL_BYTES and seal.startswith(_MARK)):
        raise CheckpointCorrupt(path, "it does not end with a checksum: cut short, or not written by stoker")
    file.seek(0)
    digest = hashlib.sha256()
    rest = size - _DIGEST_BYTES
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    reading = cast("Any", file)
    while rest > 0 and (n_read := reading.readinto(buffer[: min(rest, _CHUNK_BYTES)])):
        digest.update(buffer[:n_read])
        rest -= n_read
    if digest.hexdigest().encode() != seal[len(_MARK) :]:
        raise CheckpointCorrupt(path, "its checksum does not match")


class _SealingFile:
    """Hashes the zip that torch writes and forwards it in pieces; the zip's last record is held back.

    That record holds the length of the comment behind it, which torch writes as 0. In pieces: hashing and
    writing each of them lets other threads run.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._held = b""

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        n_bytes = view.nbytes
        if n_bytes < _ZIP_END_BYTES:
            view = memoryview(self._held + bytes(view))
        else:
            self._pass_on(memoryview(self._held))
        self._pass_on(view[:-_ZIP_END_BYTES])
        self._held = bytes(view[-_ZIP_END_BYTES:])
        return n_bytes

    def flush(self) -> None:
        """Nothing is held back but the end."""

    def seal(self) -> None:
        if self._held[:4] != _ZIP_END or self._held[-2:] != b"\0\0":
            raise RuntimeError("torch.save wrote no zip that takes a comment; use another release of torch")
        self._pass_on(memoryview(self._held[:-2] + _SEAL_BYTES.to_bytes(2, "little") + _MARK))
        self._file.write(self._digest.hexdigest().encode())

    def _pass_on(self, view: memoryview) -> None:
        for start in range(0, view.nbytes, _CHUNK_BYTES):
            piece = view[start : start + _CHUNK_BYTES]
            self._digest.update(piece)
            self._file.write(piece)
