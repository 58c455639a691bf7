"""Warnings and errors that stoker logs, for functions that take them, from any thread.

One handler on the logger ``stoker`` calls all of these functions. It does not change what a program prints:
where no other handler gets a record, ``logging.lastResort`` prints it, as it does without any handler.
"""

from __future__ import annotations

import logging
import os
import threading
import traceback
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

from stoker.errors import StokerError
from stoker.raising import OWN_CODE

KNOWN: Final = {"is_known": True}
"""The ``extra`` of a log record that is no notice, because an event of the run says the same."""

_LOGGER = logging.getLogger("stoker")


class Notice(NamedTuple):
    """What was logged.

    Attributes:
        level: how much it matters.
        source: the name of the logger.
        text: the message.
        traceback: that of the error that it came with, if any.
    """

    level: Literal["warning", "error"]
    source: str
    text: str
    traceback: str | None


Hear: TypeAlias = Callable[[Notice], object]
"""Takes a notice; it must neither log nor block."""


def hear(what: Hear) -> None:
    """Call a function with each notice from now on."""
    with _lock:
        if _handler.pid != os.getpid():  # in a forked child, those who hear are the parent's
            _handler.hearing.clear()
            _handler.pid = os.getpid()
        _LOGGER.addHandler(_handler)
        _handler.hearing.append(what)


def hear_no_more(what: Hear) -> None:
    """Call it no more; a function that is not called is left alone."""
    with _lock:
        if what in _handler.hearing:
            _handler.hearing.remove(what)
            if not _handler.hearing:
                _LOGGER.removeHandler(_handler)


def traceback_of(error: BaseException) -> str | None:
    """The traceback of an error's first cause; None if that is one of stoker's, whose message says enough.

    It begins where stoker called other code last, if that code raised the error.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, StokerError):
        return None
    first = frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename.startswith(OWN_CODE):
            first = frame.tb_next
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, first or error.__traceback__)).rstrip()


class _Handler(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.hearing: list[Hear] = []
        self.pid = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if os.getpid() == self.pid and not hasattr(record, "is_known"):  # a forked child has no run yet
                notice = _notice_of(record)
                for what in tuple(self.hearing):
                    what(notice)
            if logging.lastResort is not None and not self._has_another(record.name):
                logging.lastResort.handle(record)
        except Exception:  # noqa: BLE001 - as logging does: it never stops its callers
            self.handleError(record)

    def _has_another(self, name: str) -> bool:
        """Whether another handler gets the records of that logger."""
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


def _notice_of(record: logging.LogRecord) -> Notice:
    level = "error" if record.levelno >= logging.ERROR else "warning"
    error = record.exc_info[1] if record.exc_info else None
    return Notice(level, record.name, record.getMessage(), None if error is None else traceback_of(error))


_handler = _Handler()
_lock = threading.Lock()
