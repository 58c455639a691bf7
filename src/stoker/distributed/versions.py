"""What a learner and its workers must have in common, and what differs between two of them."""

from __future__ import annotations

import importlib.metadata
import sys

import msgspec

from stoker import __version__


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """The versions that decide whether two processes understand each other's pickles and messages."""

    stoker: str
    python: str
    """Major and minor: pickles of 3.11 do not load in 3.12, those of 3.11.7 load in 3.11.9."""
    torch: str
    """Without what it was built for: weights are on the CPU when they are sent."""

    @classmethod
    def here(cls) -> Versions:
        """Those of this process; torch is not imported for it."""
        torch = importlib.metadata.version("torch").partition("+")[0]
        return cls(
            stoker=__version__, python=f"{sys.version_info.major}.{sys.version_info.minor}", torch=torch
        )


def difference(here: Versions, there: Versions) -> str | None:
    """What differs, for an error message; None: nothing.

    Args:
        here: of the learner.
        there: of a worker.
    """
    names = {"stoker": "stoker", "python": "Python", "torch": "torch"}
    differing = [
        f"{name} {getattr(there, field)} instead of {getattr(here, field)}"
        for field, name in names.items()
        if getattr(here, field) != getattr(there, field)
    ]
    return ", ".join(differing) or None
