"""Hostile clients get 4xx or a close code, cost bounded memory, and disturb nobody.

A server of its own process takes whatever ``hostile`` draws, over HTTP and over WebSockets, while an honest
actor plays. The short form runs with all the tests; the long one is marked ``faults``, with what schemathesis
makes of the service's own document. STOKER_FAULTS_MESSAGES sizes it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from hostile import (
    HANDSHAKE,
    HELLO,
    HTTPClient,
    Request,
    Stream,
    StreamClient,
    frame,
    http_requests,
    opened,
    streams,
)
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.errors import Unsatisfiable
from lives import Server
from websockets.sync.client import connect

MESSAGES = int(os.environ.get("STOKER_FAULTS_MESSAGES", "100000"))
FLAGS = ["--agent", "dqn", "--hidden-sizes", "16", "16", "--opt-interval", "64"]
MOST_GROWTH = 64 << 20
EXPECTED_CLOSES = {1000, 1002, 1003, 1005, 1006, 1007, 1009}
"""Besides those from 4000 on: of broken frames, of data that are no text, of messages that are too large."""

told: Counter[int] = Counter()
"""How messages were answered: statuses, and close codes."""


class Witness:
    """An honest actor that plays on one connection all the time, and looks at each answer."""

    def __init__(self, port: int) -> None:
        self.n_steps = 0
        self.has_begun = threading.Event()
        self._url = f"ws://127.0.0.1:{port}/v1/stream"
        self._problem: BaseException | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(60.0)
        assert not self._thread.is_alive(), "the honest actor waits for an answer"
        if self._problem is not None:
            raise AssertionError(
                f"the honest actor was disturbed behind {self.n_steps} steps"
            ) from self._problem
        assert self.n_steps > 0

    def _run(self) -> None:
        try:
            self._play()
        except BaseException as problem:  # noqa: BLE001 - raised in the test's thread
            self._problem = problem

    def _play(self) -> None:
        with connect(self._url, subprotocols=["stoker.v1"], compression=None, ping_interval=None) as server:  # type: ignore[list-item]
            server.send('{"hello":{}}')
            assert "welcome" in json.loads(server.recv(20.0))
            answer: dict[str, Any] = {}
            for seq in itertools.count(1):
                record: dict[str, Any] = {
                    "actor": "witness",
                    "seq": seq,
                    "observation": [seq % 7, 0.5, -0.5, 0],
                }
                if seq % 20 == 1:
                    record["start"] = True
                else:
                    record |= {"action": answer["action"], "memo": answer["memo"], "reward": 1}
                    record["truncated"] = seq % 20 == 0
                server.send(json.dumps({"steps": [record], "id": seq}))
                message = json.loads(server.recv(20.0))
                answer = message["actors"]["witness"]
                assert (message["id"], answer["next"]) == (seq, seq + 1)
                assert (answer["action"] is None) == (seq % 20 == 0)
                self.n_steps = seq
                self.has_begun.set()
                if self._is_over.is_set():
                    return


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def besieged(directory: Path, *known: str) -> Iterator[Server]:
    """A server that must come through with its memory, its honest actor and an empty log of errors.

    Args:
        directory: for its run.
        known: addresses that are asked before: what their answers need once is not counted.
    """
    told.clear()
    with Server(directory, FLAGS) as server:
        with Witness(server.port) as witness:
            assert witness.has_begun.wait(60.0)
            with HTTPClient(server.port) as client:
                for path in ("/v1/spec", *known):
                    assert (
                        client.send(Request(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()))
                        == 200
                    )
            before = resident_bytes(server.pid)
            yield server
            with HTTPClient(server.port) as client:
                assert client.send(Request(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")) == 200
            grown = resident_bytes(server.pid) - before
        server.stop()
        log = server.log.read_text()
    assert "ERROR" not in log, log[-4000:]
    assert "Traceback" not in log, log[-4000:]
    assert grown < MOST_GROWTH, f"the server's memory grew by {grown / 2**20:.0f} MiB"
    print(
        f"\n{told.total():,} hostile messages: {dict(sorted(told.items()))}; the server's memory grew by "
        f"{grown / 2**20:.1f} MiB; an honest actor made {witness.n_steps:,} steps meanwhile"
    )


def look_at(answers: list[int], sent: object) -> None:
    for answer in answers:
        told[answer] += 1
        is_close = answer in EXPECTED_CLOSES or 4000 <= answer < 5000
        assert answer == 0 or 200 <= answer < 300 or 400 <= answer < 500 or is_close, f"{answer} for {sent!r}"


def send_all(server: Server, n_messages: int) -> None:
    """About so many, half of them over each transport."""
    drawn = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}

    @settings(max_examples=n_messages // 20 + 1, **drawn)
    @given(st.lists(http_requests(), min_size=5, max_size=15))
    def over_http(requests: list[Request]) -> None:
        with HTTPClient(server.port) as client:
            for request in requests:
                status = client.send(request)
                assert status or request.is_torn, f"closed without an answer: {request.data!r}"
                look_at([status], request.data)

    @settings(max_examples=n_messages // 14 + 1, **drawn)
    @given(streams())
    def over_websockets(stream: Stream) -> None:
        look_at(StreamClient(server.port).play(stream), stream)

    over_http()
    over_websockets()


def send_giants(server: Server) -> None:
    """What is too large, too deep or too slow, and a client that never reads."""
    with HTTPClient(server.port) as client:
        head = b"POST /v1/step HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/%s\r\n"
        deep = b"[" * 100_000 + b"]" * 100_000
        for kind, body in ((b"json", deep), (b"msgpack", b"\x91" * 100_000 + b"\x01")):
            assert (
                client.send(Request(head % kind + b"content-length: %d\r\n\r\n%s" % (len(body), body))) == 400
            )
        giant = b'{"steps":[' + b" " * 10_000_000 + b"]}"
        assert client.send(Request(head % b"json" + b"content-length: %d\r\n\r\n" % len(giant))) == 413
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        chunked = head % b"json" + b"transfer-encoding: chunked\r\n\r\n" + 160 * chunk
        assert client.send(Request(chunked)) in (413, 0)  # it may be closed while the client still sends
    streamed = StreamClient(server.port).play
    assert streamed(Stream(HELLO, [frame(deep), frame(b"\x91" * 100_000 + b"\x01", 2)], b"")) == [
        200,
        400,
        400,
    ]
    assert streamed(Stream(HELLO, [frame(giant)], b""))[-1] in (1006, 1009)
    told.update([400] * 4 + [413] * 2 + [1009])


def hold_open(server: Server, n: int, stack: contextlib.ExitStack) -> None:
    """Clients that stop in the middle of a head, a body, a handshake and a frame, and stay."""
    torn = [
        b"POST /v1/step HTTP/1.1\r\nhost: ",
        b"POST /v1/step HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000000\r\n\r\n{",
        HANDSHAKE,
    ]
    for data in itertools.islice(itertools.cycle(torn), n):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20.0))
        connection.sendall(data)
    for _ in range(n // 3):
        connection = stack.enter_context(opened(server.port))
        connection.sendall(HELLO + b"\x81\xff\x00\x00\x00\x00\x00\x0f\xff\xff" + b"\x00" * 4 + b" " * 1000)


def never_read(server: Server, hello: bytes, stack: contextlib.ExitStack) -> None:
    """A client that sends until the server takes no more, and reads nothing."""
    connection = stack.enter_context(opened(server.port))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(hello)
    connection.settimeout(0.5)
    pings = frame(b'{"ping":1}') * 1000
    n_sent = 0
    with pytest.raises(TimeoutError):
        while n_sent < 32 << 20:
            n_sent += connection.send(pings)


def test_hostile_messages_are_refused_and_disturb_nobody(tmp_path: Path) -> None:
    with besieged(tmp_path) as server, contextlib.ExitStack() as stack:
        hold_open(server, 30, stack)
        never_read(server, HELLO, stack)
        never_read(server, b"", stack)  # its first ping is no hello: it is sent behind a close
        send_giants(server)
        send_all(server, 100)


@pytest.mark.faults
@pytest.mark.timeout(2 * 3600)
def test_a_hundred_thousand_hostile_messages_disturb_nobody(tmp_path: Path) -> None:
    pytest.importorskip("schemathesis", reason="pip install 'stoker[faults]'")
    exports = [f"/v1/policy?format={form}" for form in ("onnx", "numpy", "pt2")]
    with besieged(tmp_path, *exports) as server, contextlib.ExitStack() as stack:
        hold_open(server, 300, stack)
        for hello in (HELLO, b"") * 2:
            never_read(server, hello, stack)
        send_giants(server)
        from_document(server, MESSAGES // 10)
        while (missing := MESSAGES - told.total()) > 0:  # a stream that is closed early leaves some unsent
            send_all(server, missing)


def from_document(server: Server, n_messages: int) -> None:
    """What schemathesis makes of the service's own document: half of it valid, half of it not."""
    import schemathesis
    from schemathesis import GenerationMode

    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    operations = [each.ok() for each in schema.get_all_operations()]
    each_mode = n_messages // (2 * len(operations)) + 1
    for operation, mode in itertools.product(operations, (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)):
        call_with(operation.as_strategy(generation_mode=mode), each_mode)


def call_with(cases: st.SearchStrategy[Any], n: int) -> None:
    @settings(max_examples=n, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(cases)
    def call(case: Any) -> None:
        if case.path == "/v1/policy":  # a policy that nobody has yet would be waited for, each time
            case.query = {"wait": 0, **(case.query or {})}
            if isinstance(case.query["wait"], int | float):
                case.query["wait"] = min(case.query["wait"], 0.05)
        look_at([case.call(timeout=20.0).status_code], case)

    calling: Callable[[], None] = call
    with contextlib.suppress(Unsatisfiable):  # there is nothing in the request that could be wrong
        calling()
