"""A service on a real socket, with a real session, in a thread of the test's process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import httpx2
import numpy as np
from websockets.sync.client import ClientConnection, connect

from serving import in_thread
from stoker import RunNotFound, TrainingRun, TrainingSession
from stoker.service.app import make_app
from stoker.service.auth import Gate
from stoker.service.hosting import GymSpaces, Hosted
from stoker.service.limits import Limits
from stoker.service.serving import Server, Tls
from stoker.testing import FakeAgent

OBSERVATIONS = gymnasium.spaces.Box(-10.0, 10.0, (2,), np.float32)
ACTIONS = gymnasium.spaces.Discrete(3)
WAIT_S = 30.0


class Service:
    """A service that runs: where it is, and what is behind it."""

    def __init__(self, port: int, hosted: Hosted, server: Server, scheme: str = "http") -> None:
        self.port = port
        self.hosted = hosted
        self.server = server
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.client = httpx2.Client(base_url=self.url, timeout=WAIT_S, verify=False)

    def post(self, message: Any, path: str = "/v1/step", **options: Any) -> httpx2.Response:
        kind = {"content": message} if isinstance(message, bytes) else {"json": message}
        return self.client.post(path, **kind, **options)

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return self.client.get(path, **options)


@contextmanager
def served(
    agent: Callable[..., Any] = FakeAgent,
    run: Path | None = None,
    *,
    gate: Gate | None = None,
    limits: Limits | None = None,
    spaces: GymSpaces = (OBSERVATIONS, ACTIONS),
    from_client: bool = False,
    tls: Tls | None = None,
    **settings: Any,
) -> Iterator[Service]:
    """Serve while the block runs; then end the server as a signal does, and wait for its session."""

    @asynccontextmanager
    async def session(*spaces: Any) -> Any:
        assert bool(spaces) is from_client
        place = None
        if run is not None:
            try:
                place = await TrainingRun.resume(run)
            except RunNotFound:
                place = await TrainingRun.create(run.parent.name, run.name, root=run.parents[1])
        async with TrainingSession(agent(*spaces), place, numbered=True, **settings) as opened:
            yield opened

    limits = limits or Limits()

    def make(port: int) -> Service:
        app = make_app(session, spaces=None if from_client else spaces, gate=gate, limits=limits)
        server = Server(app, limits, tls)
        return Service(port, app.state.stoker, server, "http" if tls is None else "https")

    with in_thread(make) as service:
        if tls is None and not from_client:
            until_ready(service)
        yield service


def until_ready(service: Service) -> None:
    """Return when the session is open, or has failed."""
    while service.get("/readyz").status_code == 503 and service.hosted.failure is None:
        pass


def first(actor: str = "a", seq: int = 1, **fields: Any) -> dict[str, Any]:
    """The record that begins an episode."""
    return {"actor": actor, "seq": seq, "start": True, "observation": [0.0, 1.0], **fields}


def following(seq: int, actor: str = "a", **fields: Any) -> dict[str, Any]:
    """A record within an episode."""
    seen = [0.0, float(seq % 8)]
    return {"actor": actor, "seq": seq, "action": 1, "reward": 1.0, "observation": seen, **fields}


class Stream:
    """A WebSocket of JSON messages."""

    welcome: dict[str, Any]

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def send(self, message: Any) -> None:
        self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def receive(self) -> dict[str, Any]:
        return json.loads(self.socket.recv(timeout=WAIT_S))

    def ask(self, message: Any) -> dict[str, Any]:
        self.send(message)
        return self.receive()

    def steps(self, *records: Any, **fields: Any) -> dict[str, Any]:
        return self.ask({"steps": records, **fields})


@contextmanager
def open_stream(service: Service, hello: Any = None, **options: Any) -> Iterator[Stream]:
    """A WebSocket that has said hello."""
    url = service.url.replace("http", "ws", 1) + "/v1/stream"
    with connect(url, compression=None, **options) as socket:
        stream = Stream(socket)
        stream.welcome = stream.ask({"hello": hello or {}})
        yield stream
