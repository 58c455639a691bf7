"""What an open page of a dashboard asks of its server, for stoker and its peers, by plain HTTP.

A viewer has one keep-alive connection, accepts gzip as browsers do, and counts the bytes that come back. The
requests are those of the pages of TensorBoard 2.21 and trackio 0.43, as their sources send them.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import signal
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote, urlencode

from benchmarks.made_runs import LENGTH, SPIKE

WAIT_S = 120.0


class Answer(NamedTuple):
    """An answer: its status, its body as JSON, and all of its bytes on the wire."""

    status: int
    body: Any
    n_bytes: int
    etag: str | None


class Curve(NamedTuple):
    """The points that a page draws: x and the highest y there."""

    x: Sequence[float]
    y: Sequence[float]


class View(ABC):
    """A page that somebody looks at.

    Args:
        port: of the server.
        root: where the page is on it.

    Attributes:
        period_s: seconds between two polls of the page.
    """

    period_s: ClassVar[float] = 1.0

    def __init__(self, port: int, root: str = "") -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        self._root = root
        self._etags: dict[str, str] = {}
        self.n_bytes = 0
        """All bytes that came back so far."""

    @property
    def is_whole(self) -> bool:
        """Whether the last curve was of all rows, as far as its server says."""
        return True

    @abstractmethod
    def curve(self, run: str) -> Curve:
        """The curve of one run, whole, as far as the server knows it; empty where it knows none."""

    @abstractmethod
    def poll(self) -> int:
        """Ask what the page asks while it is open; the bytes that came back."""

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request."""
        sent = {"Accept-Encoding": "gzip", **(headers or {})}
        try:
            self._connection.request(method, f"{self._root}{path}", body, sent)
            answer = self._connection.getresponse()
        except ConnectionError:  # the server has closed it while it was idle
            self._connection.close()
            self._connection.request(method, f"{self._root}{path}", body, sent)
            answer = self._connection.getresponse()
        data = answer.read()
        head = sum(len(name) + len(value) + 4 for name, value in answer.getheaders())
        n_bytes = head + len(f"HTTP/1.1 {answer.status} {answer.reason}\r\n\r\n") + len(data)
        self.n_bytes += n_bytes
        if answer.getheader("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        is_json = "json" in (answer.getheader("Content-Type") or "")
        body_found = json.loads(data) if data and is_json else None
        return Answer(answer.status, body_found, n_bytes, answer.getheader("ETag"))

    def has_news(self, path: str) -> bool:
        """Ask for what may have changed since it was asked for last."""
        known = self._etags.get(path)
        answer = self.ask("GET", path, headers={"If-None-Match": known} if known else {})
        if answer.etag is not None:
            self._etags[path] = answer.etag
        return answer.status == 200

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class TensorBoardView(View):
    """TensorBoard's page of time series with one tag; reloading, which its user must turn on, each 30 s."""

    period_s = 30.0
    TAG: ClassVar[str] = "rollout/ep_rew"
    _ROOT = "/data/plugin/timeseries"

    def curve(self, run: str) -> Curve:
        found = self._series({"plugin": "scalars", "tag": self.TAG, "run": run})
        points = (found[0].get("runToSeries") or {}).get(run, [])
        return Curve([point["step"] for point in points], [point["value"] for point in points])

    def poll(self) -> int:
        before = self.n_bytes
        for path in ("/data/environment", "/data/runs", f"{self._ROOT}/tags"):
            self.ask("GET", path)
        self._series({"plugin": "scalars", "tag": self.TAG})
        return self.n_bytes - before

    def _series(self, request: Mapping[str, str]) -> Any:
        body = urlencode({"requests": json.dumps([request])}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.ask("POST", f"{self._ROOT}/timeSeries", body, headers)
        return answer.body if isinstance(answer.body, list) else [{}]


class TrackioView(View):
    """trackio's page of metrics with every run of the project selected, as it is at first."""

    KEY: ClassVar[str] = "reward"

    def __init__(self, port: int, project: str) -> None:
        super().__init__(port)
        self._project = project
        self._runs: list[dict[str, Any]] = []

    def curve(self, run: str) -> Curve:
        runs = self._call("get_runs_for_project", project=self._project)
        named = [each for each in runs or () if each["name"] == run]
        if not named:
            return Curve([], [])
        [found] = self._logs(named)
        points = [point for point in found["logs"] if self.KEY in point]
        return Curve([point["step"] for point in points], [point[self.KEY] for point in points])

    def poll(self) -> int:
        before = self.n_bytes
        self._call("get_all_projects")
        self._runs = self._call("get_runs_for_project", project=self._project)
        self._call("get_alerts", project=self._project, run=None, level=None, since=None)
        self._call("get_tab_availability", project=self._project)
        self._logs(self._runs)
        return self.n_bytes - before

    def _logs(self, runs: Sequence[Mapping[str, Any]]) -> Any:
        named = [{"run": run["name"], "run_id": run["id"]} for run in runs]
        return self._call("get_logs_batch", project=self._project, runs=named, scalar_only=True)

    def _call(self, name: str, **arguments: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        answer = self.ask("POST", f"/api/{name}", json.dumps(arguments).encode(), headers)
        if answer.status != 200:
            raise RuntimeError(f"{name}: {answer.status} {answer.body}")
        return answer.body["data"]


_OTHER_CURVES = (
    "name=train.total_reward&x=steps&points=300&smooth=mean:50",
    "name=train.length&x=steps&points=500&smooth=mean:50",
    "name=metrics.train/loss&name=metrics.rollout/exploration_rate&name=metrics.time/fps&x=steps&points=500",
)
"""What the page of a run asks for besides the rewards, when it has news."""


class StokerView(View):
    """stoker's page of a run: it asks whether there is anything new, and for that alone.

    In a browser the event stream says when to ask; this page asks each second, as browsers do without it.

    Args:
        port: of the server.
        run: its name; None: the only run that there is.
        root: where the page is on the server.
    """

    def __init__(self, port: int, run: str | None = None, root: str = "") -> None:
        super().__init__(port, root)
        self._run = run
        self._cursors: dict[str, str] = {}
        self._share_read = 0.0
        self.n_new = 0
        """Points that the last poll brought."""

    @property
    def is_whole(self) -> bool:
        """Whether the server had read every row when it answered."""
        return self._share_read >= 1.0

    @cached_property
    def id(self) -> str:
        """The run's, once the server has found it."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            found = self.ask("GET", "/api/runs").body
            for each in found["runs"]:
                if self._run in (None, each["name"]):
                    return each["id"]
            if found["is_scanned"]:
                break
            time.sleep(0.01)
        raise RuntimeError(f"the server has no run {self._run!r}")

    def curve(self, run: str) -> Curve:
        self._run = self._run or run
        [found] = self._series()["series"]
        return Curve(found["x"], found["max"])

    def has_read(self, n: int) -> bool:
        """Whether the server has read exactly that many training episodes."""
        [found] = self._series()["series"]
        return self.is_whole and found["n"] == n

    def poll(self) -> int:
        before, place = self.n_bytes, f"/api/runs/{self.id}"
        self.n_new = 0
        if not self.has_news(place):
            return self.n_bytes - before
        answer = self._series(self._cursors.get("", ""))
        self._cursors[""] = answer["cursor"]
        self.n_new = sum(len(each["x"]) for each in answer["series"])
        for query in _OTHER_CURVES:
            cursor = self._cursors.get(query, "")
            more = self.ask("GET", f"{place}/series?{query}" + (f"&cursor={quote(cursor)}" if cursor else ""))
            if more.status == 200:  # a run without records has no curves of them
                self._cursors[query] = more.body["cursor"]
        self.has_news(f"{place}/events?page=0")
        self.has_news(f"{place}/shares?points=300&x=steps")
        return self.n_bytes - before

    def _series(self, cursor: str = "") -> Any:
        query = "name=train.total_reward&x=steps&points=1200&smooth=mean:50"
        query += f"&cursor={quote(cursor)}" if cursor else ""
        answer = self.ask("GET", f"/api/runs/{self.id}/series?{query}")
        if answer.status != 200:
            raise RuntimeError(f"{query}: {answer.status} {answer.body}")
        self._share_read = answer.body["share_read"]
        return answer.body


class StokerStreamView(View):
    """A page of many runs: it listens to the event stream, and asks every two seconds while there is news."""

    period_s = 2.0

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._stream = HTTPConnection("127.0.0.1", port)
        self._stream.request("GET", "/api/stream")
        self._events = self._stream.getresponse()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError, HTTPException):  # the page is closed, or its server has ended
            for line in self._events:
                self.n_bytes += len(line)

    def close(self) -> None:
        if self._stream.sock is not None:
            self._stream.sock.shutdown(socket.SHUT_RDWR)
        self._listener.join()
        self._stream.close()
        super().close()


class StokerList(StokerStreamView):
    """stoker's list of runs: what has changed since the last poll, and the small curves in view."""

    _IN_VIEW: ClassVar[int] = 25

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._cursor = ""
        self.has_all = False
        """Whether the server had looked at all runs when it answered."""

    def curve(self, run: str) -> Curve:
        raise NotImplementedError

    def poll(self) -> int:
        before = self.n_bytes
        answer = self.ask("GET", f"/api/runs?cursor={quote(self._cursor)}" if self._cursor else "/api/runs")
        self._cursor, self.has_all = answer.body["cursor"], answer.body["is_scanned"]
        if changed := [run["id"] for run in answer.body["runs"]][: self._IN_VIEW]:
            self.ask("GET", f"/api/sparks?ids={','.join(changed)}")
        return self.n_bytes - before


class StokerComparison(StokerStreamView):
    """stoker's comparison of all runs: a curve of each."""

    def curve(self, run: str) -> Curve:
        raise NotImplementedError

    @cached_property
    def _ids(self) -> list[str]:
        return [each["id"] for each in self.ask("GET", "/api/runs").body["runs"]]

    def poll(self) -> int:
        before = self.n_bytes
        query = f"ids={','.join(self._ids)}&series=train.total_reward&x=steps&smooth=mean:100&points=400"
        answer = self.ask("GET", f"/api/compare?{query}&group_by=none&statistic=mean")
        if answer.status != 200:
            raise RuntimeError(f"{query}: {answer.status} {answer.body}")
        self.has_news(f"/api/diff?ids={','.join(self._ids)}")
        return self.n_bytes - before


def spikes_seen(curve: Curve) -> int:
    """How many points of a curve are as high as the planted episodes; these lie far from each other."""
    return sum(value is not None and value >= SPIKE for value in curve.y)


def last_episode(curve: Curve) -> int:
    """The number of the last episode that a curve shows; 0: none."""
    return int(curve.x[-1] // LENGTH) if curve.x else 0


def main() -> None:
    """``python -m benchmarks.viewing PORT PAGES [ROOT]``: pages of the only run stay open until a signal."""
    port, n_pages = map(int, sys.argv[1:3])
    root = "".join(sys.argv[3:])
    n_polls = 0

    def end(*_: Any) -> None:
        print(f"{n_polls} polls", flush=True)
        sys.exit()

    signal.signal(signal.SIGTERM, end)
    pages = [StokerView(port, root=root) for _ in range(n_pages)]
    while True:
        for page in pages:
            try:
                page.poll()
                n_polls += 1
            except RuntimeError:  # no run yet
                pass
        time.sleep(StokerView.period_s)


if __name__ == "__main__":
    main()
