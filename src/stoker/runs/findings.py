"""What a verification says of one file."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Finding"]


class Finding(msgspec.Struct, frozen=True):
    """One file of a run and what is the matter with it.

    Attributes:
        file: its path below the run; empty: the run as a whole.
        size: in bytes.
        kind: ``ok``; ``torn``: ends in what a killed process left half written, which is no damage;
            ``damaged``; ``note``: worth a word and no more.
        text: what was found.
    """

    file: str
    size: int
    kind: Literal["ok", "torn", "damaged", "note"]
    text: str
