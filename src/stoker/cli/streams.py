"""Standard streams of a command, and log records as lines on standard error. Imports no rich.

Streams that are closed, full, gone, or unable to encode a character do not end the command. Text for people
goes to standard error: what cannot be written there is dropped, since there is no other place to report that.
Results go to standard output: if some are lost, the command fails when it ends, not before, so that a
training is saved first.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import sys
from collections.abc import Generator
from typing import Any, TextIO

_LOGGER = logging.getLogger("stoker")
_MODES = ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY))
"""How a closed descriptor is filled. Standard output is opened for reading: writing to it still fails."""


class SteadyOutput(io.FileIO):
    """A standard stream that drops text that it cannot write, and remembers why."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write what can be written, as it is; the rest counts as written."""
        try:
            if written := super().write(data):
                return written
            # None: another process made it non-blocking, and it is full.
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        except OSError as error:
            self.error = self.error or error
            return memoryview(data).nbytes

    def checked(self, code: int) -> int:
        """The exit code: 1 in place of 0 if text was lost, with one line on standard error saying why.

        A reader that has left, as in ``stoker ls | head``, needs no line.
        """
        with contextlib.suppress(ValueError):  # closed by what ran
            sys.stdout.flush()
        if self.error is None:
            return code
        if not isinstance(self.error, BrokenPipeError):
            why = "it is closed" if self.error.errno == errno.EBADF else self.error.strerror
            print(f"stoker: error: standard output is incomplete: {why}", file=sys.stderr)
        return code or 1


def steady_streams() -> SteadyOutput:
    """Replace ``sys.stdin``, ``sys.stdout`` and ``sys.stderr`` of this process; return standard output.

    A closed descriptor is filled: the next file that is opened would get its number, and whatever is printed.
    """
    for descriptor, mode in _MODES:
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest free number, which is this one
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison] - it is where it was closed
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    output = SteadyOutput(1, "w", closefd=False)
    sys.stdout = _text(output, sys.stdout)
    sys.stderr = _text(SteadyOutput(2, "w", closefd=False), sys.stderr)
    return output


def _text(sink: SteadyOutput, before: TextIO | None) -> io.TextIOWrapper:
    """Text in the encoding of the stream before; a character that it lacks becomes an escape."""
    return io.TextIOWrapper(
        io.BufferedWriter(sink),
        encoding="utf-8" if before is None else before.encoding,
        errors="backslashreplace",
        line_buffering=sink.fileno() == 2 or sink.isatty(),
    )


class _Notices(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            # Not kept: a live view replaces it, and prints lines above its table.
            sys.stderr.write(f"stoker: {record.levelname.lower()}: {self.format(record)}\n")
        except Exception:  # noqa: BLE001 - as logging does: it never stops its callers
            self.handleError(record)


@contextlib.contextmanager
def notices_on_stderr() -> Generator[None]:
    """Print each warning and error that stoker logs, from any thread, while a command runs."""
    notices = _Notices(logging.WARNING)
    _LOGGER.addHandler(notices)
    try:
        yield
    finally:
        _LOGGER.removeHandler(notices)
