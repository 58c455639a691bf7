"""A last line for a process that is ended from outside, when no code of its own can run any more.

Ray ends a process whose node or whose cluster's head has died; the system ends one for want of memory. A
shell beside the process waits for the end of a pipe, which the system closes with the process.
"""

from __future__ import annotations

import contextlib
import subprocess

from stoker.exits import Closing

_WAIT = 'read -r _ || printf "%b%s\\n" "$1" "$2" >&2'
_SHOW_CURSOR = r"\r\033[J\033[?25h"
"""Clears the rest of a live view, and shows the cursor that it has hidden."""


class SuddenEnd(Closing):
    """Prints a line on standard error if this process ends before it is closed. A context manager.

    Args:
        line: to print.
        is_terminal: whether a live view may have hidden the terminal's cursor.
    """

    def __init__(self, line: str, *, is_terminal: bool) -> None:
        words = ["/bin/sh", "-c", _WAIT, "sh", _SHOW_CURSOR if is_terminal else "", line]
        self._shell = subprocess.Popen(  # noqa: S603 - what it runs is fixed
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the training, which finishes
        )

    def close(self) -> None:
        """Print nothing. From any thread; a second call does nothing."""
        with contextlib.suppress(OSError, ValueError):  # the shell is gone, or this is the second call
            self._shell.communicate(b"\n")
