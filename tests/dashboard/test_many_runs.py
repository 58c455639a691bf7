"""A directory of thousands of runs: each can be reached, and the page and its answers stay small."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from benchmarks.made_runs import MadeRun
from browsing import Window, needs_browser
from dashes import Dash, dash

from stoker.runs.metadata import RunMetadata, read_metadata

N_FEW, N_ALL = 3_000, 10_000
MOST_ROWS = 60
"""More than are in a window of that height, with those ahead of it on both sides."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(
    scope="module", params=[N_FEW, pytest.param(N_ALL, marks=pytest.mark.faults)], ids=["few", "all"]
)
def dashboard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dash]:
    root = tmp_path_factory.mktemp("many")
    one = MadeRun(root)
    one.end()
    metadata = read_metadata(one.directory)
    shutil.rmtree(one.directory)
    for k in range(request.param):
        make_run(root, k, metadata)
    with dash(root) as dashboard:
        assert len(dashboard.runs()) == request.param
        yield dashboard


def make_run(root: Path, k: int, metadata: RunMetadata) -> None:
    """A run without rows, five to a version."""
    fields = {name: getattr(metadata, name) for name in RunMetadata.__struct_fields__}
    fields |= {"version": f"v{k // 5 + 1}", "run_id": f"run-{k:05}"}
    directory = root / metadata.name / str(fields["version"]) / str(fields["run_id"])
    directory.mkdir(parents=True)
    (directory / "metadata.json").write_bytes(msgspec.json.encode(RunMetadata(**fields)))


def test_the_list_is_sent_compressed_once_and_then_not_again(dashboard: Dash) -> None:
    plain = dashboard.ask("/api/runs", headers={"accept-encoding": "identity"})
    small = dashboard.ask("/api/runs", headers={"accept-encoding": "gzip"})
    assert (plain.headers.get("content-encoding"), small.headers["content-encoding"]) == (None, "gzip")
    assert small.json() == plain.json()
    assert int(small.headers["content-length"]) < int(plain.headers["content-length"]) / 8
    news = dashboard.ask("/api/runs", params={"cursor": plain.json()["cursor"]})
    assert (news.json()["runs"], len(news.content) < 500) == ([], True)


@needs_browser
def test_each_run_can_be_scrolled_to_and_few_are_in_the_document(browser: Any, dashboard: Dash) -> None:
    expected = {run["id"] for run in dashboard.runs().values()}
    window = Window(browser, dashboard.url)
    page = window.open()
    page.get_by_text(f"{len(expected):,} runs").wait_for()
    seen, most = page.evaluate(
        """async () => {
          const seen = new Set()
          let most = 0
          const end = () => document.documentElement.scrollHeight - innerHeight
          for (let y = 0; ; y = Math.min(y + innerHeight, end())) {
            scrollTo(0, y)
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))
            const rows = document.querySelectorAll(".row[data-id], .row[data-group]")
            most = Math.max(most, rows.length)
            for (const row of rows) if (row.dataset.id) seen.add(row.dataset.id)
            if (y >= end()) return [[...seen], most]
          }
        }"""
    )
    assert set(seen) == expected
    assert most <= MOST_ROWS
    page.get_by_label("Filter runs").fill("run-02999")
    page.get_by_text(f"1 of {len(expected):,} runs").wait_for()
    assert page.locator(".row.run").count() == 1
    window.check()
    window.close()
