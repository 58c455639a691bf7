"""How a worker elsewhere is doing: one that hosts several actors, on a node of a cluster."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from stoker.telemetry import NodeReading
from stoker.types import ActorId

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


class WorkerReports:
    """What a session knows of the workers that play on it; from any thread.

    What workers count is added up for the node where it happened, so that no count of a node ever falls,
    also when a worker starts again on another one.
    """

    def __init__(self) -> None:
        self._sources: list[Callable[[], tuple[WorkerStatus, ...]]] = []
        self._adding = threading.Lock()
        self._last: dict[tuple[int, int], WorkerStatus] = {}
        self._node_of: dict[tuple[int, int], str] = {}
        self._counts: dict[str, Counter[str]] = {}

    def add(self, source: Callable[[], tuple[WorkerStatus, ...]]) -> None:
        """Ask this group of workers, too, from now on."""
        self._sources.append(source)

    def now(self) -> tuple[WorkerStatus, ...]:
        """How all workers are at this moment."""
        return tuple(status for source in self._sources for status in source())

    def by_node(self) -> tuple[NodeReading, ...]:
        """The same by node, in the order of their first use; last, if there are any, those without a node."""
        with self._adding:
            states: dict[str, Counter[str]] = {}
            why: dict[str, str] = {}
            for index, source in enumerate(self._sources):
                for status in source():
                    node = self._count((index, status.worker), status)
                    shown = status.node or (node if status.state == "ended" else "")
                    states.setdefault(shown, Counter())[status.state] += 1
                    why[shown] = status.why or why.get(shown, "")
            nodes = [node for node in (*self._counts, *states) if node]
            nodes += [""] if "" in states else []
            none: Counter[str] = Counter()
            return tuple(
                NodeReading(
                    node=node, why=why.get(node, ""), **states.get(node, none), **self._counts.get(node, none)
                )
                for node in dict.fromkeys(nodes)
            )

    def _count(self, key: tuple[int, int], status: WorkerStatus) -> str:
        """Add what a worker has counted since the last time; the node that it counts for."""
        # What is learned of a worker after its end happened where it was.
        node = self._node_of.get(key) or status.node
        before = self._last.get(key)
        if node:
            counts = self._counts.setdefault(node, Counter())
            for name in ("steps", "lost_steps", "late_batches"):
                counts[name] += max(0, getattr(status, name) - (getattr(before, name) if before else 0))
            counts["restarts"] += max(0, status.incarnation - (before.incarnation if before else 1))
            self._last[key] = status
        self._node_of[key] = status.node or node
        return node

    def waits(self) -> list[str]:
        """Sentences on workers that do not play, for people."""
        found = self.now()
        sentences: list[str] = []
        for state, doing in (("waiting", "wait for a place on the cluster"), ("starting", "are starting")):
            these = [status for status in found if status.state == state]
            if these:
                why = next((f": {status.why}" for status in these if status.why and state == "waiting"), "")
                sentences.append(f"{len(these)} of {len(found)} workers {doing}{why}")
        return sentences
