"""A worker on its own thread, from the construction of its environment to the closing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import anyio

from stoker.actors.copies import OwnPolicy, PolicyFeed
from stoker.actors.episodes import EnvFactory
from stoker.actors.mailbox import Mailbox
from stoker.actors.messages import WorkerCommand, WorkerEvent, WorkerExited
from stoker.actors.worker import Assignment, Worker

__all__ = ["ThreadLink"]

logger = logging.getLogger("stoker.actors")


class ThreadLink:
    """A thread, daemonic, with an event loop of its own for environments that are awaited.

    Args:
        assignment: what is to be played.
        factory: makes the environment.
        policy: the worker's own copy.
        feed: where it gets newer weights from.
        backend: the kind of event loop, by anyio's name.
    """

    is_remote = False

    def __init__(
        self,
        assignment: Assignment,
        factory: EnvFactory,
        policy: OwnPolicy,
        feed: PolicyFeed,
        backend: str,
    ) -> None:
        self.messages: Mailbox[WorkerEvent] = Mailbox()
        self._commands: Mailbox[WorkerCommand] = Mailbox()
        self._name = f"stoker-actor-{assignment.actor_id}"
        self._backend = backend
        self._make: Callable[[], Worker] = lambda: Worker(
            assignment, factory, policy, self._commands, self.messages.post, feed.newer
        )

    def open(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._serve, name=self._name, daemon=True).start()

    def send(self, command: WorkerCommand) -> None:
        """Tell the worker something."""
        self._commands.post(command)

    def kill(self) -> None:
        """A thread cannot be ended: it is left behind, and closes its environment should it come back."""
        logger.warning("%s: its environment has not come back; the thread is left behind", self._name)

    def _serve(self) -> None:
        why = ""
        try:
            anyio.run(self._make().run, backend=self._backend)
        except BaseException as error:
            why = f"its thread has ended ({type(error).__name__}: {error})"
            logger.exception("%s: %s", self._name, why)
        self.messages.post(WorkerExited(why=why))
