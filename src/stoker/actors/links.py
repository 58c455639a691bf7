"""What is between an actor on the event loop and the worker that plays for it elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from stoker.actors.copies import OwnPolicy
from stoker.actors.mailbox import Mailbox
from stoker.actors.messages import WorkerCommand, WorkerEvent
from stoker.actors.worker import Assignment

__all__ = ["Link", "OpenLink"]


class Link(Protocol):
    """A worker and the way to it. Opened once, from the event loop; ``told`` ends with ``WorkerExited``."""

    messages: Mailbox[WorkerEvent]
    """What it tells."""

    @property
    def is_process(self) -> bool:
        """Whether it takes a while until it is up, and cannot fetch weights by itself."""
        ...

    def open(self) -> None:
        """Set it going."""
        ...

    def send(self, command: WorkerCommand) -> None:
        """Tell it something; never waits."""
        ...

    def kill(self) -> None:
        """End it as far as that is possible, whatever it is doing."""
        ...


OpenLink = Callable[[Assignment, OwnPolicy], Link]
"""Makes a worker that has not begun yet."""
