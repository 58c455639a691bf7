"""How an agent learns: from rows or columns, as often as it is told or says itself, and traced or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from stoker.agents.protocol import LearningAgent, LearnsSeldom, ObservesBatches
from stoker.telemetry import Spans
from stoker.types import Experience, ExperienceBatch


class Abilities:
    """How a learner hands transitions to an agent, and between which of them.

    Attributes:
        seldom: the agent, if it says when it learns.
    """

    def __init__(self, agent: LearningAgent) -> None:
        self._agent = agent
        self._batches = agent if isinstance(agent, ObservesBatches) else None
        self.seldom: LearnsSeldom | None = agent if isinstance(agent, LearnsSeldom) else None
        self._learn: Callable[[], Mapping[str, float] | None] | None = None

    def trace(self, spans: Spans) -> None:
        """Trace each optimization step from here on."""
        self._learn = spans.traced("rl.train", self._agent.learn)

    def learn(self) -> Mapping[str, float] | None:
        """Do an optimization step; return what ``agent.learn`` does."""
        return (self._learn or self._agent.learn)()

    def observing(self, experiences: Sequence[Experience] | ExperienceBatch) -> Callable[[Any], None]:
        """What takes slices of these."""
        if not isinstance(experiences, ExperienceBatch):
            return self._agent.observe
        return self._observe_rows if self._batches is None else self._batches.observe_batch

    def stops(self, next_learn: int, end: int, interval: int) -> Iterable[int]:
        """After how many transitions to learn, up to ``end``.

        Args:
            next_learn: after how many it is due for the first time.
            end: how many there are.
            interval: how many later it is due again; 0: never.
        """
        if self.seldom is None:
            return range(next_learn, end + 1, interval or end + 1)
        return self._seldom_stops(next_learn, end, interval)

    def n_skipped(self, n_until: int, interval: int) -> int:
        """How many transitions later than after ``n_until`` the agent can learn, in whole intervals."""
        if self.seldom is None or not interval:
            return 0
        return max(0, -(-(self.seldom.steps_to_learn - n_until) // interval) * interval)

    def _seldom_stops(self, next_learn: int, end: int, interval: int) -> Iterator[int]:
        """Not where the agent says, before each of them, that it would do nothing."""
        start = 0
        while (stop := next_learn + self.n_skipped(next_learn - start, interval)) <= end:
            yield stop
            start, next_learn = stop, stop + interval

    def _observe_rows(self, batch: ExperienceBatch) -> None:
        self._agent.observe(batch.experiences())
