"""How a worker elsewhere is doing: one that hosts several actors, on a node of a cluster."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from stoker.types import ActorId

__all__ = ["WorkerState", "WorkerStatus"]

WorkerState: TypeAlias = Literal["waiting", "starting", "playing", "ended"]
"""Waiting for a place in the cluster, starting there, playing, or ended for good."""


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker at one moment. Its counts are over all of its incarnations."""

    worker: int
    """Its number, from 0."""

    node: str
    """The name or address of its node; empty while it waits for a place."""

    incarnation: int
    """How many times it was started, 1 at first."""

    state: WorkerState
    """What it is doing."""

    n_actors: int
    """How many actors it hosts."""

    actor_ids: tuple[ActorId, ...]
    """The actors that it hosts."""

    steps: int
    """Steps that were received."""

    lost_steps: int
    """Steps that were played and never received; exact, unless its node died: then the most there can be."""

    late_batches: int
    """Batches of incarnations that had been given up; they were dropped."""

    since_s: float
    """Seconds in this state."""

    why: str
    """What it waits for, or else why its last incarnation ended; empty: none has."""
