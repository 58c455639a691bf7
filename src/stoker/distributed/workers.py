"""The training's side of one worker: its links, the process that plays them now, and the counts of all.

Decisions only: what to send, when a new process is due, what was lost. Nothing here calls Ray or waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

import stoker.actors.messages as messages
from stoker.actors.messages import Weights
from stoker.distributed.host import count_steps
from stoker.distributed.link import RayLink
from stoker.distributed.parcels import Batch, Delivery, Hello, Opening
from stoker.errors import ConfigError
from stoker.session.workers import WorkerState, WorkerStatus
from stoker.types import ActorId

_MOST_BARREN = 5
"""So many processes of a worker in a row may end before a step of any worker has arrived."""

_START_S = 120.0
"""A link that has not started after this time in a process never will."""

_LEFT_S = 3.0
"""A process that does not leave an environment behind within this time cannot: it is ended."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
"""The pause after the second process in a row that did not play; doubled with each further one."""


class Incarnation:
    """One process of a worker, from its request to its end.

    Args:
        number: 1 for the first process of its worker.
        actor: Ray's handle of it.
        started_at: when it was asked for, in monotonic seconds.
    """

    def __init__(self, number: int, actor: Any, started_at: float) -> None:
        self.number = number
        self.actor = actor
        self.hello: Hello | None = None
        """What it said when it had started; None: it has not."""
        self.is_dead = False
        self.heard_at = started_at
        """When it was asked for or answered last."""
        self.node_seen_at = started_at
        """When its node answered last."""
        self.is_node_asked = False
        self.links: dict[int, RayLink] = {}
        self.received: int = 0
        """The steps that have arrived from it, and those that it reported lost itself."""
        self.has_weights: Weights | None = None
        """The weights that were sent to it last."""
        self.n_links = 0
        self.n_batches: int = 0

    @property
    def most_in_flight(self) -> int:
        """The most steps that it may have played without their having arrived."""
        return sum(link.most_in_flight for link in self.links.values())

    def is_on(self, node_id: str) -> bool:
        """Whether it has started, on that node."""
        return self.hello is not None and self.hello.node_id == node_id

    def accept(self, batch: Batch) -> int:
        """Post the messages of a batch to its links; the number of steps in it.

        Raises:
            msgspec.DecodeError: It is not what a host sends.
        """
        if batch.number != self.n_batches:
            raise msgspec.DecodeError(f"batch {batch.number} came where {self.n_batches} was due")
        self.n_batches += 1
        n_steps = 0
        for number, data in batch.messages:
            message = messages.decode_message(data)
            link = self.links[number]
            link.has_started = True
            if isinstance(message, messages.Played):
                n_played = count_steps(message)
                link.n_received += n_played
                n_steps += n_played
            link.messages.post(message)
        self.received += n_steps
        return n_steps


class RayWorker:
    """A worker: the actors that it plays stay its own, whichever process plays them.

    Args:
        index: 0, 1, 2, ...
        lock: guards this object and its links.
        wake: called, with the lock held, when there is something to send that was not there before.
    """

    def __init__(self, index: int, lock: threading.Lock, wake: Callable[[RayWorker], None]) -> None:
        self.index = index
        self.lock = lock
        self.width = 0
        """How many actors are assigned to it."""
        self.now: Incarnation | None = None
        """The process that plays, or is to play."""
        self.start_at: float | None = None
        """When the next process is due, in monotonic seconds; None: none is."""
        self.n_incarnations = 0
        self.n_barren: int = 0
        """So many processes in a row have ended without a step."""
        self.steps: int = 0
        self.lost_steps: int = 0
        self.late_batches: int = 0
        self.waits_for = ""
        """What a process that is to start needs; empty: it starts."""
        self.why: str = ""
        """Why the last process ended."""
        self.is_closed: bool = False
        self.closed_why: str = ""
        self._wake = wake
        self._waiting: list[RayLink] = []
        self._dirty: dict[RayLink, None] = {}
        self.is_urgent: bool = False
        self._state: tuple[WorkerState, float] = "starting", time.monotonic()

    # Called by links, with the lock held ----------------------------------------------------------------

    def add(self, link: RayLink) -> None:
        """See ``LinkOwner``."""
        if self.is_closed:
            link.exit(self.closed_why)
        elif link.is_over:
            link.exit()
        else:
            self._waiting.append(link)
            self._wake(self)

    def want_sent(self, link: RayLink) -> None:
        """See ``LinkOwner``."""
        if link.has_exited:
            return
        if link.number is None:
            if link in self._waiting and link.is_over:
                self._waiting.remove(link)
                link.exit()
            return
        is_urgent = link.is_over or link.assignment.asks
        if not self._dirty or (is_urgent and not self.is_urgent):
            self.is_urgent |= is_urgent
            self._wake(self)
        self._dirty[link] = None

    # Called by the pump, with the lock held -------------------------------------------------------------

    @property
    def is_wanted(self) -> bool:
        """Whether links wait for a process or play in one."""
        return bool(self._waiting) or (self.now is not None and bool(self.now.links))

    @property
    def is_starting(self) -> bool:
        """Whether its process has been asked for and has not started."""
        return self.now is not None and self.now.hello is None

    def take_delivery(self, incarnation: Incarnation, *, with_new: bool) -> tuple[Delivery, Weights | None]:
        """What is to be sent now, and the weights for it if that process does not have them yet.

        Args:
            incarnation: the process that it is for, which plays.
            with_new: whether links that wait may start.
        """
        opened = self._start_links(incarnation) if with_new else ()
        granted: dict[int, int] = {}
        updated: list[int] = []
        stopped: list[int] = []
        abandoned: list[int] = []
        newest = incarnation.has_weights
        for link in self._dirty:
            number = link.number
            if link.has_exited or number is None:
                continue
            if link.weights is not None:
                if newest is None or link.weights.version > newest.version:
                    newest = link.weights
                link.weights = None
                updated.append(number)
            if link.credit:
                link.granted += link.credit
                granted[number] = link.credit
                link.credit = 0
            if link.is_stopped:
                stopped.append(number)
            if link.killed_at is not None:
                abandoned.append(number)
        self._dirty.clear()
        self.is_urgent = False
        fresh = newest if newest is not incarnation.has_weights else None
        incarnation.has_weights = newest
        delivery = Delivery(opened, tuple(updated), granted, tuple(stopped), tuple(abandoned))
        return delivery, fresh

    def _start_links(self, incarnation: Incarnation) -> tuple[Opening, ...]:
        opened: list[Opening] = []
        for link in self._waiting:
            number = incarnation.n_links
            incarnation.n_links += 1
            incarnation.links[number] = link
            opened.append(link.opening(number))
            self._dirty[link] = None  # commands that came before
        self._waiting.clear()
        return tuple(opened)

    def accept(self, incarnation: Incarnation, batch: Batch) -> int:
        """Take a batch of a process; the number of steps that were taken.

        Raises:
            msgspec.DecodeError: It is not what a host sends.
        """
        if incarnation.is_dead:
            self.late_batches += bool(batch.messages or batch.ended)
            return 0
        n_steps = incarnation.accept(batch)
        self.steps += n_steps
        if n_steps:
            self.n_barren = 0
        for ended in batch.ended:
            incarnation.links.pop(ended.link).exit(ended.why)
            incarnation.received += ended.unsent_steps
            self.lost_steps += ended.unsent_steps
        return n_steps

    def stuck(self, incarnation: Incarnation, now: float) -> str | None:
        """Why a process is to be given up: an environment holds it; None: it is not.

        A link that does not start is left behind: its thread may wait for a module that is imported.
        """
        for link in incarnation.links.values():
            if link.killed_at is not None and now - link.killed_at >= _LEFT_S:
                return f"actor {link.assignment.actor_id!r}: its environment does not let its process answer"
            if not link.has_started and link.killed_at is None and now - link.opened_at >= _START_S:
                link.abandon()
        return None

    def lose(self, incarnation: Incarnation, why: str, now: float, *, may_give_up: bool) -> None:
        """A process has ended, or is given up: its links end, and another one is due if any of them played.

        Args:
            incarnation: the process.
            why: the reason in words.
            now: monotonic seconds.
            may_give_up: whether nothing has arrived from other workers either.
        """
        incarnation.is_dead = True
        self.why = why
        self.now = None
        self.n_barren += incarnation.received == 0
        refusal = None
        if may_give_up and self.n_barren >= _MOST_BARREN:
            refusal = ConfigError(
                f"worker {self.index}: {self.n_barren} processes in a row have ended before they had "
                f"played a step ({why}): look at what they printed"
            )
        waiting, self._waiting = self._waiting, []
        if refusal is None:
            self._waiting = waiting
            if waiting or incarnation.links:
                pause_s = 0.0 if self.n_barren < 2 else _FIRST_PAUSE_S * 2.0 ** (self.n_barren - 2)
                self.start_at = now + min(pause_s, _LONGEST_PAUSE_S)
        for link in (*incarnation.links.values(), *(waiting if refusal is not None else ())):
            if refusal is not None:
                link.messages.post(messages.Failed(refusal))
            link.exit(why, is_lost=True)
        incarnation.links = {}
        self._dirty.clear()

    def refuse(self, error: ConfigError) -> None:
        """End all links by an error that another process would not change."""
        links = [*self._waiting, *(() if self.now is None else self.now.links.values())]
        self._waiting.clear()
        for link in links:
            link.messages.post(messages.Failed(error))
            link.exit()
        if self.now is not None:
            self.now.is_dead = True
            self.now = None
        self.start_at = None

    def stop_links(self) -> None:
        """Ask all links to close their environments and end."""
        for link in self._waiting:
            link.exit()
        self._waiting.clear()
        for link in () if self.now is None else self.now.links.values():
            link.is_stopped = True
            self.want_sent(link)

    def close(self, why: str) -> None:
        """End for good: links that still play or wait have ended."""
        self.is_closed, self.closed_why, self.start_at = True, why, None
        for link in (*self._waiting, *(() if self.now is None else self.now.links.values())):
            link.exit(why)
        self._waiting.clear()
        if self.now is not None:
            self.now.is_dead = True
            self.now.links = {}

    # For anyone, with the lock held ---------------------------------------------------------------------

    def note_state(self, now: float) -> None:
        """Note the state that it is in, and since when."""
        incarnation = self.now
        state: WorkerState = "starting"
        if self.is_closed:
            state = "ended"
        elif incarnation is None or self.waits_for:
            state = "waiting"
        elif incarnation.hello is not None:
            state = "playing"
        if state != self._state[0]:
            self._state = state, now

    def status(self, now: float) -> WorkerStatus:
        """How it stands."""
        incarnation = self.now
        hello = None if incarnation is None else incarnation.hello
        self.note_state(now)
        state, since = self._state
        links = [*self._waiting, *(() if incarnation is None else incarnation.links.values())]
        ids: list[ActorId] = []
        for link in links:
            ids.extend(link.assignment.actor_ids or (link.assignment.actor_id,))
        return WorkerStatus(
            worker=self.index,
            node="" if hello is None else hello.node,
            incarnation=self.n_incarnations,
            state=state,
            n_actors=len(ids),
            actor_ids=tuple(ids),
            steps=self.steps,
            lost_steps=self.lost_steps,
            late_batches=self.late_batches,
            since_s=now - since,
            why=self.waits_for or self.why,
        )
