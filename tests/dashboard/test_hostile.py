"""Hostile strings, in every place of a request and on disk: no file outside the runs directory is reached."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from benchmarks.made_runs import MadeRun, make_runs
from dashes import Dash, dash
from hostile_runs import FEW, TEXTS, broken_run, make_hostile_runs
from hostile_texts import FOREIGN_HOSTS, MARKUP, STRINGS, aimed, as_path
from raw import Answer, ask

import stoker

SECRET = "the-secret-that-nobody-asks-for"
KNOWN_HEADERS = {
    "allow", "cache-control", "connection", "content-disposition", "content-encoding", "content-length",
    "content-security-policy", "content-type", "cross-origin-opener-policy", "cross-origin-resource-policy",
    "date", "etag", "location", "referrer-policy", "retry-after", "server", "transfer-encoding", "vary",
    "www-authenticate", "x-accel-buffering", "x-content-type-options", "x-frame-options",
}  # fmt: skip
QUERIES = {
    "/api/runs": ("cursor",),
    "/api/sparks": ("ids",),
    "/api/runs/{id}/series": ("name", "x", "from", "to", "points", "smooth", "cursor"),
    "/api/runs/{id}/series.csv": ("name", "x"),
    "/api/runs/{id}/episodes": (
        "kind", "sort", "order", "page", "size", "status", "actor", "reward_from", "reward_to", "from", "to",
    ),
    "/api/runs/{id}/episodes.csv": ("kind", "sort"),
    "/api/runs/{id}/events": ("page", "kind", "level"),
    "/api/runs/{id}/shares": ("points",),
    "/api/compare": ("ids", "series", "x", "smooth", "points", "group_by", "statistic"),
    "/api/diff": ("ids",),
    "/api/stream": ("run",),
}  # fmt: skip
NEEDED = {
    "/api/runs/{id}/series": "name=train.total_reward",
    "/api/runs/{id}/series.csv": "name=train.total_reward",
    "/api/compare": "ids={id}&series=eval.mean",
}
PATHS = ("/", "/api/", "/api/runs/", "/vendor/", "/api/runs/{id}/")


def targets(run_id: str) -> list[tuple[bytes, bytes]]:
    """Where a string can stand in a request: what is before it, and behind it."""
    found = [(path.format(id=run_id).encode(), b"") for path in PATHS]
    found.append((b"/api/runs/", b"/series?name=train.total_reward"))
    for form, names in QUERIES.items():
        path, needed = form.format(id=run_id), NEEDED.get(form, "").format(id=run_id)
        for name in names:
            kept = [pair for pair in needed.split("&") if pair and not pair.startswith(f"{name}=")]
            found.append((f"{path}?{'&'.join([*kept, f'{name}='])}".encode(), b""))
        found.append((f"{path}?".encode(), b"=1"))  # as the name of a parameter
    return found


def check(answer: Answer, asked: bytes) -> None:
    """An answer to a hostile request is one clear answer, and nothing of the request is in its head."""
    assert answer.status in (200, 304, 307, 400, 404, 405, 414, 422, 431), (asked, answer)
    assert SECRET.encode() not in answer.body, asked
    assert {name for name, _ in answer.headers} <= KNOWN_HEADERS, (asked, answer.headers)
    heads = "".join(value for _, value in answer.headers)
    assert "pwned" not in heads, (asked, heads)
    assert "evil" not in heads, (asked, heads)
    if answer.status >= 400 and answer.body:
        kinds = [value for name, value in answer.headers if name == "content-type"]
        if "json" in kinds[0]:
            assert {"title", "detail", "status"} <= answer.json.keys(), (asked, answer)
        else:  # the HTTP parser's own words
            assert kinds[0].startswith("text/plain"), (asked, answer)


def check_page_of(answer: Answer, asked: bytes) -> None:
    """What a browser shows of a refusal has no markup but its own."""
    if answer.status >= 400 and b"text/html" in dict(answer.headers)["content-type"].encode():
        tags = set(re.findall(rb"<\W*(\w+)", answer.body))
        assert tags <= {b"doctype", b"html", b"meta", b"title", b"h1", b"p"}, (asked, answer.body)


class Opened:
    """The files that this process opens while it is watched. A hook stays for good, and idles."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.is_watching = False
        sys.addaudithook(self._see)

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        if threading.current_thread().name == "stoker-lease":  # of a training that another test left behind
            return
        if not self.is_watching or not event.startswith(("open", "os.", "shutil.", "subprocess.", "glob.")):
            return
        self.paths |= {os.fsdecode(each) for each in args[:2] if isinstance(each, str | bytes | os.PathLike)}

    @contextmanager
    def watched(self) -> Iterator[set[str]]:
        self.paths = set()
        self.is_watching = True
        try:
            yield self.paths
        finally:
            self.is_watching = False


OPENED = Opened()


def outside(paths: Sequence[str], root: Path) -> list[str]:
    """Those that are neither below the runs directory nor code."""
    allowed = [root, Path(stoker.__file__).parent, *map(Path, {*sysconfig.get_paths().values()})]
    allowed = [os.path.realpath(path) + os.sep for path in allowed]
    modes = {"r", "rb", "w", "a"}
    real = {path: os.path.realpath(path) + os.sep for path in paths if path not in modes and "\0" not in path}
    return [path for path, found in real.items() if not found.startswith(tuple(allowed))]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A runs directory with two runs, and secrets outside it."""
    root = tmp_path / "runs"
    make_runs(root, 2, 20)
    for secret in ("key.txt", "metadata.json", "secret/key.txt", "etc/passwd"):
        (tmp_path / secret).parent.mkdir(exist_ok=True)
        (tmp_path / secret).write_text(SECRET)
    return root


def ids_of(dashboard: Dash) -> list[str]:
    return [run["id"] for run in dashboard.runs().values()]


def send(port: int, run_id: str, strings: Sequence[str], secret: Path, *, everywhere: bool) -> int:
    """Send each string to each place, or to a few so that every place gets some; return how many."""
    places = targets(run_id)
    turns = itertools.cycle(places)
    n_sent = 0
    for text in strings:
        for before, behind in places if everywhere else (next(turns),):
            for part in as_path(aimed(text, secret)):
                target = before + part + behind
                check(ask(port, target), target)
                n_sent += 1
    return n_sent


@pytest.mark.parametrize(
    "everywhere", [False, pytest.param(True, marks=pytest.mark.faults)], ids=["few", "every"]
)
def test_no_hostile_string_in_a_request_reaches_a_file(place: Path, everywhere: bool) -> None:
    assert len(STRINGS) >= 500
    with dash(place) as dashboard:
        run_id = ids_of(dashboard)[0]
        with OPENED.watched() as paths:
            n_sent = send(dashboard.port, run_id, STRINGS, place.parent / "key.txt", everywhere=everywhere)
            assert len(ids_of(dashboard)) == 2, "it still answers"
        assert n_sent >= 2 * len(STRINGS)
        assert any(str(place) in path for path in paths), "the hook sees what is opened"
        assert outside(sorted(paths), place) == []


def test_pages_of_other_sites_get_nothing(place: Path) -> None:
    with dash(place) as dashboard:
        for host in FOREIGN_HOSTS:
            name = host.format(port=dashboard.port).encode("utf-8", "surrogatepass")
            for target in (b"/", b"/api/runs", b"/api/stream"):
                answer = ask(dashboard.port, target, host=name)
                assert 400 <= answer.status < 500, (host, answer)
                assert b'"runs"' not in answer.body, (host, answer)
            check_page_of(ask(dashboard.port, b"/", host=name, Accept="text/html"), name)
        for headers in (
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors"},
            {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "script"},
            {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
        ):
            assert ask(dashboard.port, b"/api/runs", **headers).status in (401, 403), headers
        kept = ask(dashboard.port, b"/")
        assert not any(name.startswith("access-control") for name, _ in kept.headers)


def test_a_browser_that_is_refused_gets_no_markup_but_the_page_s_own(place: Path) -> None:
    with dash(place) as dashboard:
        for text in MARKUP:
            for target in (b"/%b", b"/api/runs?%b=1", b"/api/runs?cursor=%b", b"/api/runs/%b"):
                asked = target % as_path(text)[0]
                answer = ask(dashboard.port, asked, Accept="text/html,application/xhtml+xml,*/*;q=0.8")
                check_page_of(answer, asked)


def test_links_that_lead_out_of_the_directory_are_not_followed(place: Path, tmp_path: Path) -> None:
    outer = MadeRun(tmp_path / "elsewhere", "outer")
    outer.grow(5)
    outer.end()
    (place / "linked").symlink_to(outer.directory.parents[1])
    (place / "Acrobot-v1" / "linked").symlink_to(outer.directory.parent)
    stolen = MadeRun(place, "stolen")
    stolen.grow(5)
    for name in (
        "config.json",
        "train_episodes.jsonl",
        "eval_episodes.jsonl",
        "metrics.jsonl",
        "events.jsonl",
    ):
        (stolen.directory / name).unlink(missing_ok=True)
        (stolen.directory / name).symlink_to(tmp_path / "key.txt")
    named = MadeRun(place, "named")
    (named.directory / "metadata.json").unlink()
    (named.directory / "metadata.json").symlink_to(outer.directory / "metadata.json")
    with OPENED.watched() as paths, dash(place) as dashboard:
        ids = ids_of(dashboard)
        assert "outer" not in dashboard.ask("/api/runs").text, "neither its name nor its path"
        for run_id in ids:
            for path in QUERIES:
                needed = NEEDED.get(path, f"ids={run_id}" if path in ("/api/diff", "/api/sparks") else "")
                answer = ask(dashboard.port, f"{path}?{needed}".format(id=run_id).encode())
                assert SECRET.encode() not in answer.body
                assert answer.status < 500
            assert SECRET not in dashboard.ask(f"/api/runs/{run_id}").text
    assert outside(sorted(paths), place) == []


@pytest.mark.parametrize("texts", [FEW, pytest.param(TEXTS, marks=pytest.mark.faults)], ids=["few", "all"])
def test_hostile_texts_of_files_come_back_as_they_are(tmp_path: Path, texts: Sequence[str]) -> None:
    names = make_hostile_runs(tmp_path / "runs", texts)
    broken_run(tmp_path / "runs", "<b>")
    with dash(tmp_path / "runs") as dashboard:
        ids = ids_of(dashboard)
        runs = {run["name"]: run for run in dashboard.runs().values()}
        assert set(runs) == {*names, "loud", "broken"}
        assert all(runs[name]["env"] == runs[name]["agent"] == name for name in names)
        assert runs["broken"]["status"] == "broken"
        loud = f"/api/runs/{runs['loud']['id']}"
        config = dashboard.get(loud)["config"]
        assert config == {
            "env": "E",
            "agent": "A",
            "agent_settings": dict(zip(texts, texts, strict=True)),
            "text": list(texts),
        }
        episodes = dashboard.get(f"{loud}/episodes", size=200, order="asc")
        assert episodes["n"] == len(texts)
        for row, text in zip(episodes["rows"], texts, strict=False):
            assert row["actor_id"] == text
            assert row["extras"] == {text: float(row["episode"])}
        for number, text in enumerate(texts, 1):
            params = {"name": f"train.extras.{text}", "points": 5000}
            answer = dashboard.ask(f"{loud}/series", params=params)
            if len(f"train.extras.{text}") > 300:
                assert answer.status_code == 422, text
                continue
            [series] = answer.json()["series"]
            assert series["name"] == f"train.extras.{text}"
            assert series["mean"] == [float(number) if x == number else None for x in series["x"]]
        events = dashboard.get(f"{loud}/events")["rows"]
        assert any(texts[-1] in event["sentence"] for event in events)
        assert len(dashboard.get("/api/diff", ids=",".join(ids[:100]))["ids"]) == len(ids[:100])


@pytest.mark.faults
def test_not_even_the_name_of_a_hostile_path_is_looked_up(place: Path, tmp_path: Path) -> None:
    """With strace, which also sees what Python's audit does not, such as ``stat``."""
    try:
        subprocess.run(["strace", "-V"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    words = ["strace", "-f", "-qq", "-s", "4096", "-e", "trace=%file", "-o", str(trace)]
    words += [sys.executable, "-m", "stoker", "dash", str(place), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            port = int(re.search(r":(\d+)", line.partition("://")[2])[1])
            run_id = ask(port, b"/api/runs").json["runs"][0]["id"]
            for before, behind in targets(run_id):  # what imports something late has done so
                ask(port, before + b"x" + behind)
            mark = trace.stat().st_size
            send(port, run_id, STRINGS, place.parent / "key.txt", everywhere=False)
        finally:
            os.killpg(process.pid, 15)
    with trace.open(errors="replace") as file:
        file.seek(mark)
        named = {match for line in file for match in re.findall(r'"((?:[^"\\]|\\.)*)"', line)}
    named.discard("")  # of a descriptor
    assert named, "the tracer sees something"
    assert outside(sorted(named), place) == []
