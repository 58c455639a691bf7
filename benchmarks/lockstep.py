"""Clients that wait for each answer, written so that they cost little beside any server.

A dialect knows the bytes of one connection: what opens it, the next message, and whether an answer is whole.
``Lockstep`` drives one connection with blocking reads and many with ``epoll``.
"""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import statistics
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

ANSWER_S = 30.0
EPISODE_STEPS = 200
_VALUES = np.random.default_rng(0).standard_normal((256, 4), np.float32) * np.float32(0.05)
OBSERVATIONS = [msgspec.json.encode(row.tolist()) for row in _VALUES.astype(float).round(8)]
"""As a game would write them."""
_names = itertools.count()


class Outcome(NamedTuple):
    """What a measurement gave: environment steps per second, and round trips in microseconds."""

    steps_per_s: float
    p50_us: float
    p99_us: float


class Dialect(ABC):
    """One connection, seen from the client.

    Attributes:
        steps_each: environment steps in a message.
    """

    steps_each = 1

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), ANSWER_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.open()

    @abstractmethod
    def open(self) -> None:
        """Do what comes before the first message."""

    @abstractmethod
    def message(self) -> bytes:
        """The next message."""

    @abstractmethod
    def take(self, answer: bytes) -> None:
        """Look at an answer as far as the next message needs it."""

    @abstractmethod
    def part(self, data: bytes) -> tuple[int, int] | None:
        """Where the first answer in the data is, or None if it is not all there."""

    def feed(self, data: bytes) -> bool:
        """Take in bytes; whether an answer is whole. At most one is in flight."""
        if self._buffer:
            data = self._buffer + data
        found = self.part(data)
        if found is None:
            self._buffer = data
            return False
        begin, end = found
        self._buffer = data[end:]
        self.take(data[begin:end])
        return True

    def ask(self, message: bytes) -> None:
        """Send a message and wait for its answer."""
        self.socket.sendall(message)
        while not self.feed(self.read()):
            pass

    def read(self) -> bytes:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data

    def close(self) -> None:
        self.socket.close()


# WebSockets ---------------------------------------------------------------------------------------------


def frame(data: bytes, opcode: int = 1) -> bytes:
    """A client's frame; its mask is zero, which leaves the data as they are."""
    size = len(data)
    if size < 126:
        return struct.pack("!BBI", 0x80 | opcode, 0x80 | size, 0) + data
    if size < 1 << 16:
        return struct.pack("!BBHI", 0x80 | opcode, 0x80 | 126, size, 0) + data
    return struct.pack("!BBQI", 0x80 | opcode, 0x80 | 127, size, 0) + data


class WebSocketDialect(Dialect):
    """Text frames of a server that does not fragment them."""

    path = "/ws"
    subprotocol = ""
    headers: tuple[str, ...] = ()

    def open(self) -> None:
        lines = [
            f"GET {self.path} HTTP/1.1", "host: 127.0.0.1", "upgrade: websocket", "connection: upgrade",
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version: 13", *self.headers,
        ]  # fmt: skip
        if self.subprotocol:
            lines.append(f"sec-websocket-protocol: {self.subprotocol}")
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.read()
        if not answer.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(answer.decode(errors="replace"))
        self._buffer = answer.partition(b"\r\n\r\n")[2]

    def part(self, data: bytes) -> tuple[int, int] | None:
        if len(data) < 2:
            return None
        if data[0] not in (0x81, 0x82):
            raise ConnectionError(f"a frame of another kind: {data[:200]!r}")
        size, begin = data[1], 2
        if size == 126:
            size, begin = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, begin = int.from_bytes(data[2:10], "big"), 10
        return (begin, begin + size) if len(data) >= begin + size else None


class _One(msgspec.Struct):
    next: int
    action: Any = None
    memo: str | None = None


class _Answer(msgspec.Struct):
    actors: dict[str, _One] | None = None
    error: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Steps:
    """The records of some actors of a stoker server: what both of its transports send."""

    def __init__(self, n_actors: int, ack: str = "accepted") -> None:
        self._names = [f"bench-{next(_names)}" for _ in range(n_actors)]
        self._seq = 0
        self._heads = [b'{"actor":"%s","seq":' % name.encode() for name in self._names]
        self._moves = [b""] * n_actors
        self._end = b'],"ack":"%s"}' % ack.encode()

    def body(self) -> bytes:
        self._seq = seq = self._seq + 1
        step = (seq - 1) % (EPISODE_STEPS + 1)
        records = []
        for i, head in enumerate(self._heads):
            seen = OBSERVATIONS[(seq + i) & 255]
            if step == 0:
                records.append(b'%s%d,"start":true,"observation":%s}' % (head, seq, seen))
            elif step == EPISODE_STEPS:
                moved = self._moves[i]
                records.append(
                    b'%s%d,%s,"reward":1.0,"truncated":true,"observation":%s}' % (head, seq, moved, seen)
                )
            else:
                records.append(b'%s%d,%s,"reward":1.0,"observation":%s}' % (head, seq, self._moves[i], seen))
        return b'{"steps":[' + b",".join(records) + self._end

    def take(self, answer: bytes) -> None:
        decoded = _decode(answer)
        actors = decoded.actors
        if decoded.error is not None or actors is None:
            raise ConnectionError(f"refused: {answer.decode()}")
        moves = []
        for name in self._names:
            one = actors[name]
            assert one.next == self._seq + 1
            moves.append(b'"action":%s,"memo":"%s"' % (str(one.action).encode(), (one.memo or "").encode()))
        self._moves = moves


class WebSocketSteps(WebSocketDialect):
    """``/v1/stream`` of a stoker server."""

    path = "/v1/stream"
    subprotocol = "stoker.v1"

    def __init__(self, port: int, n_actors: int = 1, ack: str = "accepted") -> None:
        self._steps = Steps(n_actors, ack)
        self.steps_each = n_actors
        super().__init__(port)

    def open(self) -> None:
        super().open()
        self.welcome = b""
        self.ask(frame(b'{"hello":{}}'))

    def message(self) -> bytes:
        return frame(self._steps.body())

    def take(self, answer: bytes) -> None:
        if self.welcome:
            self._steps.take(answer)
        elif b'"error"' in answer:
            raise ConnectionError(answer.decode())
        else:
            self.welcome = answer


class Pings(WebSocketSteps):
    """A connection of which nothing is wanted but to know how long the server's event loop lets it wait."""

    def message(self) -> bytes:
        return frame(b'{"ping":1}')

    def take(self, answer: bytes) -> None:
        if self.welcome:
            assert b"pong" in answer, answer
        else:
            super().take(answer)


class OpenEnv(WebSocketDialect):
    """A session of an OpenEnv server."""

    def open(self) -> None:
        super().open()
        self.ask(frame(b'{"type":"reset","data":{}}'))

    def message(self) -> bytes:
        return frame(b'{"type":"step","data":{"move":1}}')

    def take(self, answer: bytes) -> None:
        assert msgspec.json.decode(answer)["type"] == "observation", answer


# HTTP and plain TCP -------------------------------------------------------------------------------------


class HTTPDialect(Dialect):
    """Answers with a length, over a connection that stays."""

    def open(self) -> None:
        pass

    def part(self, data: bytes) -> tuple[int, int] | None:
        head = data.find(b"\r\n\r\n")
        if head < 0:
            return None
        if not data.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(data.decode(errors="replace"))
        at = data.lower().find(b"content-length:", 0, head) + 15
        end = head + 4 + int(data[at : data.find(b"\r\n", at)])
        return (head + 4, end) if len(data) >= end else None

    def request(self, path: bytes, body: bytes) -> bytes:
        return (
            b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (path, len(body), body)
        )


class HTTPSteps(HTTPDialect):
    """``/v1/step`` of a stoker server."""

    def __init__(self, port: int, n_actors: int = 1, ack: str = "accepted") -> None:
        self._steps = Steps(n_actors, ack)
        self.steps_each = n_actors
        super().__init__(port)

    def message(self) -> bytes:
        return self.request(b"/v1/step", self._steps.body())

    def take(self, answer: bytes) -> None:
        self._steps.take(answer)


class TwoRequests(HTTPDialect):
    """A service of two requests for each step; one message here is both of them, one after the other."""

    def __init__(self, port: int) -> None:
        self._name = b"bench-%d" % next(_names)
        self._n = 0
        self._action = b""
        super().__init__(port)

    def message(self) -> bytes:
        self._n += 1
        return self.request(b"/act", b'{"actor_id":"%s","observation":%s}' % (self._name, self._seen(0)))

    def _seen(self, ahead: int) -> bytes:
        return OBSERVATIONS[(self._n + ahead) & 255]

    def feed(self, data: bytes) -> bool:
        if not super().feed(data):
            return False
        if not self._action:
            return True
        following = (
            b'{"actor_id":"%s","observation":%s,"action":%s,"reward":1.0,"next_observation":%s,"status":"%s"}'
            % (
                self._name, self._seen(0), self._action, self._seen(1),
                b"Continuing" if self._n % EPISODE_STEPS else b"Truncated",
            )
        )  # fmt: skip
        self._action = b""
        self.socket.sendall(self.request(b"/experience", following))
        return False

    def take(self, answer: bytes) -> None:
        decoded = msgspec.json.decode(answer)
        self._action = str(decoded["action"]).encode() if "action" in decoded else b""


class Godot(Dialect):
    """A game of Godot RL Agents that does nothing: it answers its trainer's actions with steps."""

    def __init__(self, port: int, n_agents: int = 1) -> None:
        self.steps_each = n_agents
        self._n = 0
        self._kind = ""
        super().__init__(port)

    def open(self) -> None:
        while self._kind != "action":
            while not self.feed(self._buffered() or self.read()):
                pass
            space = '{"move":{"action_type":"discrete","size":2}}'
            n = self.steps_each
            if self._kind == "env_info":
                info = f'{{"type":"env_info","n_agents":{n},"action_space":[{",".join([space] * n)}]}}'
                self.socket.sendall(self._framed(info.encode()))
            elif self._kind == "reset":
                self.socket.sendall(self._step(b"reset"))

    def _buffered(self) -> bytes:
        data, self._buffer = self._buffer, b""
        return data

    @staticmethod
    def _framed(data: bytes) -> bytes:
        return len(data).to_bytes(4, "little") + data

    def _step(self, kind: bytes) -> bytes:
        self._n = n = self._n + 1
        seen = b",".join([b'{"obs":%s}' % OBSERVATIONS[(n + i) & 255] for i in range(self.steps_each)])
        rewards = b",".join([b"1.0"] * self.steps_each)
        done = b",".join([b"false" if n % EPISODE_STEPS else b"true"] * self.steps_each)
        return self._framed(
            b'{"type":"%s","obs":[%s],"reward":[%s],"done":[%s]}' % (kind, seen, rewards, done)
        )

    def message(self) -> bytes:
        return self._step(b"step")

    def part(self, data: bytes) -> tuple[int, int] | None:
        end = 4 + int.from_bytes(data[:4], "little")
        return (4, end) if len(data) >= max(5, end) else None

    def take(self, answer: bytes) -> None:
        decoded = msgspec.json.decode(answer)
        self._kind = decoded["type"]
        if self._kind == "action":
            assert len(decoded["action"]) == self.steps_each


# Driving them -------------------------------------------------------------------------------------------


def play(
    clients: Sequence[Dialect],
    seconds: float,
    warmup_s: float,
    latency_s: Sequence[Callable[[], float]] = (),
    aside: Callable[[], None] | None = None,
) -> Outcome:
    """Let each client send its next message as soon as it has its answer, or ``latency_s`` after that.

    Args:
        clients: the connections; one alone without a latency is driven by blocking reads.
        seconds: how long to measure.
        warmup_s: how long to play before that.
        latency_s: for each client, how long its environment takes for a step; none: no time.
        aside: called about every millisecond.
    """
    if len(clients) == 1 and not latency_s:
        return _play_one(clients[0], seconds, warmup_s)
    took: list[float] = []
    n_steps = 0
    waiting = [(0.0, i) for i in range(len(clients))]
    sent_at = [0.0] * len(clients)
    by_number = {client.socket.fileno(): i for i, client in enumerate(clients)}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    now = time.perf_counter()
    begins, until, asked_at = now + warmup_s, now + warmup_s + seconds, now
    while now < until or any(sent_at):
        while waiting and waiting[0][0] <= now < until:
            i = heapq.heappop(waiting)[1]
            sent_at[i] = time.perf_counter()
            clients[i].socket.sendall(clients[i].message())
        wait_s = max(0.0, min(waiting[0][0] if waiting else until, until) - now) if now < until else ANSWER_S
        for number, _ in poll.poll(min(wait_s, 1e-3) if aside else wait_s):
            i = by_number[number]
            client = clients[i]
            if not client.feed(client.socket.recv(1 << 16)):
                continue
            now = time.perf_counter()
            if now >= begins and sent_at[i] >= begins:
                took.append(now - sent_at[i])
                if now < until:
                    n_steps += client.steps_each
            sent_at[i] = 0.0
            heapq.heappush(waiting, (now + latency_s[i]() if latency_s else now, i))
        now = time.perf_counter()
        if aside and now - asked_at >= 1e-3:
            aside()
            asked_at = now
    poll.close()
    return _outcome(n_steps / seconds, took)


def _play_one(client: Dialect, seconds: float, warmup_s: float) -> Outcome:
    took: list[float] = []
    now = time.perf_counter()
    begins, until = now + warmup_s, now + warmup_s + seconds
    while now < until:
        before = now
        client.ask(client.message())
        now = time.perf_counter()
        if before >= begins:
            took.append(now - before)
    return _outcome(client.steps_each * len(took) / sum(took), took)


def _outcome(steps_per_s: float, took: list[float]) -> Outcome:
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    return Outcome(steps_per_s, 1e6 * cuts[49], 1e6 * cuts[98])


def ping_times_ms(port: int, n: int, pause_s: float) -> list[float]:
    """Round-trip times of ``n`` pings of one connection, with a pause after each."""
    pings = Pings(port, 0)
    took = []
    for _ in range(n):
        time.sleep(pause_s)
        before = time.perf_counter()
        pings.ask(pings.message())
        took.append(1e3 * (time.perf_counter() - before))
    pings.close()
    return took
