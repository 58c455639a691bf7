"""The service over a WebSocket: hello, pipelining and credits, fencing, and clients that misbehave."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from servers import ACTIONS, OBSERVATIONS, Service, Stream, first, following, open_stream, served
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from stoker import DQN
from stoker.protocol import Spaces
from stoker.service.auth import Gate
from stoker.service.limits import Limits
from stoker.service.tokens import Principal, Tokens
from stoker.testing import FakeAgent

WAIT_S = 30.0


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    limits = Limits(message_bytes=4096, hello_s=0.3, credit=8, credit_per_actor=4, send_s=0.3)
    with served(limits=limits) as service:
        yield service


def closed_with(service: Service, *messages: Any, **options: Any) -> tuple[int, list[Any]]:
    """The code with which the service closes after these messages, and what it answered before."""
    url = service.url.replace("http", "ws", 1) + "/v1/stream"
    answers: list[Any] = []
    with connect(url, compression=None, **options) as stream:
        with contextlib.suppress(ConnectionClosed):  # it does not wait for the last of them
            for message in messages:
                stream.send(message if isinstance(message, str | bytes) else json.dumps(message))
        with pytest.raises(ConnectionClosed):
            while True:
                answers.append(json.loads(stream.recv(timeout=WAIT_S)))
        assert stream.close_code is not None
        return stream.close_code, answers


HELLO: dict[str, Any] = {"hello": {}}


def test_records_are_answered_with_their_id_in_the_format_they_came_in(service: Service) -> None:
    with open_stream(service) as stream:
        assert stream.welcome["welcome"]["credit"] == 8
        assert stream.welcome["welcome"]["spec"]["training"] == "running"
        answer = stream.steps(first("talks"), id="one")
        assert (answer["id"], answer["actors"]["talks"]["next"]) == ("one", 2)
        assert stream.ask({"ping": -3}) == {"pong": -3}
        stream.send(msgspec.msgpack.encode({"steps": [following(2, "talks")], "id": 2}))
        packed = stream.socket.recv(timeout=WAIT_S)
        assert isinstance(packed, bytes)
        assert msgspec.msgpack.decode(packed)["actors"]["talks"]["next"] == 3


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("{", "malformed"),
        ("[" * 1000, "too-deep"),
        (b"\xc1", "malformed"),
        ({"steps": [first("errs", surprise=1)]}, "invalid"),
        ({"steps": [first("errs", 9)], "id": 4}, "gap"),
        ({"hello": {}}, "invalid"),
        ({"ping": 1, "steps": [first("errs")]}, "invalid"),
    ],
)
def test_a_refused_message_is_an_error_and_the_stream_goes_on(
    service: Service, message: Any, kind: str
) -> None:
    with open_stream(service) as stream:
        answer = stream.socket
        stream.send(message)
        received = answer.recv(timeout=WAIT_S)
        decode = json.loads if isinstance(received, str) else msgspec.msgpack.decode
        error = decode(received)["error"]
        assert error["type"] == f"urn:stoker:problem:{kind}"
        assert error.get("id") == (message.get("id") if isinstance(message, dict) else None)
        assert stream.ask({"ping": 1}) == {"pong": 1}
    assert service.get("/v1/actors/errs").status_code == 404


@pytest.mark.parametrize(
    ("messages", "code", "kind"),
    [
        ([{"steps": [first()]}], 4400, "bad-hello"),
        (["nonsense"], 4400, "bad-hello"),
        ([{"hello": {"protocol": "stoker.v2"}}], 4400, "bad-hello"),
        ([], 4408, "hello-timeout"),
        ([{"hello": {"spaces_digest": "sha256:other"}}], 4422, "spaces-differ"),
    ],
)
def test_a_client_that_does_not_say_hello_is_closed(
    service: Service, messages: list[Any], code: int, kind: str
) -> None:
    found, answers = closed_with(service, *messages)
    assert found == code
    assert answers[-1]["error"]["type"] == f"urn:stoker:problem:{kind}"


def test_spaces_that_differ_are_refused_with_the_path(service: Service) -> None:
    spaces = msgspec.to_builtins(Spaces.of(OBSERVATIONS, ACTIONS))
    with open_stream(service, {"spaces": spaces}) as stream:
        assert "welcome" in stream.welcome
    spaces["action"]["n"] = 4
    code, [answer] = closed_with(service, {"hello": {"spaces": spaces}})
    assert (code, answer["error"]["path"]) == (4422, "hello.spaces.action.n")


def test_a_message_that_is_too_large_closes(service: Service) -> None:
    assert closed_with(service, HELLO, " " * 5000)[0] == 1009


def test_other_paths_and_foreign_pages_are_no_streams(service: Service) -> None:
    url = service.url.replace("http", "ws", 1)
    for path, origin, status in (("/v1/else", None, 404), ("/v1/stream", "https://evil.example", 403)):
        with pytest.raises(InvalidStatus) as refused, connect(url + path, origin=origin):
            pass
        assert refused.value.response.status_code == status


# Waiting ------------------------------------------------------------------------------------------


class StuckAgent(FakeAgent):
    """Learns when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.is_stuck, self.may_learn = threading.Event(), threading.Event()

    def observe(self, experiences: Any) -> None:
        self.is_stuck.set()
        self.may_learn.wait(WAIT_S)
        super().observe(experiences)


@contextmanager
def stuck(**limits: Any) -> Iterator[tuple[Service, StuckAgent]]:
    """A service whose queue is full."""
    agent = StuckAgent()
    with served(lambda: agent, limits=Limits(max_wait_s=WAIT_S, **limits), queue_capacity=2) as service:
        try:
            yield service, agent
        finally:
            agent.may_learn.set()


def test_a_message_that_waits_holds_up_neither_pings_nor_its_credit_bound() -> None:
    with stuck(credit=50) as (service, agent), open_stream(service) as stream:
        unanswered = {begin_waiting(stream, agent), *range(100, 120)}
        pongs: list[int] = []
        for seq in range(100, 120):  # more than the queue takes
            stream.send({"steps": [first(f"n{seq}")], "id": seq})
            stream.send({"ping": seq})
        while len(pongs) < 20:
            answer = stream.receive()
            if "pong" in answer:
                pongs.append(answer["pong"])
            else:
                unanswered.remove(answer["id"])
        assert pongs == list(range(100, 120))
        assert unanswered
        agent.may_learn.set()
        while unanswered:
            unanswered.remove(stream.receive()["id"])


def begin_waiting(stream: Stream, agent: StuckAgent) -> int:
    """Let the learner be stuck, and send steps of one actor until one is not answered at once."""
    stream.steps(first("w"))
    stream.steps(following(2, "w"))
    assert agent.is_stuck.wait(WAIT_S)
    for seq in range(3, 100):
        stream.send({"steps": [following(seq, "w")], "id": seq})
        stream.send({"ping": seq})
        answer = stream.receive()
        if "pong" in answer:  # which has overtaken the steps
            return seq
        stream.receive()
    raise AssertionError("the queue takes anything")


def test_an_actor_beyond_its_credit_is_closed_and_its_records_are_taken_once() -> None:
    with stuck(credit=50, credit_per_actor=3) as (service, agent):
        with open_stream(service) as stream:
            begun = begin_waiting(stream, agent)
            with contextlib.suppress(ConnectionClosed):  # it may be closed before the last of them
                for seq in range(begun + 1, begun + 50):  # more than the queue takes
                    stream.send({"steps": [following(seq, "w")], "id": seq})
            with pytest.raises(ConnectionClosed):
                while True:
                    last = stream.receive()
            assert last["error"]["type"] == "urn:stoker:problem:credit-exceeded"
            assert stream.socket.close_code == 4429
        agent.may_learn.set()
        with open_stream(service) as stream:
            went_on = stream.steps(*(following(seq, "w") for seq in range(begun, begun + 50)))
            assert went_on["actors"]["w"]["next"] == begun + 50
        assert service.hosted.session.accepted_steps == begun + 48


def test_messages_of_one_actor_keep_their_order_while_they_wait() -> None:
    with stuck(credit=50, credit_per_actor=10) as (service, agent), open_stream(service) as stream:
        begun = begin_waiting(stream, agent)
        for seq in range(begun + 1, begun + 6):
            stream.send({"steps": [following(seq, "w")], "id": seq})
        agent.may_learn.set()
        answers = [stream.receive() for _ in range(6)]
        assert [answer["actors"]["w"]["next"] for answer in answers] == list(range(begun + 1, begun + 7))


# Holding and fencing ------------------------------------------------------------------------------


def test_a_client_that_takes_an_actor_over_fences_the_one_before(service: Service) -> None:
    with open_stream(service) as old:
        old.steps(first("held"))
        with open_stream(service) as other:
            refused = other.steps(following(2, "held"))
            assert refused["error"]["type"] == "urn:stoker:problem:held"
        with open_stream(service, {"take_over": ["held"]}) as new:
            assert new.welcome["welcome"]["actors"]["held"]["next"] == 2
            with pytest.raises(ConnectionClosed):
                while True:
                    last = old.receive()
            assert last["error"]["type"] == "urn:stoker:problem:fenced"
            assert old.socket.close_code == 4409
            assert new.steps(following(2, "held"))["actors"]["held"]["next"] == 3


def test_an_actor_is_free_once_its_connection_is_gone(service: Service) -> None:
    with open_stream(service) as stream:
        stream.steps(first("freed"))
    with open_stream(service) as stream:
        answer = stream.steps(following(2, "freed"))
        while "error" in answer:  # the server has not seen the close yet
            answer = stream.steps(following(2, "freed"))
        assert answer["actors"]["freed"]["next"] == 3


# Clients that misbehave ---------------------------------------------------------------------------


def handshake(service: Service) -> socket.socket:
    """A WebSocket whose bytes the test reads and writes itself."""
    client = socket.create_connection(("127.0.0.1", service.port), WAIT_S)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(
        b"GET /v1/stream HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert b" 101 " in client.recv(4096)
    return client


def frame(text: str) -> bytes:
    """A masked frame of text, with a mask of zeros."""
    data = text.encode()
    length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
    return b"\x81" + length + b"\0\0\0\0" + data


def test_a_client_that_never_reads_is_closed_and_the_memory_stays(service: Service) -> None:
    with handshake(service) as client:
        client.sendall(frame('{"hello":{}}'))
        wrong = frame("{") * 100
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
            while True:
                client.sendall(wrong)
    while service.hosted.connections:  # it is gone
        pass
    assert service.get("/readyz").status_code == 200


def test_a_client_that_is_gone_in_mid_message_takes_nothing_with_it(service: Service) -> None:
    with handshake(service) as client:
        client.sendall(frame('{"hello":{}}') + frame(json.dumps({"steps": [first("torn")]}))[:-3])
    with open_stream(service) as stream:
        assert stream.ask({"ping": 1}) == {"pong": 1}
    assert service.get("/v1/actors/torn").status_code == 404


def test_connections_are_bounded() -> None:
    with served(limits=Limits(connections=1)) as service, open_stream(service) as stream:
        code, [answer] = closed_with(service)
        assert (code, answer["error"]["type"]) == (4429, "urn:stoker:problem:too-many-connections")
        assert stream.ask({"ping": 1}) == {"pong": 1}


def test_a_silent_connection_is_closed_and_one_that_pings_is_not() -> None:
    with (
        served(limits=Limits(idle_s=0.4)) as service,
        open_stream(service) as silent,
        open_stream(service) as pinging,
    ):
        while len(service.hosted.connections) == 2:
            assert pinging.ask({"ping": 1}) == {"pong": 1}
        with pytest.raises(ConnectionClosed):
            silent.receive()
        assert silent.socket.close_code == 1001
        assert pinging.ask({"ping": 2}) == {"pong": 2}


def test_the_end_of_the_service_closes_streams() -> None:
    with served() as service, open_stream(service) as stream:
        stream.steps(first())
        service.server.end()
        with pytest.raises(ConnectionClosed):
            stream.receive()
        assert stream.socket.close_code == 1012
    assert service.hosted.failure is None


# Tokens and spaces --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[Service]:
    sha256 = hashlib.sha256(b"secret").hexdigest()
    tokens = Tokens([Principal(name="game", sha256=sha256, scopes=("act", "observe"), actors="npc-")])
    with served(gate=Gate(tokens), limits=Limits(hello_s=0.3)) as service:
        yield service


def test_a_token_comes_by_header_by_subprotocol_or_in_the_hello(guarded: Service) -> None:
    encoded = base64.urlsafe_b64encode(b"secret").rstrip(b"=").decode()
    ways: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"additional_headers": {"Authorization": "Bearer secret"}}),
        ({}, {"subprotocols": ["stoker.v1", f"token.{encoded}"]}),
        ({"token": "secret"}, {}),
    ]
    for hello, options in ways:
        with open_stream(guarded, hello, **options) as stream:
            assert "welcome" in stream.welcome
            assert stream.socket.subprotocol == ("stoker.v1" if "subprotocols" in options else None)


@pytest.mark.parametrize(
    ("messages", "options"),
    [
        ([HELLO], {}),
        ([{"hello": {"token": "wrong"}}], {}),
        ([HELLO], {"additional_headers": {"Authorization": "Bearer wrong"}}),
        ([HELLO], {"subprotocols": ["stoker.v1", "token.c2VjcmV"]}),
        ([], {}),
    ],
)
def test_without_a_token_the_stream_is_closed(
    guarded: Service, messages: list[Any], options: dict[str, Any]
) -> None:
    code, answers = closed_with(guarded, *messages, **options)
    assert (code, answers[-1]["error"]["type"]) == (4401, "urn:stoker:problem:unauthenticated")


def test_a_token_is_for_its_actors(guarded: Service) -> None:
    with open_stream(guarded, {"token": "secret"}) as stream:
        assert stream.steps(first("boss"))["error"]["type"] == "urn:stoker:problem:forbidden"
        assert stream.steps(first("npc-1"))["actors"]["npc-1"]["next"] == 2


def test_spaces_that_the_agent_cannot_play_are_refused_and_the_next_client_may_say_others() -> None:
    def dqn(*spaces: Any) -> DQN:
        return DQN(*spaces, seed=0)

    box = {"type": "box", "shape": [2], "names": ["x", "y"]}
    two = {"type": "discrete", "n": 2}
    with served(dqn, from_client=True) as service:
        for spaces, path in (
            ({"observation": box, "action": box}, "hello.spaces"),
            ({"observation": {**box, "low": [0]}, "action": two}, "hello.spaces.observation.low"),
            ({"observation": {**box, "names": []}, "action": two}, "hello.spaces.observation.names"),
        ):
            with connect(service.url.replace("http", "ws", 1) + "/v1/stream") as socket:
                socket.send(json.dumps({"hello": {"spaces": spaces}}))
                problem = json.loads(socket.recv(timeout=WAIT_S))["error"]
                assert (problem["status"], problem["path"]) == (422, path)
        with open_stream(service, {"spaces": {"observation": box, "action": two}}) as stream:
            assert stream.steps(first())["actors"]["a"]["next"] == 2
        assert service.get("/v1/spec").json()["spaces"]["observation"]["names"] == ["x", "y"]


def test_the_first_client_says_the_spaces_and_the_others_must_have_them() -> None:
    spaces = msgspec.to_builtins(Spaces.of(OBSERVATIONS, ACTIONS))
    with served(lambda *_: FakeAgent(), from_client=True) as service:
        assert service.post({"steps": [first()]}).json()["type"] == "urn:stoker:problem:not-ready"
        assert closed_with(service, HELLO)[0] == 4503
        bad = {"hello": {"spaces": {**spaces, "action": {"type": "discrete", "n": 0}}}}
        assert closed_with(service, bad)[0] == 4400
        with open_stream(service, {"spaces": spaces}) as stream:
            assert stream.steps(first())["actors"]["a"]["next"] == 2
        other = {"hello": {"spaces": {**spaces, "action": {"type": "discrete", "n": 9}}}}
        assert closed_with(service, other)[0] == 4422
        assert "spaces-from-client" in service.get("/v1/spec").json()["features"]
