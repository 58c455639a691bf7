"""A dashboard on a real socket, in a thread of the test's process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from serving import in_thread
from stoker.dashboard import Index, make_app
from stoker.service.limits import Limits
from stoker.service.serving import Server

WAIT_S = 30.0


class Dash:
    """A dashboard that runs."""

    def __init__(self, port: int, index: Index, server: Server) -> None:
        self.port = port
        self.index = index
        self.server = server
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx2.Client(base_url=self.url, timeout=WAIT_S)

    def ask(self, path: str, **options: Any) -> httpx2.Response:
        return self.client.get(path, **options)

    def get(self, path: str, **params: Any) -> Any:
        """The JSON of an answer that must be one."""
        response = self.ask(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    def runs(self) -> dict[str, dict[str, Any]]:
        """The list of runs, by their paths, once all are in it."""
        while not (answer := self.get("/api/runs"))["is_scanned"]:
            pass
        return {run["path"]: run for run in answer["runs"]}

    def only(self) -> str:
        """The address of the only run."""
        [run] = self.runs().values()
        return f"/api/runs/{run['id']}"

    @contextmanager
    def listen(self, **params: str) -> Iterator[Events]:
        """The events of the stream while a block runs."""
        with self.client.stream("GET", "/api/stream", params=params) as response:
            assert response.status_code == 200
            yield Events(response)


class Events:
    """Server-sent events, one after the other."""

    def __init__(self, response: httpx2.Response) -> None:
        self._lines = response.iter_lines()

    def next(self, name: str) -> Any:
        """The data of the next event of that name."""
        for line in self._lines:
            if line == f"event: {name}":
                return json.loads(next(self._lines).removeprefix("data: "))
        raise EOFError("the stream has ended")

    def rest(self) -> list[str]:
        """The lines until the server ends the stream."""
        return list(self._lines)


@contextmanager
def dash(root: Path, *, interval_s: float = 0.05, **options: Any) -> Iterator[Dash]:
    """Serve while the block runs; then end the server as a signal does."""

    def make(port: int) -> Dash:
        app = make_app(root, interval_s=interval_s, **options)
        return Dash(port, app.state.stoker, Server(app, Limits()))

    with in_thread(make) as found:
        yield found
