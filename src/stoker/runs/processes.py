"""What a run's files say of the process that writes them: its command line, without secrets."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence

_HIDDEN = "***"
_NAMED_SO = r"[\w.-]*(?:key|token|secret|passw(?:or)?d|credential|auth)[\w.-]*"
_SECRET_FLAG = re.compile(rf"--?{_NAMED_SO}", re.IGNORECASE)
_ASSIGNED = re.compile(rf"({_NAMED_SO}[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,}}]+)", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def command_line(words: Sequence[str] | None = None, most: int = 400) -> str:
    """A command line that can be shown to anybody: what looks like a secret is replaced by ``***``.

    That is the value of a flag, variable or setting whose name says key, token, secret, password, credential
    or auth, and the user in an address.

    Args:
        words: of the command line; None: those of this process.
        most: characters that are kept; a longer line ends in ``...``.
    """
    shown: list[str] = []
    is_secret = False
    for word in sys.orig_argv if words is None else words:
        if is_secret and not word.startswith("-"):
            shown.append(_HIDDEN)
        else:
            shown.append(_USER_INFO.sub(_HIDDEN, _ASSIGNED.sub(rf"\1{_HIDDEN}", word)))
        is_secret = _SECRET_FLAG.fullmatch(word) is not None
    line = shlex.join(shown).replace(f"'{_HIDDEN}'", _HIDDEN)
    return line if len(line) <= most else f"{line[: most - 3]}..."
