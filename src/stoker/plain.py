"""Turn values from outside into plain Python values for rows, counters and checkpoints, or refuse them.

A row comes back as it went in only if its numbers are finite, its integers have 64 bits and its texts are
valid Unicode. Anything else fails in an encoder long after the call, or writes a row that no reader
accepts. So each value from outside is checked here once, before it is counted or queued.
"""

from __future__ import annotations

import math
import operator
from numbers import Integral, Real
from typing import Any, Final

from stoker.errors import InvalidExperience

LARGEST_INT: Final = (1 << 63) - 1
"""The largest integer that all JSON readers and table columns can hold."""


def as_float(value: Any) -> float | None:
    """The float of a real number, bool, or array or tensor without axes; None for any other value."""
    if isinstance(value, str | bytes | bytearray) or getattr(value, "shape", ()) != ():
        return None  # float() parses texts, and takes arrays of one element
    if getattr(getattr(value, "dtype", None), "kind", "f") not in "biuf":
        return None  # of a complex number numpy would keep the real part
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def finite_float(name: str, value: Any) -> float:
    """One real number, as ``as_float`` takes it, as a finite float.

    Raises:
        InvalidExperience: It is something else.
    """
    number = as_float(value)
    if number is None:
        raise InvalidExperience(f"{name}={shown(value)} is not a number: give one float")
    if not math.isfinite(number):
        raise InvalidExperience(f"{name}={number} is not finite: clip it, or correct what computes it")
    return number


def plain_number(name: str, value: Any) -> float:
    """A real number of Python or numpy as a finite float; a bool is refused.

    Raises:
        InvalidExperience: The value is something else.
    """
    # `type(...) is float` first: isinstance of an abstract class costs ten times as much.
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise InvalidExperience(
                f"{name}={shown(value)}: give a float (for an array or tensor of one element: its .item())"
            )
        try:
            value = float(value)
        except OverflowError:
            raise InvalidExperience(f"{name} is an integer too large for a float: give a float") from None
    if not math.isfinite(value):
        raise InvalidExperience(f"{name}={value!r} is not finite: leave it out, or correct what computes it")
    return value


def plain_count(name: str, value: Any) -> int:
    """An integer of Python or numpy that counts something, as an int of at least 0 and at most 63 bits.

    Raises:
        InvalidExperience: The value is something else.
    """
    if type(value) is not int:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise InvalidExperience(f"{name}={shown(value)}: give a count as an int")
        value = int(value)
    if not 0 <= value <= LARGEST_INT:
        problem = "negative" if value < 0 else f"above {LARGEST_INT}"
        raise InvalidExperience(f"{name}={shown(value)} is {problem}: give a count as an int")
    return value


def plain_seed(seed: Any) -> int | None:
    """An integer of Python or numpy as an int; None stays None.

    Raises:
        InvalidExperience: The value is something else.
    """
    try:
        return None if seed is None else operator.index(seed)
    except TypeError:
        raise InvalidExperience(f"seed={shown(seed)}: give an int or None") from None


def plain_text(name: str, value: Any) -> str:
    """A str that can be written as UTF-8.

    Raises:
        InvalidExperience: The value is not a str, or not valid Unicode.
    """
    if not isinstance(value, str):
        raise InvalidExperience(f"{name}={shown(value)}: give a str")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:  # half of a surrogate pair, say
            raise InvalidExperience(
                f"{name}={value!a} is not valid Unicode ({error.reason}): give a text that can be written"
            ) from error
    return value if type(value) is str else str.__str__(value)


def encodable(text: str) -> str:
    """The text with each lone surrogate as an escape: names on disk and texts from outside may hold any."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def check_actor_id(actor_id: Any) -> None:
    """Refuse a value that cannot name an actor in rows, journal and checkpoints.

    Raises:
        InvalidExperience: The value is neither an int of up to 63 bits nor a valid str.
    """
    if type(actor_id) is str:
        if not actor_id.isascii():
            plain_text("actor_id", actor_id)
    elif type(actor_id) is not int or not -LARGEST_INT <= actor_id <= LARGEST_INT:
        raise InvalidExperience(f"actor_id={shown(actor_id)}: use an int of up to 63 bits, or a str")


def shown(value: Any) -> str:
    """A value and its type, short enough for one line."""
    text = " ".join(repr(value).split())
    text = text if len(text) <= 80 else text[:77] + "..."
    return f"{text} ({type(value).__name__})"
