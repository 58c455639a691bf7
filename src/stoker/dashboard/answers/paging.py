"""A page of a longer list."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A part of a list.

    Attributes:
        n: the length of the whole list.
        rows: the part.
    """

    n: int
    rows: list[T]
