"""The service in somebody else's application and server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import fastapi
import httpx2
import pytest
import uvicorn
from servers import ACTIONS, OBSERVATIONS, WAIT_S, Stream, first, following
from websockets.sync.client import connect

from stoker import TrainingSession
from stoker.listening import listening_socket
from stoker.service import make_app, service_lifespan
from stoker.testing import FakeAgent


@contextmanager
def mounted(make: Callable[[], Any]) -> Iterator[tuple[int, Any]]:
    """A FastAPI application with the service below /rl, on a plain uvicorn."""
    service = make_app(make, spaces=(OBSERVATIONS, ACTIONS))

    @asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> Any:
        async with service_lifespan(service):
            yield

    host = fastapi.FastAPI(lifespan=lifespan)
    host.mount("/rl", service)

    @host.get("/own")
    async def own() -> dict[str, bool]:
        return {"own": True}

    with listening_socket("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(host, log_level="error", ws="websockets-sansio"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], service.state.stoker
        finally:
            server.should_exit = True
            thread.join(WAIT_S)
    assert not thread.is_alive()


def test_it_is_mounted_beside_the_routes_of_its_host() -> None:
    with (
        mounted(lambda: TrainingSession(FakeAgent(), numbered=True)) as (port, hosted),
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S, verify=False) as client,
    ):
        while client.get("/rl/readyz").status_code == 503:
            pass
        assert client.get("/own").json() == {"own": True}
        assert client.post("/rl/v1/step", json={"steps": [first()]}).json()["actors"]["a"]["next"] == 2
        assert client.get("/v1/spec").status_code == 404
        with connect(f"ws://127.0.0.1:{port}/rl/v1/stream") as socket:
            stream = Stream(socket)
            assert "welcome" in stream.ask({"hello": {}})
            assert stream.steps(following(2))["actors"]["a"]["next"] == 3
    assert hosted.session.total_steps == 1
    assert hosted.failure is None


def test_a_session_without_numbers_is_refused_with_what_to_change(caplog: pytest.LogCaptureFixture) -> None:
    with mounted(lambda: TrainingSession(FakeAgent())) as (port, _), httpx2.Client(verify=False) as client:
        while "numbered=True" not in client.get(f"http://127.0.0.1:{port}/rl/healthz").text:
            pass
    assert "numbered=True" in caplog.text


@pytest.mark.anyio
async def test_an_application_may_be_made_and_closed_without_a_request() -> None:
    app = make_app(lambda: TrainingSession(FakeAgent(), numbered=True), spaces=(OBSERVATIONS, ACTIONS))
    async with service_lifespan(app):
        pass
    assert app.state.stoker.failure is None


def test_a_service_that_ends_while_its_session_opens_does_not_wait_for_it() -> None:
    @asynccontextmanager
    async def opening() -> Any:
        await anyio.sleep_forever()
        yield

    with mounted(opening) as (port, hosted), httpx2.Client(verify=False) as client:
        for path in ("readyz", "v1/actors/a"):
            answer = client.get(f"http://127.0.0.1:{port}/rl/{path}")
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:stoker:problem:not-ready")
            assert int(answer.headers["retry-after"]) >= 1
        assert client.get(f"http://127.0.0.1:{port}/rl/healthz").status_code == 200
        assert client.get(f"http://127.0.0.1:{port}/rl/v1/spec").json()["training"] == "opening"
    assert hosted.failure is None
    assert hosted.session is None
