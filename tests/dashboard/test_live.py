"""Runs that change under the page: they grow, end, break, are replaced or removed."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from benchmarks.made_runs import MadeRun
from dashes import Dash, dash

from stoker.dashboard import Index
from stoker.dashboard.stream import MOST_STREAMS
from stoker.writer import encode_rows

TRAIN = "train_episodes.jsonl"


def until(page: Dash, path: str, name: str, wanted: Any) -> dict[str, Any]:
    """The list's line of a run once it has that value."""
    with page.listen() as events:
        while (line := page.runs().get(path, {})).get(name) != wanted:
            events.next("runs")
    return line


def test_rows_that_are_written_are_appended_to_the_curve(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, is_held=True)
    run.grow(300)
    with dash(tmp_path) as page:
        place = f"{page.only()}/series"
        asked = {"name": "train.total_reward", "smooth": "ema:0.9", "points": 1000}
        answer = page.get(place, **asked)
        first = answer["cursor"]
        found = {key: list(answer["series"][0][key]) for key in ("x", "mean", "smooth")}
        for n in (1, 50, 0, 7):
            run.grow(n)
            answer = page.get(place, **asked, cursor=answer["cursor"])
            [series] = answer["series"]
            assert (answer["is_appended"], len(series["x"])) == (True, n)
            for key in found:
                found[key] += series[key]
        [whole] = page.get(place, **asked)["series"]
        assert found == {key: whole[key] for key in found}
        older = page.get(place, **asked, cursor=first)
        assert (older["is_appended"], older["series"][0]["x"]) == (True, whole["x"][300:])
        ahead = page.get(place, **asked, cursor=f"{first.rpartition('-')[0]}-999")
        assert (ahead["is_appended"], ahead["series"][0]["n"]) == (False, 358)
        other = page.get(place, **{**asked, "smooth": "ema:0.8"}, cursor=answer["cursor"])
        assert not other["is_appended"]
        run.grow(1001)
        assert not page.get(place, **asked, cursor=answer["cursor"])["is_appended"]
    run.end()


def test_a_listener_gets_cursors_when_a_run_grows_and_ends(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, is_held=True)
    run.grow(10)
    with dash(tmp_path) as page:
        run_id = page.only().rpartition("/")[2]
        with page.listen(run=run_id) as events:
            first = events.next("run")
            assert (first["id"], first["status"], first["share_read"]) == (run_id, "live", 1.0)
            run.grow(5)
            second = events.next("run")
            while second["total_steps"] != 15 * 200:
                second = events.next("run")
            assert second["cursor"] != first["cursor"]
            run.end()
            while events.next("run")["status"] == "live":
                pass
        assert until(page, "CartPole-v1/v1/20260101_000000", "status", "stopped")["total_episodes"] == 15


def test_runs_that_appear_and_go_are_seen(tmp_path: Path) -> None:
    MadeRun(tmp_path).end()
    with dash(tmp_path) as page:
        page.runs()
        cursor = page.get("/api/runs")["cursor"]
        new = MadeRun(tmp_path, "Another-v1", "v9")
        new.end()
        path = "Another-v1/v9/20260101_000000"
        line = until(page, path, "status", "stopped")
        partial = page.get("/api/runs", cursor=cursor)
        assert (partial["is_partial"], [run["id"] for run in partial["runs"]]) == (True, [line["id"]])
        assert partial["runs"][0]["settings"]["env"] == "CartPole-v1"
        new.grow(3)
        until(page, path, "total_episodes", 3)
        [grown] = page.get("/api/runs", cursor=partial["cursor"])["runs"]
        assert (grown["total_episodes"], "settings" in grown) == (3, False)
        shutil.rmtree(new.directory.parent)
        until(page, path, "status", None)
        gone = page.get("/api/runs", cursor=partial["cursor"])
        assert (gone["runs"], gone["removed"]) == ([], [line["id"]])
        assert page.ask(f"/api/runs/{line['id']}").status_code == 404
        assert not page.get("/api/runs", cursor="0.1")["is_partial"]


def test_a_file_that_is_replaced_or_cut_back_is_read_anew(tmp_path: Path) -> None:
    run, other = MadeRun(tmp_path), MadeRun(tmp_path / "elsewhere", seed=1)
    run.grow(100)
    other.grow(40)
    with dash(tmp_path) as page:
        place = f"/api/runs/{page.runs()['CartPole-v1/v1/20260101_000000']['id']}/series"
        asked = {"name": "train.total_reward"}
        first = page.get(place, **asked)
        os.replace(other.directory / TRAIN, run.directory / TRAIN)  # noqa: PTH105 - as a program does
        second = page.get(place, **asked, cursor=first["cursor"])
        assert (second["is_appended"], second["series"][0]["n"]) == (False, 40)
        whole = (run.directory / TRAIN).read_bytes()
        (run.directory / TRAIN).write_bytes(b"".join(whole.splitlines(keepends=True)[:9]) + b'{"torn":')
        third = page.get(place, **asked, cursor=second["cursor"])
        assert (third["is_appended"], third["series"][0]["n"]) == (False, 9)
        (run.directory / TRAIN).unlink()
        assert page.ask(place, params=asked).status_code in (200, 404)


def test_damage_is_passed_over_and_named(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    run.grow(3)
    with (run.directory / TRAIN).open("ab") as file:
        file.write(b'{"total_reward":' + b"9" * 10_000_000 + b"}\n")
        file.write(encode_rows([{"not": "an episode"}]))
    run.grow(3)
    with dash(tmp_path) as page:
        details = page.get(page.only())
        assert len(details["problems"]) >= 1
        assert all(len(problem) < 1000 for problem in details["problems"])
        assert any("4" in problem for problem in details["problems"])
        [series] = page.get(f"{page.only()}/series", name="train.total_reward")["series"]
        assert series["n"] == 6


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name": 1}', b"\0" * 100, b"[" * 100_000])
def test_a_broken_run_is_shown_with_the_reason(tmp_path: Path, content: bytes) -> None:
    run = MadeRun(tmp_path)
    run.grow(2)
    run.end()
    (run.directory / "metadata.json").write_bytes(content)
    with dash(tmp_path) as page:
        [line] = page.runs().values()
        assert line["status"] == "broken"
        assert "metadata.json" in line["reason"]
        details = page.get(page.only())
        assert (details["status"], details["attempts"]) == ("broken", [])
        (run.directory / "config.json").write_bytes(content)
        assert page.get(page.only())["config"] in (None, [], {"name": 1})


def test_a_killed_run_is_not_live(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, is_held=True)
    run.grow(2)
    with dash(tmp_path) as page:
        path = "CartPole-v1/v1/20260101_000000"
        assert page.runs()[path]["status"] == "live"
        run.release()
        assert "killed" in until(page, path, "status", "crashed")["reason"]


def test_a_poll_with_nothing_new_is_short(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, is_held=True)
    run.grow(50)
    run.add_evaluation()
    with dash(tmp_path) as page:
        place = page.only()
        for path in (
            "/",
            "/api/runs",
            place,
            f"{place}/series?name=train.total_reward&smooth=mean:10",
            f"{place}/evaluations",
            f"{place}/episodes",
            f"{place}/events",
            f"{place}/shares",
            f"/api/sparks?ids={place.rpartition('/')[2]}",
            f"/api/compare?ids={place.rpartition('/')[2]}",
            f"/api/diff?ids={place.rpartition('/')[2]}",
        ):
            etag = page.ask(path).headers["etag"]
            again = page.ask(path, headers={"if-none-match": etag})
            n_bytes = len(again.content) + sum(
                len(key) + len(value) + 4 for key, value in again.headers.items()
            )
            assert (again.status_code, n_bytes < 300) == (304, True), path
            if path != "/" and "diff" not in path:
                run.grow(1)
                fresh = page.ask(path, headers={"if-none-match": etag})
                while path == "/api/runs" and fresh.status_code == 304:
                    fresh = page.ask(path, headers={"if-none-match": etag})
                assert fresh.status_code == 200, path
    run.end()


def test_nothing_is_written_and_nothing_need_be_writable(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    run.grow(20)
    run.end()
    (run.directory / ".lock").unlink(missing_ok=True)

    def seen() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}

    places = [path for path in (tmp_path, *tmp_path.rglob("*")) if path.is_dir()]
    for place in places:
        place.chmod(0o555)
    before = seen()
    try:
        with dash(tmp_path) as page, page.listen() as events:
            events.next("runs")
            place = page.only()
            for path in (
                "series?name=train.length",
                "episodes",
                "events",
                "evaluations",
                "episodes.csv",
                "shares",
            ):
                assert page.ask(f"{place}/{path}").status_code == 200
        assert seen() == before
    finally:
        for place in places:
            place.chmod(0o755)


def test_streams_end_with_the_server(tmp_path: Path) -> None:
    MadeRun(tmp_path).end()
    with dash(tmp_path) as page, page.listen() as events:
        events.next("runs")
        page.server.end()
        events.rest()  # the server ends it, in good order


def test_only_so_many_may_listen(tmp_path: Path) -> None:
    with dash(tmp_path) as page, contextlib.ExitStack() as others:
        page.runs()
        for _ in range(MOST_STREAMS):
            others.enter_context(page.index.viewers.watching())
        refused = page.ask("/api/stream")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        others.close()
        with page.listen() as events:
            events.next("runs")


def test_what_was_looked_at_longest_ago_is_forgotten_and_read_again(tmp_path: Path) -> None:
    for number in range(4):
        run = MadeRun(tmp_path, version=f"v{number}", seed=number)
        run.grow(5_000)
        run.end()
    with dash(tmp_path, memory_bytes=1 << 20) as page:
        ids = [run["id"] for run in page.runs().values()]
        asked = [page.get(f"/api/runs/{one}/series", name="train.total_reward") for one in ids]
        loaded = [entry.id for entry in page.index.entries.values() if entry.history is not None]
        assert ids[-1] in loaded
        assert ids[0] not in loaded
        again = page.get(f"/api/runs/{ids[0]}/series", name="train.total_reward", cursor=asked[0]["cursor"])
        assert (again["is_appended"], again["series"]) == (False, asked[0]["series"])


def test_the_end_of_a_long_run_is_shown_while_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = MadeRun(tmp_path)
    run.grow(10_000)
    run.end()
    monkeypatch.setattr("stoker.dashboard.reading.PIECE_BYTES", 100_000)
    with dash(tmp_path) as page:
        run_id = page.only().rpartition("/")[2]
        with page.listen(run=run_id) as events:
            first = page.get(f"{page.only()}/series", name="train.total_reward", points=20_000)
            assert first["share_read"] < 1
            assert first["series"][0]["x"][-1] == 10_000 * 200
            early = page.get(f"{page.only()}/series", name="metrics.not/there.yet")
            assert (early["share_read"] < 1, early["series"][0]["x"]) == (True, [])
            while events.next("run")["share_read"] < 1:
                pass
        answer = page.get(f"{page.only()}/series", name="train.total_reward", points=20_000)
        assert (answer["share_read"], answer["series"][0]["n"]) == (1.0, 10_000)


def test_links_out_of_the_directory_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "runs", tmp_path / "outside"
    run, other = MadeRun(root), MadeRun(outside)
    run.grow(2)
    other.grow(2)
    (root / "out").symlink_to(outside)
    (root / "in").symlink_to(root / "CartPole-v1")
    (root / "round").symlink_to(root)
    (root / "nowhere").symlink_to(tmp_path / "missing")
    linked = MadeRun(root, version="linked")
    (linked.directory / TRAIN).symlink_to(other.directory / TRAIN)
    with dash(root) as page:
        lines = page.runs()
        assert not any(path.startswith("out") for path in lines)
        assert any(path.startswith("in/") for path in lines)
        assert "symbolic link out of" in page.get("/api/runs")["left_out"][0]
        line = lines["CartPole-v1/linked/20260101_000000"]
        assert (line["status"], TRAIN in line["reason"]) == ("broken", True)
        refused = page.ask(f"/api/runs/{line['id']}/series?name=train.total_reward")
        assert (refused.status_code, "symbolic link" in refused.json()["detail"]) == (404, True)


def test_a_run_is_read_by_one_thread_at_a_time(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    run.grow(1000)
    readers: list[int] = []
    most = 0

    async def look() -> None:
        import anyio

        index = Index(tmp_path)

        def compute(_: Any) -> int:
            nonlocal most
            readers.append(1)
            most = max(most, len(readers))
            found = len(index.viewers)
            readers.pop()
            return found

        async with anyio.create_task_group() as tasks:
            await tasks.start(index.run)
            await index.until_scanned()
            async with anyio.create_task_group() as readings:
                for _ in range(50):
                    readings.start_soon(index.read, next(iter(index.entries)), compute)
            index.close()

    import anyio

    anyio.run(look)
    assert most == 1
