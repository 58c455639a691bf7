"""How old the policies are whose transitions are learned, in optimisation steps.

A transition's staleness is the number of optimisation steps between the policy that chose its action and the
agent that is about to learn from it (Horgan et al. 2018 and Espeholt et al. 2018 call it policy lag).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from stoker.types import Experience

__all__ = ["Staleness", "StalenessReport"]


class StalenessReport(msgspec.Struct, frozen=True):
    """The staleness of what was learned.

    Attributes:
        mean, max: in optimisation steps; 0 where nothing was counted.
        histogram: how many transitions there were of each staleness, in ascending order.
    """

    mean: float = 0.0
    max: int = 0
    histogram: Mapping[int, int] = msgspec.field(default_factory=dict[int, int])


class Staleness:
    """Counts transitions by their staleness. Written by the learner's thread, read from anywhere."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, experiences: Iterable[Experience], opt_steps: int) -> None:
        """Count transitions that an agent of so many optimisation steps learns from."""
        ages = [
            opt_steps - version
            for experience in experiences
            if (version := experience.policy_version) is not None
        ]
        if ages:
            self._counts = self._counts + Counter(ages)  # a new one: others may be reading the old one

    def report(self) -> StalenessReport:
        """What was counted so far."""
        return _report(self._counts)

    def take(self) -> StalenessReport:
        """The same, and begin again. For the learner's thread."""
        counts, self._counts = self._counts, Counter()
        return _report(counts)


def _report(counts: Counter[int]) -> StalenessReport:
    total = sum(counts.values())
    if not total:
        return StalenessReport()
    mean = sum(age * count for age, count in counts.items()) / total
    return StalenessReport(mean, max(counts), dict(sorted(counts.items())))
