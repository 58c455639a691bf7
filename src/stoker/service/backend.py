"""What a service needs of the training behind it; a ``TrainingSession`` has it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from stoker.journal import StreamEvent
from stoker.session import StreamPoint
from stoker.session.decisions import Decision
from stoker.types import ActMode, ActorId


class Backend(Protocol):
    """A training that takes events in order, and chooses actions."""

    @property
    def is_done(self) -> bool:
        """Whether it takes no more transitions."""
        ...

    @property
    def streams(self) -> Mapping[ActorId, StreamPoint]:
        """Where each actor's stream is, as the run holds it."""
        ...

    def offer_events(self, events: Sequence[StreamEvent]) -> int | None:
        """Accept events at once and return how many; None: ``observe_events`` would wait."""
        ...

    async def observe_events(self, events: Sequence[StreamEvent]) -> int:
        """Accept events together, when there is room; cancelled: all are out.

        Returns how many were accepted: fewer where the training ends, and then the first ones.
        """
        ...

    async def decide_many(
        self, observations: Sequence[Any], actor_ids: Sequence[ActorId], mode: ActMode = ActMode.EXPLORE
    ) -> Sequence[Decision]:
        """Choose an action for each observation, in one pass."""
        ...

    async def flush(self) -> None:
        """Return when everything accepted so far is durable."""
        ...
