"""The states of an actor, by the indices with which its clock enters them; the same in all places."""

from __future__ import annotations

from typing import Final

from stoker.telemetry import StateClock

ACTOR_STATES: Final = ("starting", "resetting", "stepping", "acting", "observing")
"""Making an environment; in its ``reset``; in its ``step``; choosing an action, or waiting for one; handing
events to the session, which waits while the queue is full or it is not the actor's turn."""
STARTING, RESETTING, STEPPING, ACTING, OBSERVING = range(len(ACTOR_STATES))


def times_of(clock: StateClock) -> tuple[float, ...]:
    """The seconds of an actor's clock in each state."""
    return tuple(total / 1e9 for total in clock.totals_ns())
