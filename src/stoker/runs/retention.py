"""Which checkpoints are kept. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from stoker.errors import ConfigError

__all__ = ["Retention"]


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How many checkpoints a run keeps.

    Attributes:
        last: so many of the newest step checkpoints; None: all; 0: only ``latest``, the newest one's
            second name (with ``every`` it would lose its only name: then 1).
        every: those at multiples of so many steps are kept for good; 0: none.
        best: how many of the best evaluated policies, at least 1.
        all_journal: keep the whole journal, not only what the newest checkpoints need.

    Raises:
        ConfigError: A number is below what it may be.
    """

    last: int | None = 3
    every: int = 0
    best: int = 1
    all_journal: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (("last", self.last, 0), ("every", self.every, 0), ("best", self.best, 1)):
            if value is not None and (type(value) is not int or value < least):
                raise ConfigError(f"{name}={value!r}: keep {least} or more checkpoints")

    def newest(self, steps: Sequence[int]) -> list[int]:
        """The newest that are kept for being so, ascending: those that a resume may begin from."""
        ordered = sorted(steps)
        if self.last is None:
            return ordered
        last = max(self.last, 1) if self.every else self.last
        return ordered[max(0, len(ordered) - last) :]

    def doomed(self, steps: Sequence[int]) -> list[int]:
        """Those that are given up, ascending."""
        newest = set(self.newest(steps))
        return [
            step
            for step in sorted(steps)
            if step not in newest and not (self.every and step % self.every == 0)
        ]
