"""Who is let in, what may be asked for, and what a hostile request gets: one clear refusal."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from benchmarks.made_runs import MadeRun
from dashes import Dash, dash
from starlette.applications import Starlette
from starlette.routing import Mount

from stoker import ConfigError
from stoker.dashboard import dashboard_lifespan, make_app
from stoker.dashboard.login import Login
from stoker.service.auth import Gate
from stoker.service.tokens import Principal, Tokens


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dash]:
    root = tmp_path_factory.mktemp("runs")
    run = MadeRun(root)
    run.grow(5)
    run.end()
    (root.parent / "secret.json").write_text('{"secret": 1}')
    with dash(root) as found:
        yield found


FOREIGN = (
    {"host": "evil.example"},
    {"host": "127.0.0.1.evil.example"},
    {"host": ""},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
)


def test_pages_of_other_sites_are_refused(page: Dash) -> None:
    for headers in FOREIGN:
        for path in ("/", "/api/runs", "/api/stream", "/login"):
            response = page.ask(path, headers=headers)
            assert response.status_code in (403, 421), (headers, path)
            assert "access-control-allow-origin" not in response.headers
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert page.ask("/api/runs", headers=link).status_code == 200
    for host in ("localhost:1", "[::1]:9", "127.0.0.2"):
        assert page.ask("/api/runs", headers={"host": host}).status_code == 200


def test_only_reading_is_possible(page: Dash) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        response = page.client.request(method, "/api/runs")
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD"), method
    head = page.client.head("/api/runs")
    assert (head.status_code, head.content) == (200, b"")


def test_each_answer_protects_its_page(page: Dash) -> None:
    for path in ("/", "/api/runs", "/api/nothing", "/api/runs?x"):
        headers = page.ask(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def raw(page: Dash, target: str) -> tuple[int, bytes]:
    """Send a target as it is: a client would tidy it."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=30) as connection:
        head = f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
        connection.sendall(head.encode("latin-1"))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split(b" ", 2)[1]), answer


UP = ("../secret.json", "..%2fsecret.json", "%2e%2e/secret.json", "..%5csecret.json", "....//secret.json",
      "%252e%252e%252fsecret.json", "..%00/secret.json", "%c0%ae%c0%ae/secret.json")  # fmt: skip


def test_no_text_of_a_request_becomes_a_path(page: Dash) -> None:
    run = page.only()
    for up in (*UP, str(page.index.root.parent / "secret.json")):
        targets = (
            f"/{up}",
            f"/page/{up}",
            f"/api/runs/{up}",
            f"{run}/{up}",
            f"{run}/series?name={up}",
            f"/api/stream?run={up}",
            f"/api/diff?ids={up}",
            f"/api/sparks?ids={up}",
            f"/api/compare?ids={up}",
            f"{run}/events?kind={up}",
        )
        for target in targets:
            status, answer = raw(page, target)
            assert status in (400, 404, 422), target
            assert b'"secret"' not in answer, target


RUN_QUERIES: dict[str, tuple[str, ...]] = {
    "series": (
        "", "name=", "name=train.total_reward&points=1", "name=train.total_reward&points=1e9",
        "name=train.total_reward&points=99999999999999999999", "name=train.total_reward&x=blocks",
        "name=train.total_reward&from=nan", "name=train.total_reward&to=inf", "name=a&from=1_0",
        "name=train.total_reward&smooth=mean:0", "name=train.total_reward&smooth=ema:1",
        "name=train.total_reward&smooth=mean:1e300", "name=train.total_reward&from=1&from=2",
        "name=train.total_reward&bogus=1", "&".join(f"name=n{i}" for i in range(33)), "name=" + "a" * 400,
    ),
    "episodes": (
        "size=0", "size=1001", "page=-1", "page=1e3", "kind=both", "sort=extras", "order=up",
        "status=Continuing", "reward_from=x", "from=--1",
    ),
    "events": ("kind=nothing", "level=loud", "size=0", "order=1"),
    "shares": ("points=0", "x=1"),
    "evaluations": ("x=1",),
}  # fmt: skip


def test_each_parameter_is_known_and_within_its_bounds(page: Dash) -> None:
    run = page.only()
    for path, queries in RUN_QUERIES.items():
        for query in queries:
            response = page.ask(f"{run}/{path}?{query}")
            assert response.status_code in (404, 422), (path, query)
            problem = response.json()
            assert problem["path"], (path, query)
            assert len(problem["detail"]) < 500, (path, query)
    ids = ",".join(f"{number:016x}" for number in range(101))
    for target in (
        "sparks?ids=",
        "sparks",
        f"sparks?ids={ids}",
        f"diff?ids={ids}",
        "compare?ids=zz",
        "runs?a=b",
    ):
        assert page.ask(f"/api/{target}").status_code == 422, target
    assert page.ask("/api/diff?ids=" + "0" * 16).status_code == 404
    assert page.ask("/api/runs?cursor=" + "a" * 17_000).status_code == 422


def test_a_wrong_name_gets_the_nearest_ones(page: Dash) -> None:
    run = page.only()
    response = page.ask(f"{run}/series?name=train.totl_reward")
    assert response.status_code == 404
    assert "train.total_reward" in response.json()["detail"]
    assert response.json()["status"] == 404
    assert "api/runs lists" in page.ask(f"/api/runs/{'0' * 16}").json()["detail"]
    shown = page.ask("/api/runs/<script>", headers={"accept": "text/html"})
    assert (shown.status_code, shown.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "&lt;script&gt;" in shown.text
    assert "<script" not in shown.text


def test_a_login_link_is_good_once(tmp_path: Path) -> None:
    used: list[int] = []
    login = Login(lambda: used.append(1))
    with dash(tmp_path, gate=Gate(hosts=("*",)), login=login) as page:
        refused = page.ask("/api/runs")
        assert refused.status_code == 401
        assert "terminal" in refused.json()["detail"]
        shown = page.ask("/", headers={"accept": "text/html"})
        assert (shown.status_code, shown.headers["content-type"]) == (401, "text/html; charset=utf-8")
        link = login.link
        assert page.client.head(f"/{link}").status_code == 405  # a preview must not use it up
        assert page.ask("/login?code=wrong").status_code == 401
        assert used == []
        entered = page.ask(f"/{link}")
        assert entered.status_code == 200
        cookie = entered.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {*cookie.split("; ")}
        assert page.get("/api/runs")["runs"] == []
        assert (used, page.ask(f"/{link}").status_code) == ([1], 401)
        assert login.link != link
        other = httpx2.get(f"{page.url}/api/runs", headers={"cookie": cookie[:-1].partition(";")[0][:-1]})
        assert other.status_code == 401


def test_a_token_needs_the_scope_read(tmp_path: Path) -> None:
    def principal(name: str, *scopes: Any) -> Principal:
        return Principal(name=name, sha256=hashlib.sha256(name.encode()).hexdigest(), scopes=scopes)

    gate = Gate(Tokens([principal("reader", "read"), principal("actor", "act")]))
    with dash(tmp_path, gate=gate) as page:
        for token, status in (("reader", 200), ("actor", 403), ("nobody", 401)):
            assert page.ask("/api/runs", headers={"authorization": f"Bearer {token}"}).status_code == status
        assert page.ask("/api/runs").status_code == 401


@pytest.mark.anyio
async def test_it_can_be_mounted_anywhere(tmp_path: Path) -> None:
    MadeRun(tmp_path).end()
    app = make_app(tmp_path)
    host = Starlette(routes=[Mount("/some/where", app)])
    transport = httpx2.ASGITransport(app=host)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        early = await client.get("/some/where/api/runs")
        assert early.status_code == 503
        assert "dashboard_lifespan" in early.json()["detail"]
        async with dashboard_lifespan(app):
            answer = await client.get("/some/where/api/runs")
            assert len(answer.json()["runs"]) == 1
            assert (await client.get("/some/where/")).headers["content-type"].startswith("text/html")
            assert (await client.get("/some/where")).headers["location"].endswith("/some/where/")
        assert (await client.get("/some/where/api/runs")).status_code == 503


def test_what_is_no_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/below", "nul\0"):
        with pytest.raises(ConfigError, match=r"runs directory .*: "):
            make_app(tmp_path / name)


def test_an_empty_directory_says_how_to_begin(tmp_path: Path) -> None:
    with dash(tmp_path) as page:
        page.runs()
        assert f"stoker train CartPole-v1 --runs-dir {tmp_path}" in page.get("/api/runs")["hint"]


@pytest.mark.parametrize("below", ["", "CartPole-v1/v1/20260101_000000"])
def test_a_directory_that_does_not_exist_yet_shows_its_runs_once_it_does(tmp_path: Path, below: str) -> None:
    root = tmp_path / "runs" / below
    with dash(root) as page:
        assert page.runs() == {}
        answer = page.get("/api/runs")
        assert answer["left_out"] == []
        assert answer["hint"].startswith(f"{root} does not exist yet")
        with page.listen() as events:
            events.next("runs")
            MadeRun(tmp_path / "runs").end()
            events.next("runs")
            assert len(page.runs()) == 1
            assert page.get("/api/runs")["hint"] is None


def test_hostile_names_and_values_come_back_as_texts(tmp_path: Path) -> None:
    names = (
        'a"><img src=x onerror=alert(1)>',
        "\u202eltr 'quotes'",
        "=cmd|' C calc'!A0",
        "x" * 200,
        b"\xff\xfe".decode(errors="surrogateescape"),
    )
    config = {"env": "<img src=x onerror=alert(1)>", "agent": "\ud7ff", "deep": {"a" * 300: "b" * 10_000}}
    for name in names:
        run = MadeRun(tmp_path, version="v1", config=config)
        run.grow(2)
        run.end()
        metadata = json.loads((run.directory / "metadata.json").read_text())
        metadata["name"] = name.encode(errors="replace").decode()
        (run.directory / "metadata.json").write_text(json.dumps(metadata))
        (tmp_path / "CartPole-v1").rename(tmp_path / name)
    with dash(tmp_path) as page:
        answer = page.runs()
        assert len(answer) == len(names)
        for run in answer.values():
            assert run["env"] == config["env"]
            assert max(map(len, run["settings"])) <= 200
            details = page.get(f"/api/runs/{run['id']}")
            assert details["config"] == config
            page.get(f"/api/runs/{run['id']}/series", name="train.total_reward")
