"""What another thread is doing."""

from __future__ import annotations

import gc
import sys
import threading
from types import FrameType

_looking = threading.Lock()
"""Two that look at once would turn the collector on again under each other."""


def frame_of(thread: int) -> FrameType | None:
    """The innermost frame that a thread runs now; None: there is no such thread.

    No garbage is collected meanwhile. CPython holds a lock here that each new thread needs, and 3.11 may
    collect garbage under it. If a finalizer then lets another thread run, and that one starts a third, the
    process stops for good (python/cpython, issue 106883).

    Args:
        thread: as ``threading.get_ident`` names it.
    """
    with _looking:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames().get(thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        finally:
            if was_enabled:
                gc.enable()
