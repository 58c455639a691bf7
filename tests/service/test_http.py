"""The service over HTTP: each route, each refusal as a problem, and clients that misbehave."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import numpy as np
import pytest
from servers import Service, first, following, served

from stoker.service.auth import Gate
from stoker.service.limits import Limits
from stoker.service.tokens import Principal, Tokens
from stoker.testing import FakeAgent

WAIT_S = 30.0
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    limits = Limits(message_bytes=4096, body_s=0.3, head_s=0.3, send_s=0.3)
    with served(limits=limits) as service:
        yield service


def raw(service: Service, data: bytes, *, half_closed: bool = False) -> bytes:
    """What the service answers to these bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", service.port), WAIT_S) as client:
        client.sendall(data)
        if half_closed:
            client.shutdown(socket.SHUT_WR)
        parts = []
        while part := client.recv(65536):
            parts.append(part)
        return b"".join(parts)


def test_an_actor_plays_an_episode_and_its_state_can_be_read(service: Service) -> None:
    begun = service.post({"steps": [first("plays")], "id": 7})
    assert begun.status_code == 200
    assert begun.headers["content-type"] == "application/json"
    assert begun.json()["id"] == 7
    assert begun.json()["actors"]["plays"]["next"] == 2
    went_on = service.post({"steps": [following(2, "plays"), following(3, "plays", terminated=True)]})
    assert went_on.json()["actors"]["plays"] == {
        "next": 4, "durable": 0, "action": None, "memo": None, "policy_version": None,
    }  # fmt: skip
    state = service.get("/v1/actors/plays").json()
    assert state["answer"]["next"] == 4
    assert state.get("episode") is None
    assert service.client.delete("/v1/actors/plays").status_code == 204
    gone = service.get("/v1/actors/plays")
    assert (gone.status_code, gone.json()["type"]) == (404, "urn:stoker:problem:unknown-actor")


def test_the_name_of_an_actor_may_have_slashes(service: Service) -> None:
    service.post({"steps": [first("left/arm 1")]})
    path = "/v1/actors/left%2Farm%201"
    assert service.get(path).json()["actor"] == "left/arm 1"
    allowed = service.client.put(path).headers["allow"]
    assert {*allowed.split(", ")} == {"DELETE", "GET", "HEAD"}
    assert service.client.delete(path).status_code == 204
    assert service.get(path).status_code == 404


def test_a_stream_without_a_websocket_says_so(service: Service) -> None:
    assert "connect with a WebSocket" in service.get("/v1/stream").json()["detail"]


def test_messagepack_is_answered_in_messagepack(service: Service) -> None:
    record = first("packed") | {"observation": msgspec.msgpack.Ext(1, array_ext(np.ones(2, np.float32)))}
    body = msgspec.msgpack.encode({"steps": [record]})
    answer = service.post(body, headers={"content-type": "application/msgpack"})
    assert answer.headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(answer.content)["actors"]["packed"]["next"] == 2


def array_ext(array: Any) -> bytes:
    return msgspec.msgpack.encode([array.dtype.name, array.shape, array.tobytes()])


def test_the_spec_says_what_a_client_must_know(service: Service) -> None:
    spec = service.get("/v1/spec").json()
    assert spec["training"] == "running"
    assert spec["spaces"]["action"]["n"] == 3
    assert spec["limits"]["message_bytes"] == 4096
    assert spec["spaces_digest"].startswith("sha256:")


def test_the_documents_are_served(service: Service) -> None:
    for path, key in (
        ("/v1/schema.json", "$defs"),
        ("/openapi.json", "openapi"),
        ("/asyncapi.json", "asyncapi"),
    ):
        assert key in service.get(path).json()


def test_prometheus_reads_what_the_service_counted(service: Service) -> None:
    service.post({"steps": [first("counted")]})
    service.get("/v1/actors/counted")
    text = service.get("/metrics").text
    assert 'stoker_service_requests_total{code="200",route="/v1/actors/{actor}"}' in text
    assert "stoker_env_steps_total" in text
    assert "counted" not in text


def test_probes_answer(service: Service) -> None:
    assert service.get("/healthz").json() == {"status": "ok"}
    assert service.get("/readyz").status_code == 200


NESTED = b'{"steps":[{"actor":"bad","seq":1,"start":true,"observation":%s}]}'
REFUSED = [
    pytest.param(b"{", 400, "malformed", "JSON", id="not JSON"),
    pytest.param(NESTED % (b"[" * 1000), 400, "too-deep", "16", id="nested"),
    pytest.param(NESTED % b"[NaN, 0]", 400, "malformed", "", id="NaN"),
    pytest.param(NESTED % b'["NaN", 0]', 422, "invalid", "steps[0].observation[0]", id="NaN as text"),
    pytest.param(NESTED % b"[1e999, 0]", (400, 422), None, "", id="beyond floats"),
    pytest.param(NESTED % b"[0]", 422, "invalid", "steps[0].observation", id="shape"),
    pytest.param(NESTED % b'[0, "\\ud800"]', (400, 422), None, "", id="lone surrogate"),
    pytest.param(
        b'{"steps":[{"actor":"bad","seq":99999999999999999999,"start":true,"observation":[0,0]}]}',
        (400, 422), None, "", id="beyond 64 bit",
    ),
    pytest.param({"steps": [first("bad", surprise=1)]}, 422, "invalid", "surprise", id="unknown field"),
    pytest.param({"steps": [first("bad", 0)]}, 422, "invalid", "steps[0].seq", id="seq 0"),
    pytest.param({"steps": [first("")]}, 422, "invalid", "steps[0].actor", id="no name"),
    pytest.param({"steps": [first("bad", 3)]}, 409, "gap", "1 is next", id="gap"),
    pytest.param({"steps": [following(1, "bad")]}, 409, "no-episode", "start", id="step before start"),
    pytest.param({"steps": []}, 422, "invalid", "steps", id="no steps"),
    pytest.param({"steps": [first("bad")], "ack": "durable"}, 422, "invalid", "durable", id="durable"),
    pytest.param(b" " * 5000, 413, "too-large", "4,096", id="too large"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "status", "kind", "named"), REFUSED)
def test_bad_input_is_one_problem_and_costs_nobody_anything(
    service: Service, sent: Any, status: Any, kind: str | None, named: str
) -> None:
    actor = "stands"
    state = service.post({"steps": [first(actor)]})
    before = service.get(f"/v1/actors/{actor}").json() if state.status_code == 200 else None
    answer = service.post(sent, headers={"content-type": "application/json"})
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.status_code in (status if isinstance(status, tuple) else (status,)), problem
    assert problem["status"] == answer.status_code
    assert kind is None or problem["type"] == f"urn:stoker:problem:{kind}"
    assert named in json.dumps(problem)
    assert service.get("/v1/actors/bad").status_code == 404
    if before is not None:
        assert service.get(f"/v1/actors/{actor}").json() == before


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "kind"),
    [
        ("GET", "/v2/step", {}, 404, "not-found"),
        ("GET", "/v1/actors/nobody", {}, 404, "unknown-actor"),
        ("DELETE", "/v1/actors/nobody", {}, 404, "unknown-actor"),
        ("GET", "/v1/step", {}, 405, "method-not-allowed"),
        ("POST", "/v1/step", {"content-type": "text/plain"}, 415, "unsupported-media-type"),
        ("POST", "/v1/step", JSON | {"content-encoding": "gzip"}, 415, "unsupported-media-type"),
        ("POST", "/v1/step", JSON | {"content-encoding": "identity"}, 400, "malformed"),
        ("GET", "/v1/spec", {"host": "evil.example"}, 421, "wrong-host"),
        ("GET", "/v1/spec", {"origin": "https://evil.example"}, 403, "wrong-origin"),
        ("GET", "/v1/spec", {"origin": "null"}, 403, "wrong-origin"),
    ],
)
def test_a_request_that_cannot_be_is_a_problem(
    service: Service, method: str, path: str, headers: dict[str, str], status: int, kind: str
) -> None:
    answer = service.client.request(method, path, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:stoker:problem:{kind}")


def test_a_page_of_this_machine_may_come_and_read_the_answer(service: Service) -> None:
    page = {"origin": "http://localhost:3000"}
    asked = service.client.request("OPTIONS", "/v1/step", headers=page)
    assert asked.status_code == 204
    assert "content-type" in asked.headers["access-control-allow-headers"]
    for answer in (
        asked,
        service.get("/v1/spec", headers=page),
        service.post({"steps": [first("page")]}, headers=page),
        service.post({"steps": [first("page", 9)]}, headers=page),
    ):
        assert answer.headers["access-control-allow-origin"] == page["origin"]
    assert "access-control-allow-origin" not in service.get("/v1/spec").headers


POST = b"POST /v1/step HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


def test_a_body_that_never_ends_is_refused_in_time(service: Service) -> None:
    answer = raw(service, POST + b"content-length: 100\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"urn:stoker:problem:slow-request" in answer


@pytest.mark.parametrize("sent", [b"", b"POST /v1/st", POST, POST + b"x-a: b\r\n" * 10])
def test_a_head_that_never_ends_is_refused_in_time(service: Service, sent: bytes) -> None:
    assert b"urn:stoker:problem:slow-request" in raw(service, sent)


def test_a_head_without_end_is_refused(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), WAIT_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
            while True:
                client.sendall(b"x: " + b"y" * 4000 + b"\r\n")


def test_a_body_in_pieces_that_is_too_large_is_refused_early(service: Service) -> None:
    chunk = b"800\r\n" + b" " * 2048 + b"\r\n"
    answer = raw(service, POST + b"transfer-encoding: chunked\r\n\r\n" + 3 * chunk)
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_client_that_never_reads_is_closed(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), WAIT_S) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n" * 20
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
            while True:
                client.sendall(asked)
    assert service.get("/readyz").status_code == 200


def test_a_client_that_closes_in_mid_message_takes_nothing_with_it(service: Service) -> None:
    body = json.dumps({"steps": [first("torn")]}).encode()
    raw(service, POST + b"content-length: %d\r\n\r\n" % len(body) + body[:-1], half_closed=True)
    assert service.get("/v1/actors/torn").status_code == 404


class StuckAgent(FakeAgent):
    """Learns when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may_learn = threading.Event()

    def observe(self, experiences: Any) -> None:
        self.may_learn.wait(WAIT_S)
        super().observe(experiences)


@contextmanager
def stuck(**limits: Any) -> Iterator[tuple[Service, StuckAgent]]:
    agent = StuckAgent()
    with served(lambda: agent, limits=Limits(**limits), queue_capacity=4) as service:
        try:
            yield service, agent
        finally:
            agent.may_learn.set()


def fill(service: Service, actor: str = "fills") -> int:
    """Send steps until the queue is full; return the number of the first that was refused."""
    service.post({"steps": [first(actor)]})
    for seq in range(2, 100):
        answer = service.post({"steps": [following(seq, actor)]})
        if answer.status_code != 200:
            return seq
    raise AssertionError("the queue takes anything")


def test_a_full_queue_is_429_with_when_and_where_to_go_on() -> None:
    with stuck(max_wait_s=0.1) as (service, agent):
        refused = fill(service)
        answer = service.post({"steps": [following(refused, "fills")]})
        problem = answer.json()
        assert (answer.status_code, problem["type"]) == (429, "urn:stoker:problem:busy")
        assert int(answer.headers["retry-after"]) >= 1
        assert problem["actors"]["fills"]["next"] == refused
        assert service.get("/readyz").status_code in (200, 503)
        agent.may_learn.set()
        while (again := service.post({"steps": [following(refused, "fills")]})).status_code == 429:
            pass
        assert again.json()["actors"]["fills"]["next"] == refused + 1


def test_a_message_that_waits_is_refused_when_the_service_ends() -> None:
    with stuck(max_wait_s=WAIT_S) as (service, agent):
        service.post({"steps": [first("w")]})
        answers: list[Any] = []

        def send() -> None:
            seq, status = 2, 200
            with httpx2.Client(base_url=service.url, timeout=WAIT_S, verify=False) as client:
                while status == 200:
                    answers.append(client.post("/v1/step", json={"steps": [following(seq, "w")]}))
                    seq, status = seq + 1, answers[-1].status_code

        sending = threading.Thread(target=send)
        sending.start()
        while not service.hosted.session.health().n_observing:
            pass
        service.server.end()
        sending.join(WAIT_S)
        agent.may_learn.set()
    problem = answers[-1].json()
    assert (answers[-1].status_code, problem["type"]) == (503, "urn:stoker:problem:going-down")
    assert service.hosted.session.total_steps == len(answers) - 1


def test_a_session_that_fails_says_so_to_everybody_and_keeps_answering() -> None:
    with served(lambda: FakeAgent(fail_at=2)) as service:
        service.post({"steps": [first()]})
        seq = 2
        while (answer := service.post({"steps": [following(seq)]})).status_code == 200:
            seq += 1
        problem = answer.json()
        assert (answer.status_code, problem["type"]) == (503, "urn:stoker:problem:training-failed")
        assert "failed at" in problem["detail"]
        while service.hosted.failure is None:  # the session drains
            pass
        for path in ("/healthz", "/readyz", "/v1/actors/a"):
            assert "failed at" in service.get(path).json()["detail"]
        assert service.get("/v1/spec").json()["training"] == "failing"


def test_the_end_of_the_training_is_said_and_reading_goes_on() -> None:
    with served(max_steps=2) as service:
        service.post({"steps": [first()]})
        cut = service.post({"steps": [following(seq) for seq in (2, 3, 4)]})
        assert cut.json()["training"] == "done"
        assert cut.json()["actors"]["a"]["next"] == 4
        over = service.post({"steps": [following(4)]})
        assert (over.status_code, over.json()["type"]) == (503, "urn:stoker:problem:training-done")
        assert service.get("/v1/actors/a").json()["answer"]["next"] == 4


def test_durable_waits_for_the_disk_and_a_restart_goes_on(tmp_path: Path) -> None:
    with served(run=tmp_path / "runs" / "played" / "v1") as service:
        steps = [first(), *(following(seq) for seq in range(2, 6))]
        answer = service.post({"steps": steps, "ack": "durable"}).json()["actors"]["a"]
        assert (answer["next"], answer["durable"]) == (6, 5)
        spec = service.get("/v1/spec").json()
        assert "durable" in spec["features"]
    with served(run=tmp_path / "runs" / "played" / "v1") as service:
        assert service.get("/v1/spec").json()["run_id"] == spec["run_id"]
        assert service.get("/v1/actors/a").json()["answer"]["next"] == 6
        assert service.post({"steps": [following(6)]}).json()["actors"]["a"]["next"] == 7
    assert service.hosted.session.total_steps == 5


# Tokens -------------------------------------------------------------------------------------------


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture(scope="module")
def guarded() -> Iterator[Service]:
    principals = [
        Principal(name="game", sha256=hashed("game"), scopes=("act", "observe"), actors="npc-"),
        Principal(name="viewer", sha256=hashed("viewer"), scopes=("read",)),
        Principal(name="slow", sha256=hashed("slow"), rate=2.0),
    ]
    with served(gate=Gate(Tokens(principals))) as service:
        yield service


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({}, 401, "unauthenticated"),
        (bearer("wrong"), 401, "unauthenticated"),
        ({"authorization": "Basic game"}, 401, "unauthenticated"),
        (bearer("viewer"), 403, "forbidden"),
    ],
)
def test_who_may_not_play_is_refused(
    guarded: Service, headers: dict[str, str], status: int, kind: str
) -> None:
    answer = guarded.post({"steps": [first("npc-1")]}, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:stoker:problem:{kind}")
    assert ("www-authenticate" in answer.headers) is (status == 401)


def test_a_token_is_for_its_actors_and_scopes(guarded: Service) -> None:
    assert guarded.post({"steps": [first("npc-2")]}, headers=bearer("game")).status_code == 200
    other = guarded.post({"steps": [first("boss")]}, headers=bearer("game"))
    assert (other.status_code, other.json()["type"]) == (403, "urn:stoker:problem:forbidden")
    assert guarded.get("/v1/actors/boss", headers=bearer("game")).status_code == 403
    assert guarded.get("/metrics", headers=bearer("game")).status_code == 403
    assert guarded.get("/v1/actors/npc-2", headers=bearer("viewer")).status_code == 200
    assert guarded.get("/v1/spec?token=game").status_code == 401
    assert guarded.get("/readyz").status_code == 200


def test_a_token_has_its_rate(guarded: Service) -> None:
    taken = guarded.post({"steps": [first("s"), following(2, "s")]}, headers=bearer("slow"))
    assert taken.status_code == 200
    refused = guarded.post({"steps": [following(seq, "s") for seq in range(3, 9)]}, headers=bearer("slow"))
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:stoker:problem:rate-exceeded")
    assert int(refused.headers["retry-after"]) >= 1
