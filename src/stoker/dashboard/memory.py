"""What of the runs is in memory: those used longest ago are forgotten, and read again on demand."""

from __future__ import annotations

from collections import OrderedDict

from stoker.dashboard.reading import RunEntry

_EACH_BYTES = 20_000
"""About what a run takes besides its rows."""


class RowMemory:
    """Bounds the rows of all runs. For one event loop.

    Args:
        most_bytes: what they may take together; the run that is being looked at is kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._n_bytes = 0
        self._sizes: OrderedDict[RunEntry, int] = OrderedDict()  # ordered by the last use

    def keep(self, entry: RunEntry) -> None:
        """Note that the rows of a run were read, and forget others as long as all are too many."""
        self.drop(entry)
        if entry.history is not None:
            self._sizes[entry] = entry.history.n_bytes + _EACH_BYTES
            self._n_bytes += self._sizes[entry]
        for other in list(self._sizes) if self._n_bytes > self._most_bytes else ():
            if other is not entry and not other.lock.locked() and not other.is_reading:
                other.forget()
                self.drop(other)
                if self._n_bytes <= self._most_bytes:
                    return

    def drop(self, entry: RunEntry) -> None:
        """Count a run no more."""
        self._n_bytes -= self._sizes.pop(entry, 0)
