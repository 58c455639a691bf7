"""The query of a request: each parameter once, known and within its bounds, or one error that names it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Sequence
from typing import Final, TypeVar
from urllib.parse import parse_qsl

from stoker.errors import ConfigError
from stoker.protocol import ProtocolError

MOST_IDS: Final = 200
"""How many runs one request may name."""
_MOST_BYTES = 16 << 10
_MOST_PAGE = 10**7
_MOST_FIELDS = 300
_LONGEST = 300
_ID = re.compile("[0-9a-f]{16}")
_SHOWN = 80

Word = TypeVar("Word", bound=str)


class Query:
    """The parameters of a request.

    Args:
        text: the query as it stands in the address.
        known: the parameters that there are.

    Raises:
        ProtocolError: 422: it is too long, or one of its parameters is unknown.
    """

    def __init__(self, text: str | bytes, known: Collection[str]) -> None:
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        if len(text) > _MOST_BYTES:
            raise ProtocolError("invalid", f"the query has {len(text):,} bytes; it may have {_MOST_BYTES:,}")
        try:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            detail = f"the query has more than {_MOST_FIELDS} parameters; leave some out"
            raise ProtocolError("invalid", detail) from None
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if name not in known:
                raise ProtocolError("invalid", _unknown(name, known), path=_short(name))
            self._values.setdefault(name, []).append(value)

    def texts(self, name: str, most: int) -> list[str]:
        """Each value of a parameter that may be repeated, without empty ones."""
        found = [value for value in self._values.get(name, ()) if value]
        if len(found) > most:
            raise ProtocolError("invalid", f"{len(found)} values: give at most {most}", path=name)
        for value in found:
            if len(value) > _LONGEST:
                raise ProtocolError("invalid", f"{len(value)} letters: give at most {_LONGEST}", path=name)
        return found

    def text(self, name: str, default: str = "") -> str:
        """The value of a parameter; an empty one is as good as none."""
        found = self._values.get(name, ())
        if len(found) > 1:
            raise ProtocolError("invalid", f"it is given {len(found)} times: give it once", path=name)
        return next(iter(self.texts(name, 1)), default)

    def choice(self, name: str, allowed: Sequence[Word], default: Word) -> Word:
        """One of these words."""
        text = self.text(name, default)
        for word in allowed:
            if word == text:
                return word
        way_out = f"give one of {', '.join(allowed)}"
        raise ProtocolError("invalid", f"{_short(text)!r}: {way_out}", path=name)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """An integer within bounds, both included."""
        text = self.text(name)
        if not text:
            return default
        number = int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None
        if number is None or not low <= number <= high:
            detail = f"{_short(text)!r}: give an integer from {low} to {high}"
            raise ProtocolError("invalid", detail, path=name)
        return number

    def number(self, name: str) -> float | None:
        """A finite number, or None where there is none."""
        text = self.text(name)
        if not text:
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or "_" in text:
            raise ProtocolError("invalid", f"{_short(text)!r}: give a finite number", path=name)
        return number

    def page(self, size: int = 50) -> slice:
        """The rows of a page, by its number from 0, ``page``, and the rows on each, ``size``."""
        page, size = self.integer("page", 0, 0, _MOST_PAGE), self.integer("size", size, 1, 1000)
        return slice(page * size, (page + 1) * size)

    def is_descending(self, default: str) -> bool:
        """Whether the largest comes first, by ``order``: asc or desc."""
        return self.choice("order", ("asc", "desc"), default) == "desc"

    def ids(self, most: int = MOST_IDS, *, name: str = "ids") -> list[str]:
        """Ids of runs, separated by commas, each once, in their order."""
        text = ",".join(self._values.get(name, ()))
        found = list(dict.fromkeys(filter(None, text.split(","))))
        if not found:
            raise ProtocolError("invalid", "give the ids of runs, separated by commas", path=name)
        if len(found) > most:
            raise ProtocolError("invalid", f"{len(found)} runs: give at most {most}", path=name)
        for run_id in found:
            if not _ID.fullmatch(run_id):
                raise ProtocolError("invalid", f"{_short(run_id)!r} is no id of a run", path=name)
        return found


def refused_value(error: ConfigError, name: str) -> ProtocolError:
    """The refusal of a parameter whose value a setting refuses."""
    return ProtocolError("invalid", str(error), path=name)


def no_such(what: str, name: str, known: Collection[str], path: str | None = None) -> ProtocolError:
    """404 for a name that is not there, with the nearest ones, or the first of all."""
    near = difflib.get_close_matches(name[:_LONGEST], list(known)[:2000], cutoff=0.4)
    if near:
        way_out = f"the nearest are {', '.join(map(_short, near))}"
    elif known:
        way_out = f"there are {', '.join(map(_short, list(known)[:10]))}"
    else:
        way_out = "there are none yet"
    return ProtocolError("not-found", f"no {what} {_short(name)!r}: {way_out}", path=path)


def _unknown(name: str, known: Collection[str]) -> str:
    if not known:
        return f"unknown parameter {_short(name)!r}: this address takes none"
    return f"unknown parameter {_short(name)!r}: it takes {', '.join(sorted(known))}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
