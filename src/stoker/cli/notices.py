"""What stoker logs, from warnings up, as lines ``stoker: warning: ...`` on standard error. Free of rich.

``main`` has them printed plainly; while a live view is drawn they go through its console instead.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Generator

__all__ = ["notices_on_stderr", "notices_to"]

_logger = logging.getLogger("stoker")


class _Notices(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._say(f"stoker: {record.levelname.lower()}: {record.getMessage()}")
            if record.exc_info:
                self._say(logging.Formatter().formatException(record.exc_info))
        except Exception:  # noqa: BLE001 - as logging does: it never stops its callers
            self.handleError(record)


def notices_to(say: Callable[[str], None]) -> None:
    """From now on call ``say`` with each line, and nobody that was named here before. From any thread."""
    _forget()
    _logger.addHandler(_Notices(say))


@contextlib.contextmanager
def notices_on_stderr() -> Generator[None]:
    """Print them as long as a command runs, unless it has them go elsewhere."""
    notices_to(_print)
    try:
        yield
    finally:
        _forget()


def _forget() -> None:
    for handler in [handler for handler in _logger.handlers if isinstance(handler, _Notices)]:
        _logger.removeHandler(handler)


def _print(line: str) -> None:
    print(line, file=sys.stderr)
