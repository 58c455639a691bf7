"""A process of the cluster that plays for many actors: each link is a ``Worker`` on a thread of its own.

Ray calls the methods; nothing here knows Ray. Messages of all links are collected into batches, which the
training fetches one at a time, so that a call of Ray carries many steps. The process holds no state that a
training needs: all of it may be lost.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec

import stoker.actors.messages as messages
from stoker.actors.messages import Mailbox, Weights, WorkerCommand, WorkerMessage
from stoker.actors.worker import Assignment, Worker
from stoker.distributed.parcels import Batch, Delivery, Ended, Hello, Opening
from stoker.distributed.played import PlayedSteps, read_total
from stoker.distributed.versions import Versions
from stoker.errors import ConfigError
from stoker.types import Experience, ExperienceBatch

_logger = logging.getLogger("stoker.distributed")

_BATCH_STEPS, _LINK_STEPS = 256, 32
"""A batch with this many steps, or this many for each link, is sent at once: links need their credit back."""

_BATCH_S = 0.04
"""The longest time that a message waits for others."""

_MOST_LINKS = 4096
"""The most links at a time, those that were left behind included."""

_encoder = msgspec.msgpack.Encoder()
_deliveries = msgspec.msgpack.Decoder(Delivery)


class Host:
    """Runs links until they end. ``poll`` and ``deliver`` may be called at the same time, each once.

    Args:
        name: tells this incarnation of the host from all others, also in its node's temporary files.
        search_path: of the training's modules; what exists here is searched, too, after this process's own.
    """

    def __init__(self, name: str, search_path: Sequence[str] = ()) -> None:
        sys.path.extend(entry for entry in search_path if entry not in sys.path and Path(entry).exists())
        self._played = PlayedSteps(name, _MOST_LINKS)
        self._free_slots = list(range(_MOST_LINKS - 1, -1, -1))
        self._links: dict[int, _HostedLink] = {}
        self._weights: Weights | None = None
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._messages: list[tuple[int, bytes]] = []
        self._ended: list[Ended] = []
        self._n_steps = 0
        self._since = 0.0
        self._is_urgent = False
        self._number = 0

    def hello(self) -> bytes:
        """What the training must know of this process: a ``Hello``."""
        from stoker.distributed.nodes import whereabouts

        node_id, node, output_path = whereabouts()
        hello = Hello(Versions.here(), node_id, node, os.getpid(), str(self._played.path), output_path)
        return _encoder.encode(hello)

    def count(self, played_path: str) -> int | None:
        """The steps of another process of this node, which has ended."""
        return read_total(played_path)

    def finish(self) -> int:
        """Delete this process's temporary file; the steps that its environments did."""
        self._played.remove()
        return self._played.total

    # Messages of the links ----------------------------------------------------------------------------

    def poll(self, wait_s: float) -> bytes:
        """The next ``Batch``; an empty one after that time."""
        end = time.monotonic() + wait_s
        with self._filled:
            while (remaining_s := self._remaining_s(end)) > 0.0:
                self._filled.wait(remaining_s)
            batch = Batch(self._number, tuple(self._messages), tuple(self._ended))
            self._messages, self._ended = [], []
            self._n_steps, self._is_urgent = 0, False
            self._number += 1
        return _encoder.encode(batch)

    def _remaining_s(self, end: float) -> float:
        """How long the batch may still wait for more messages."""
        if self._is_full:
            return 0.0
        if self._messages:
            end = min(end, self._since + _BATCH_S)
        return end - time.monotonic()

    @property
    def _is_full(self) -> bool:
        return self._is_urgent or self._n_steps >= min(_BATCH_STEPS, _LINK_STEPS * len(self._links))

    def add(self, link: _HostedLink, message: WorkerMessage) -> None:
        """Add a message to the next batch.

        Raises:
            ConfigError: The message holds a value that cannot be sent.
        """
        n_steps, is_urgent = 0, True
        if isinstance(message, messages.Played):
            n_steps, is_urgent = count_steps(message), message.asks
        try:
            data = messages.encode_message(message)
        except ConfigError as error:
            raise ConfigError(f"actor {link.assignment.actor_id!r}: {error}") from error
        with self._filled:
            if link.is_abandoned:
                return
            link.n_sent += n_steps
            self._messages.append((link.number, data))
            self._n_steps += n_steps
            self._is_urgent |= is_urgent
            if len(self._messages) == 1:
                self._since = time.monotonic()
                self._filled.notify()  # it waits for this message without looking at the clock
            elif self._is_full:
                self._filled.notify()

    def end(self, link: _HostedLink, why: str) -> None:
        """A link's thread is about to end."""
        with self._filled:
            self._free_slots.append(link.slot)
            if not link.is_abandoned:
                self._remove(link, why, 0)

    def _remove(self, link: _HostedLink, why: str, unsent_steps: int) -> None:
        del self._links[link.number]
        self._ended.append(Ended(link.number, why, unsent_steps))
        self._is_urgent = True
        self._filled.notify()

    # Commands of the training -------------------------------------------------------------------------

    def deliver(self, commands: bytes, weights: Any = None) -> None:
        """Carry out a ``Delivery``.

        Args:
            commands: it, as bytes.
            weights: the encoded weights as an array of bytes, uint8 [N]; None: those of an earlier call.
        """
        delivery = _deliveries.decode(commands)
        if weights is not None:
            command = messages.decode_command(bytes(weights))
            self._weights = command if isinstance(command, Weights) else None
        for opening in delivery.opened:
            self._open(opening)
        if self._weights is not None:
            for number in delivery.updated:
                self._send(number, self._weights)
        for number, n_steps in delivery.credits.items():
            self._send(number, messages.Credit(n_steps))
        for number in delivery.stopped:
            self._send(number, messages.Stop())
        for number in delivery.abandoned:
            self._abandon(number)

    def _open(self, opening: Opening) -> None:
        with self._lock:
            link = _HostedLink(self, opening, self._free_slots.pop(), self._played)
            self._links[link.number] = link
        link.start()

    def _send(self, number: int, command: WorkerCommand) -> None:
        if (link := self._links.get(number)) is not None:  # else it has ended
            link.commands.post(command)

    def _abandon(self, number: int) -> None:
        with self._filled:
            if (link := self._links.get(number)) is not None:
                link.is_abandoned = True
                self._remove(link, "its thread was left behind", link.n_played - link.n_sent)


class _HostedLink:
    """One link: a worker, its thread and its commands."""

    def __init__(self, host: Host, opening: Opening, slot: int, played: PlayedSteps) -> None:
        self.number: int = opening.link
        self.assignment: Assignment = opening.assignment
        self.commands: Mailbox[WorkerCommand] = Mailbox()
        self.slot = slot
        self.n_sent = 0
        self.is_abandoned = False
        self._host = host
        self._played = played
        self._played_before = played.of(slot)
        self._backend = opening.backend
        self._load: bytes | None = opening.load

    @property
    def n_played(self) -> int:
        """The steps that its environment did."""
        return self._played.of(self.slot) - self._played_before

    def start(self) -> None:
        """Start the thread."""
        name = f"stoker-actor-{self.assignment.actor_id}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        why = ""
        try:
            anyio.run(self._play, backend=self._backend)
        except BaseException as error:
            why = f"its thread has ended ({type(error).__name__}: {error})"
            _logger.exception("actor %r: %s", self.assignment.actor_id, why)
        self._host.end(self, why)

    async def _play(self) -> None:
        try:
            factory, policy = loaded(self._load or b"")
        except Exception as error:  # noqa: BLE001 - sent to the training
            refusal = ConfigError(
                f"the environment's factory or the policy cannot be unpickled on node {os.uname().nodename} "
                f"({type(error).__name__}: {error}): the modules that they need must be importable there; "
                "install them on each node, or hand them to Ray as its working_dir"
            )
            refusal.__cause__ = error
            self._post(messages.Failed(refusal))
            return
        self._load = None
        worker = Worker(self.assignment, factory, policy, self.commands, self._post, self._count)
        await worker.run()

    def _post(self, message: WorkerMessage) -> None:
        self._host.add(self, message)

    def _count(self, n_steps: int) -> None:
        self._played.add(self.slot, n_steps)


def loaded(load: bytes) -> Any:
    """The factory and the policy that a training pickled for this process."""
    from ray import cloudpickle

    parts: Any = cloudpickle.loads(load)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)  # the links run in parallel instead
    return parts


def count_steps(played: messages.Played) -> int:
    """The environment steps in a message."""
    return sum(
        1 if isinstance(event, Experience) else len(event.actor_ids)
        for event in played.events
        if isinstance(event, Experience | ExperienceBatch)
    )
