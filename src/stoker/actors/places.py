"""Where actors play: a ``Place`` makes a ``Link`` to a worker for each actor; threads and processes are two.

A user's own place (machines behind a socket, a cluster) implements both protocols with the names that
``stoker.actors`` exports, and is given to ``run_actors(place=...)``. At the far end runs a ``Worker``;
commands and messages go between the two, as bytes if need be.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Protocol, runtime_checkable

import anyio

import stoker.actors.messages as messages
from stoker.actors.episodes import EnvFactory
from stoker.actors.messages import Mailbox, WorkerCommand, WorkerEvent
from stoker.actors.processes import Processes
from stoker.actors.worker import Assignment, OwnPolicy, Worker
from stoker.errors import ConfigError
from stoker.session.workers import WorkerStatus
from stoker.threads import backend_here
from stoker.types import PlaceName

_logger = logging.getLogger("stoker.actors")


class Link(Protocol):
    """The connection to one worker. Used on the event loop, and opened once.

    ``messages`` gets the messages of the worker in order and, last, ``WorkerExited``, whatever ended the
    worker, ``kill`` included. A link that does not post it leaves its actor silent. ``send`` and ``kill`` may
    be called before the worker has started, even if ``open`` was never called.
    """

    messages: Mailbox[WorkerEvent]
    """Messages of the worker; any thread may post them."""

    def open(self) -> None:
        """Start the worker without waiting for it."""
        ...

    def send(self, command: WorkerCommand) -> None:
        """Send a command to the worker without waiting until it arrives."""
        ...

    def kill(self) -> None:
        """End the worker at once, as far as that is possible."""
        ...


class Place(Protocol):
    """Makes the links to workers."""

    def check(self, factory: EnvFactory, policy: OwnPolicy) -> None:
        """Refuse an environment factory or a policy that cannot be sent there.

        Raises:
            ConfigError: The message names what cannot be sent, and the way out.
        """
        ...

    def link(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy) -> Link:
        """A link to a worker that has not started yet.

        Args:
            assignment: what the worker plays.
            factory: makes its environment.
            policy: a copy of the policy for it.
        """
        ...


@runtime_checkable
class ReportsWorkers(Protocol):
    """What a place implements in addition if its workers are worth looking at."""

    def workers(self) -> tuple[WorkerStatus, ...]:
        """How its workers stand; from any thread."""
        ...


def place_of(place: PlaceName | Place) -> Place | None:
    """The place of that name, or the user's own; None: actors are tasks.

    Raises:
        ConfigError: There is no place of that name.
    """
    if not isinstance(place, str):
        return place
    built_in: dict[str, Place | None] = {"tasks": None, "threads": _Threads(), "processes": Processes()}
    if place == "ray":
        raise ConfigError(
            "place='ray': give the place itself, which says where the cluster is: "
            "place=stoker.distributed.RayPlace('auto'); close it afterwards"
        )
    if place not in built_in:
        choices = ", ".join(built_in)
        raise ConfigError(f"place={place!r}: choose one of {choices}, or give a Place of your own")
    return built_in[place]


def n_workers_for(n_actors: int, workers: int | None) -> int:
    """How many workers share that many actors; None: as many as can, up to one for each processor.

    Raises:
        ConfigError: That many workers cannot have equal shares.
    """
    if workers is None:
        most = min(n_actors, os.cpu_count() or 1)
        return next(count for count in range(most, 0, -1) if n_actors % count == 0)
    if type(workers) is not int or workers < 1 or n_actors % workers:
        raise ConfigError(
            f"workers={workers!r} cannot have equal shares of {n_actors} actors: give a divisor of that"
        )
    return workers


# Threads --------------------------------------------------------------------------------------------


class _Threads:
    """A thread for each actor."""

    def check(self, factory: EnvFactory, policy: OwnPolicy) -> None:
        """Everything can be used from a thread."""

    def link(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy) -> Link:
        return _ThreadLink(assignment, factory, policy)


class _ThreadLink:
    """A worker on its own daemonic thread, with its own event loop for environments that are awaited."""

    def __init__(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy) -> None:
        self.messages: Mailbox[WorkerEvent] = Mailbox()
        self._commands: Mailbox[WorkerCommand] = Mailbox()
        self._name = f"stoker-actor-{assignment.actor_id}"
        self._worker = Worker(assignment, factory, policy, self._commands, self.messages.post)

    def open(self) -> None:
        threading.Thread(target=self._run, args=(backend_here(),), name=self._name, daemon=True).start()

    def send(self, command: WorkerCommand) -> None:
        self._commands.post(command)

    def kill(self) -> None:
        """Leave the thread behind: it cannot be ended, and closes its environment if that ever returns."""
        _logger.warning("%s: its environment did not return; the thread is left behind", self._name)
        self.messages.post(messages.WorkerExited(why="its thread was left behind"))

    def _run(self, backend: str) -> None:
        why = ""
        try:
            anyio.run(self._worker.run, backend=backend)
        except BaseException as error:
            why = f"its thread has ended ({type(error).__name__}: {error})"
            _logger.exception("%s: %s", self._name, why)
        finally:
            self.messages.post(messages.WorkerExited(why=why))
