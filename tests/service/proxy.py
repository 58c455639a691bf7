"""A TCP proxy that does to connections what networks do: cuts, delays, repeats and late deliveries.

It stands between clients and a server on this machine and takes what it reads at once for one message, which
clients that wait for each answer make true. It runs on an event loop in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Self, cast

_REPLAY_S = 5.0
"""After this a repeated message has no answer: its server was killed."""


class Faults(NamedTuple):
    """How likely each fault is for a message from a client.

    Attributes:
        cut_before: the connection is cut and the message is lost.
        cut_after: the message is delivered, and the connection is cut in place of the answer.
        late: the connection is cut, and the message arrives over another connection after a while, behind
            those that the client sent after it.
        repeat: the message is delivered, and arrives once more over another connection after a while.
        delay: the message waits.
        longest_s: the longest wait of a message that is late, repeated or delayed.
    """

    cut_before: float = 0.0
    cut_after: float = 0.0
    late: float = 0.0
    repeat: float = 0.0
    delay: float = 0.0
    longest_s: float = 0.2

    def often(self, times: float) -> Faults:
        """The same faults, so many times as likely."""
        shares = [times * share for share in self[:-1]]
        return Faults(*shares, self.longest_s)


class Proxy:
    """A context manager; all of its attributes may be read while it runs.

    Attributes:
        port: where clients connect.
        target: the server's port, which may change at any time.
        done: how many messages had each fault, and how many were ``forwarded`` and ``answered``.
    """

    def __init__(self, target: int, faults: Faults, seed: int = 0) -> None:
        self.target = target
        self.faults = faults
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()
        self._wanted = 1 << 62
        self._answers_are_there = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        assert not self._thread.is_alive(), "the proxy's event loop does not stop"
        assert not self._problems, self._problems

    def _run(self) -> None:
        self._problems: list[str] = []
        self._loop.set_exception_handler(lambda _, context: self._problems.append(repr(context)))
        serving = self._loop.create_server(lambda: _FromClient(self), sock=self._socket)
        server = self._loop.run_until_complete(serving)
        self._loop.run_forever()
        server.close()
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            self._loop.run_until_complete(asyncio.wait(self.tasks))
        self._loop.close()

    def wait_for_answers(self, number: int, seconds: float) -> None:
        """Wait until so many messages have been answered since the beginning."""
        self._answers_are_there.clear()
        self._wanted = number
        if self.done["answered"] < number:
            assert self._answers_are_there.wait(seconds), f"not {number} answers: {self.done}"

    def count_answer(self) -> None:
        self.done["answered"] += 1
        if self.done["answered"] == self._wanted:
            self._answers_are_there.set()

    def draw(self) -> str:
        """A message's fault, or nothing."""
        drawn = self.random.random()
        for name, share in zip(Faults._fields[:-1], self.faults[:-1], strict=True):
            if drawn < share:
                return name
            drawn -= share
        return ""

    def start(self, work: asyncio.Task[None]) -> None:
        """Keep a task until its end."""
        self.tasks.add(work)
        work.add_done_callback(self.tasks.discard)

    async def deliver_later(self, messages: Sequence[bytes]) -> None:
        """Send each message over a new connection, once that before it was answered; drop the answers."""
        await asyncio.sleep(self.random.uniform(0.0, self.faults.longest_s))
        with contextlib.suppress(OSError, TimeoutError):  # the server is down: so is what was under way to it
            async with asyncio.timeout(_REPLAY_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
                try:
                    for message in messages:
                        writer.write(message)
                        if not await reader.read(1 << 16):
                            break
                finally:
                    writer.transport.abort()


class _FromClient(asyncio.Protocol):
    """A client's connection, and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._server: asyncio.Transport | None = None
        self._opening: list[bytes] = []  # a WebSocket's handshake and greeting: a repetition begins with them
        self.waits_for_cut = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.pause_reading()
        self._proxy.start(asyncio.get_running_loop().create_task(self._connect()))

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            made = await loop.create_connection(lambda: _FromServer(self), "127.0.0.1", self._proxy.target)
        except OSError:
            self.transport.abort()
            return
        self._server = made[0]
        if self.transport.is_closing():
            self._server.abort()
        else:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        proxy = self._proxy
        if data.startswith(b"GET /v1/stream") or len(self._opening) == 1:
            self._opening.append(data)
            self._forward(data)
            return
        fault = proxy.draw()
        if not fault:
            self._forward(data)
            return
        proxy.done[fault] += 1
        if fault == "delay":
            self.transport.pause_reading()
            wait_s = proxy.random.uniform(0.0, proxy.faults.longest_s)
            asyncio.get_running_loop().call_later(wait_s, self._end_delay, data)
            return
        if fault in ("repeat", "late"):
            messages = [*self._opening, data]
            proxy.start(asyncio.get_running_loop().create_task(proxy.deliver_later(messages)))
        if fault in ("late", "cut_before"):
            self.cut()
            return
        self.waits_for_cut = fault == "cut_after"
        self._forward(data)

    def _end_delay(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self._forward(data)
            self.transport.resume_reading()

    def _forward(self, data: bytes) -> None:
        if self._server is not None:
            self._proxy.done["forwarded"] += 1
            self._server.write(data)

    def answer(self, data: bytes) -> None:
        """Give the client what the server sent, or cut the connection in its place."""
        if self.waits_for_cut:
            self.cut()
            return
        self._proxy.count_answer()
        self.transport.write(data)

    def cut(self) -> None:
        """End both connections at once, as a reset does."""
        for transport in (self._server, self.transport):
            if transport is not None:
                transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        del error
        if self._server is not None:
            self._server.abort()

    def pause_writing(self) -> None:
        if self._server is not None:
            self._server.pause_reading()

    def resume_writing(self) -> None:
        if self._server is not None:
            self._server.resume_reading()


class _FromServer(asyncio.Protocol):
    """The server's side of a client's connection."""

    def __init__(self, client: _FromClient) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.answer(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._client.transport.close() if error is None else self._client.transport.abort()

    def pause_writing(self) -> None:
        self._client.transport.pause_reading()

    def resume_writing(self) -> None:
        self._client.transport.resume_reading()
