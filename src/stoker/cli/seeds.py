"""The seeds of a sweep as the command line writes them: ``0-4``, ``0,3,7``. Imports nothing slow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from stoker.errors import ConfigError

MOST_SEEDS = 1_000
"""A sweep has no more runs than that."""

_PART = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?", re.ASCII)
_FORM = "give seeds as 0-4, or 0,3,7"


def seeds_from(text: Any) -> tuple[int, ...]:
    """The seeds that a text names, in its order.

    Raises:
        ConfigError: It names none, one twice, or more than ``MOST_SEEDS``; the message names the text.
    """
    where = f"--seeds {text}"
    if not isinstance(text, str):
        raise ConfigError(f"seeds={text!r}: {_FORM}, in quotes")
    ranges: list[range] = []
    for part in text.split(","):
        found = _PART.fullmatch(part.strip())
        if found is None:
            raise ConfigError(f"{where}: {part.strip()!r} is neither a seed nor a range: {_FORM}")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise ConfigError(f"{where}: {first}-{last} goes down: write {last}-{first}")
        ranges.append(range(first, last + 1))
    if (n_seeds := sum(map(len, ranges))) > MOST_SEEDS:
        raise ConfigError(f"{where}: these are {n_seeds:,} seeds: give at most {MOST_SEEDS:,}")
    seeds = [seed for each in ranges for seed in each]
    for place, seed in enumerate(seeds):
        if seed in seeds[:place]:
            raise ConfigError(f"{where}: seed {seed} is there twice")
    return tuple(seeds)


def text_of(seeds: Sequence[int]) -> str:
    """Seeds in the form that ``seeds_from`` reads, neighbors as a range."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], seed]
        else:
            parts.append([seed])
    return ",".join("-".join(map(str, part)) for part in parts)
