"""Where actors play: a ``Place`` makes a ``Link`` to a worker for each actor.

Threads and processes are two places. A user's own place (machines behind a socket, a cluster) implements both
protocols with the names that ``stoker.actors`` exports, and is given to ``run_actors(place=...)``. At the far
end runs a ``Worker``; between the two go ``WorkerCommand`` and ``WorkerMessage``, as bytes if need be.
"""

from __future__ import annotations

from typing import Protocol

from stoker.actors.copies import OwnPolicy, PolicyFeed
from stoker.actors.episodes import EnvFactory
from stoker.actors.mailbox import Mailbox
from stoker.actors.messages import WorkerCommand, WorkerEvent
from stoker.actors.worker import Assignment

__all__ = ["Link", "Place"]


class Link(Protocol):
    """The connection to one worker. Used on the event loop, and opened once.

    ``messages`` gets what the worker sends, in order, and last ``WorkerExited``, whatever ended the worker. A
    link that loses its worker must say so; otherwise the actor counts as silent. ``send`` and ``kill`` may
    come before the worker is there, also where ``open`` was never called.
    """

    messages: Mailbox[WorkerEvent]
    """Messages of the worker; any thread may post them."""

    @property
    def is_remote(self) -> bool:
        """Whether the worker takes a while to start, and gets weights by ``send`` only."""
        ...

    def open(self) -> None:
        """Start the worker without waiting for it."""
        ...

    def send(self, command: WorkerCommand) -> None:
        """Send a command to the worker without waiting until it arrives."""
        ...

    def kill(self) -> None:
        """End the worker as far as that is possible, whatever it is doing."""
        ...


class Place(Protocol):
    """Makes the links to workers."""

    def check(self, factory: EnvFactory, feed: PolicyFeed) -> None:
        """Refuse an environment factory or a policy that cannot be sent there.

        Raises:
            ConfigError: The message names what cannot be sent, and the way out.
        """
        ...

    def link(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy, feed: PolicyFeed) -> Link:
        """A link to a worker that has not started yet.

        Args:
            assignment: what the worker plays.
            factory: makes its environment.
            policy: a copy of the policy for it.
            feed: newer weights, for workers in this process.
        """
        ...
