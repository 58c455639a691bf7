"""Paths to a value in a message, as clients write them: ``steps[3].observation.arm[2]``."""

from __future__ import annotations

import json
import re

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z_0-9-]*")


def place_of(path: str | int) -> str:
    """A path; a number is that of an observation, by the place of its record among the steps."""
    return f"steps[{path}].observation" if isinstance(path, int) else path


def joined(path: str, key: str) -> str:
    """The path of a value by name inside another one."""
    if _PLAIN.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{json.dumps(key)}]"
