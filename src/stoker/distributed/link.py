"""The link between an actor of a training and the worker of the cluster that plays for it.

A link only keeps what is to be sent; the pump of its place sends it, with what the other links of the same
worker have. The lock of the place guards the fields of all of its links.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

import stoker.actors.messages as messages
from stoker.actors.messages import Mailbox, Weights, WorkerCommand, WorkerEvent
from stoker.actors.worker import Assignment
from stoker.distributed.parcels import Opening
from stoker.threads import backend_here


class LinkOwner(Protocol):
    """The worker that a link belongs to, whichever of its processes plays."""

    lock: threading.Lock
    """Guards the fields of its links."""

    def add(self, link: RayLink) -> None:
        """A link wants to be played; called once, with the lock held."""
        ...

    def want_sent(self, link: RayLink) -> None:
        """A link has something to send, or has nothing to wait for any more; with the lock held."""
        ...


class RayLink:
    """A link of ``RayPlace``: a ``Link`` to one thread of a worker.

    Args:
        assignment: what it plays.
        load: the pickled factory and policy.
        owner: its worker.
    """

    def __init__(self, assignment: Assignment, load: bytes, owner: LinkOwner) -> None:
        self.messages: Mailbox[WorkerEvent] = Mailbox()
        self.assignment = assignment
        self.credit: int = 0
        """Steps that it may do in addition, not sent yet."""
        self.weights: Weights | None = None
        """New weights for it, not sent yet."""
        self.is_stopped: bool = False
        self.killed_at: float | None = None
        """When its environment was to be left behind, in monotonic seconds."""
        self.opened_at: float = 0.0
        """When it was sent to a process."""
        self.has_started = False
        """Whether it has sent anything."""
        self.has_exited: bool = False
        self.number: int | None = None
        """Its number at the process that plays it; None: it waits for one."""
        self.granted: int = 0 if assignment.asks else assignment.window_steps
        """All the credit that it has been sent."""
        self.n_received = 0
        """The steps that came back."""
        self._load = load
        self._backend = ""
        self._owner = owner

    @property
    def width(self) -> int:
        """How many actors it plays."""
        return len(self.assignment.actor_ids) or 1

    @property
    def most_in_flight(self) -> int:
        """The most steps that it may have played without their having arrived."""
        per_credit = self.width if self.assignment.asks else 1
        return max(0, self.granted * per_credit - self.n_received) + self.width - 1

    def open(self) -> None:
        """Ask for a process to play in; ``Waiting`` is posted at once."""
        self._backend = backend_here()
        self.messages.post(messages.Waiting())
        with self._owner.lock:
            self._owner.add(self)

    def send(self, command: WorkerCommand) -> None:
        """Send a command with the next delivery to the worker."""
        with self._owner.lock:
            match command:
                case messages.Credit(n_steps):
                    self.credit += n_steps
                case Weights():
                    self.weights = command
                case messages.Stop():
                    self.is_stopped = True
            self._owner.want_sent(self)

    def kill(self) -> None:
        """Leave the environment's thread behind, or end its whole process if that does not answer."""
        with self._owner.lock:
            self.abandon()

    @property
    def is_over(self) -> bool:
        """Whether it is to end."""
        return self.is_stopped or self.killed_at is not None

    def abandon(self) -> None:
        """The same, with the lock held."""
        self.killed_at = time.monotonic()
        self._owner.want_sent(self)

    def opening(self, number: int) -> Opening:
        """What starts it at a process, where it has this number."""
        self.number, self.opened_at = number, time.monotonic()
        return Opening(number, self.assignment, self._backend, self._load)

    def exit(self, why: str = "", *, is_lost: bool = False) -> None:
        """Post that its worker has ended, once."""
        if not self.has_exited:
            self.has_exited = True
            self.messages.post(messages.WorkerExited(why=why, is_lost=is_lost))
