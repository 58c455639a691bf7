"""The HTTP server for metrics: what it answers, and that nobody can make it wait or fail a training."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPResponse

import pytest
from scraping import scraped

from stoker import TrainingSession
from stoker.listening import listening_socket
from stoker.telemetry import TrainingReading
from stoker.telemetry.prometheus import Exposition
from stoker.telemetry.serving import MetricsServer
from stoker.testing import FakeAgent


def served(expose: Exposition) -> MetricsServer:
    return MetricsServer(listening_socket("127.0.0.1", 0), expose)


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with served(Exposition()) as server:
        yield server


def ask(server: MetricsServer, path: str = "/metrics", method: str = "GET", host: str = "") -> HTTPResponse:
    connection = HTTPConnection(*server.address, timeout=30)
    connection.request(method, path, headers={"Host": host} if host else {})
    return connection.getresponse()


def test_it_answers_with_the_metrics(server: MetricsServer) -> None:
    response = ask(server)
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert b"# TYPE stoker_refused_total counter" in response.read()
    assert server.url == f"http://127.0.0.1:{server.address[1]}/metrics"


@pytest.mark.parametrize(
    ("path", "method", "host", "status"),
    [
        ("/metrics?name[]=x", "GET", "", 200),
        ("/metrics", "HEAD", "", 200),
        ("/metrics", "GET", "localhost:1", 200),
        ("/metrics", "GET", "[::1]:9100", 200),
        ("/", "GET", "", 404),
        ("/../etc/passwd", "GET", "", 404),
        ("/metrics", "POST", "", 501),
        ("/metrics", "GET", "rebound.example:9100", 421),
    ],
)
def test_what_else_it_answers(server: MetricsServer, path: str, method: str, host: str, status: int) -> None:
    response = ask(server, path, method, host)
    assert response.status == status
    assert (response.read() == b"") == (method == "HEAD")


def test_clients_that_send_nothing_keep_no_scrape_waiting(server: MetricsServer) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(server.address)) for _ in range(12)]
        idle[-1].sendall(b"GET /metrics HTTP/1.1\r\nHost: loc")
        assert ask(server).status == 200
        assert idle[0].recv(1) == b"", "the one that has been there longest is cut off"


@pytest.mark.anyio
async def test_a_scrape_that_fails_is_answered_and_touches_no_training(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with TrainingSession(FakeAgent()) as session:
        is_broken = True

        def read() -> TrainingReading:
            if is_broken:
                raise ZeroDivisionError("no reading, naïve")
            return session.telemetry()

        expose = Exposition(read)
        with served(expose) as server:
            for _ in range(3):
                response = ask(server)
                assert response.status == 500
                assert response.read() == "ZeroDivisionError: no reading, naïve\n".encode()
            is_broken = False
            assert ask(server).status == 200
            assert scraped(expose)
        assert session.health().is_running
    [logged] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert logged == "the metrics could not be read; the training goes on"


@pytest.mark.anyio
async def test_before_a_training_is_open_the_answer_says_so() -> None:
    session = TrainingSession(FakeAgent())
    with served(Exposition(session.telemetry)) as server:
        response = ask(server)
        assert (response.status, response.read()) == (503, b"the training is not open yet\n")


def test_its_port_is_free_once_it_is_closed() -> None:
    with served(Exposition()) as server:
        port = server.address[1]
    listening_socket("127.0.0.1", port).close()
