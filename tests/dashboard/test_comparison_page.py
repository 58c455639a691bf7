"""The comparison of runs and the report in a real browser: what a person does, and what the console says."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from benchmarks.made_runs import MadeRun, config_of, make_runs
from browsing import Window, needs_browser
from dashes import Dash, dash
from hostile_runs import make_hostile_runs
from hostile_texts import MARKUP

from stoker.dashboard.report import write_report

pytestmark = needs_browser

LEGEND = ".compare-legend .legend-switch"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions with three seeds each, the last of them shorter; a run without an episode; a formula."""
    root = tmp_path_factory.mktemp("compared") / "runs"
    for place in range(6):
        version, seed = divmod(place, 3)
        rate = (1e-3, 3e-4)[version]
        config = config_of(seed=seed, agent_settings={"learning_rate": rate})
        run = MadeRun(
            root, "CartPole-v1", f"v{version + 1}", f"20260101_00000{place}", config=config, seed=place
        )
        for _ in range(4 if seed == 2 else 5):
            run.grow(60)
            run.add_record()
            run.add_evaluation()
        run.end()
    MadeRun(root, "CartPole-v1", "empty").end()
    formula = MadeRun(root, "=cmd|'calc'!A0", "+1", "@SUM(1,2)")
    formula.grow(2)
    formula.end()
    return root


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[Dash]:
    with dash(root) as found:
        yield found


def ids_of(served: Dash, part: str) -> str:
    """The ids of the runs whose paths have that part."""
    return ",".join(run["id"] for path, run in served.runs().items() if part in path)


def state_of(page: Any) -> dict[str, str]:
    """What the address says behind the view's name."""
    return dict(parse_qsl(urlsplit(page.url).fragment.partition("?")[2]))


def pressed(page: Any) -> list[str]:
    return [one.get_attribute("aria-pressed") for one in page.locator(LEGEND).all()]


def test_a_comparison_is_all_in_its_address(browser: Any, served: Dash) -> None:
    window = Window(browser, served.url, size=(1440, 900))
    page = window.open("#/compare")
    page.get_by_label("All runs of CartPole-v1/v1").check()
    page.get_by_label("All runs of CartPole-v1/v2").check()
    page.get_by_label("All runs of CartPole-v1/empty").check()
    page.get_by_text("7 runs chosen").click()
    labels = page.locator(f"{LEGEND} .label")
    labels.nth(1).wait_for()
    caption = page.locator(".compare-caption")
    caption.get_by_text("Left out: empty").wait_for()
    assert labels.all_inner_texts() == ["CartPole-v1/v1", "CartPole-v1/v2"]
    assert "2 of 3 beyond step 48,000" in caption.inner_text()
    [key] = page.locator(".differences tbody th").all_inner_texts()[1:]
    assert key == "agent_settings.learning_rate"
    cells = page.locator(".differences tbody tr").nth(1).locator("td")
    assert cells.all_inner_texts() == ["0.001", "0.0003"]

    page.locator(LEGEND).nth(0).click()
    assert pressed(page) == ["false", "true"]
    page.locator(LEGEND).nth(0).click(modifiers=["Shift"])
    assert pressed(page) == ["true", "false"]
    page.get_by_role("button", name="IQM").click()
    page.get_by_role("button", name="Episodes").click()
    page.get_by_label("Series").select_option("train.total_reward")
    page.get_by_label("Mean of").press("ArrowRight")
    page.get_by_role("button", name="Log", exact=True).click()
    page.get_by_label("Also equal values").check()
    page.locator(".compare-picture[aria-busy='false']").wait_for()
    assert "beyond episode 240" in caption.inner_text()
    values = page.locator(".compare-legend tbody td:nth-child(3)")
    given = [float(text) for text in values.all_inner_texts()]
    page.get_by_role("button", name="Last").click()
    assert [float(text) for text in values.all_inner_texts()] == sorted(given, reverse=True)
    assert pressed(page) == (["true", "false"] if given[0] > given[1] else ["false", "true"])
    page.get_by_role("button", name="Line", exact=True).click()
    state = state_of(page)
    assert set(state.pop("ids").split(",")) == set(ids_of(served, "CartPole-v1").split(","))
    hidden = state.pop("hide")
    assert state == {
        "statistic": "iqm", "x": "episodes", "series": "train.total_reward", "smooth": "mean:100",
        "scale": "log", "all": "1",
    }  # fmt: skip

    overlay = page.locator(".compare-chart .u-over").bounding_box()
    page.mouse.move(overlay["x"] + 200, overlay["y"] + 100)
    page.mouse.down()
    page.mouse.move(overlay["x"] + 400, overlay["y"] + 100, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Show all").wait_for()
    page.reload()
    page.get_by_role("button", name="Show all").wait_for()
    state = state_of(page)
    assert 0 < float(state["from"]) < float(state["to"]) < 300
    assert state["hide"] == hidden
    assert pressed(page) == ["true", "false"]
    assert page.get_by_label("Series").input_value() == "train.total_reward"
    assert page.locator(".differences tbody tr").count() > 20
    page.go_back()
    page.get_by_role("button", name="Show all").wait_for(state="hidden")
    assert "from" not in state_of(page)
    window.check()
    window.close()


def test_a_comparison_is_saved_as_it_is_drawn(browser: Any, served: Dash, tmp_path: Path) -> None:
    ids = ",".join(ids_of(served, part) for part in ("/v1/", "calc"))
    query = f"ids={ids}&series=train.total_reward&group_by=version&statistic=mean"
    answer = served.get("/api/compare", **dict(parse_qsl(query)), points=400, smooth="mean:50")
    window = Window(browser, served.url)
    page = window.open(f"#/compare?{query}")
    page.locator(LEGEND).nth(1).wait_for()
    files = {}
    for kind in ("CSV", "PNG"):
        with page.expect_download() as download:
            page.get_by_role("button", name=kind).click()
        assert download.value.suggested_filename == f"compare-train.total_reward-steps.{kind.lower()}"
        download.value.save_as(tmp_path / kind)
        files[kind] = (tmp_path / kind).read_bytes()
    rows = list(csv.DictReader(io.StringIO(files["CSV"].decode())))
    assert {row["line"] for row in rows} == {"CartPole-v1/v1", "'=cmd|'calc'!A0/+1"}, "no cell is a formula"
    for group in answer["groups"]:
        own = [row for row in rows if row["line"].endswith(group["label"]) and not row["run"]]
        assert [float(row["steps"]) for row in own] == group["x"]
        assert [float(row["Total reward"]) for row in own] == group["mid"]
        assert [int(row["runs"]) for row in own] == group["n"]
    assert {row["run"] for row in rows if row["line"] == "CartPole-v1/v1"} >= {
        "",
        "CartPole-v1 · v1 · seed 0",
    }
    assert files["PNG"].startswith(b"\x89PNG")
    width, height = (int.from_bytes(files["PNG"][at : at + 4], "big") for at in (16, 20))
    assert width > 600
    assert height > 400
    window.check()
    window.close()


def test_a_comparison_follows_a_run_that_is_trained(browser: Any, tmp_path: Path) -> None:
    runs = make_runs(tmp_path, 2, 40, is_held=True)
    with dash(tmp_path) as served:
        ids = ids_of(served, "")
        window = Window(browser, served.url)
        page = window.open(f"#/compare?ids={ids}&series=train.total_reward&group_by=none&smooth=none")
        last = page.locator(".compare-legend tbody tr").nth(0).locator("td").nth(0)
        last.wait_for()
        assert "step 8,000" in last.get_attribute("title")
        for run in runs:
            run.grow(10)
        page.locator(".compare-legend td[title='step 10,000']").nth(1).wait_for()
        window.check()
        window.close()
    for run in runs:
        run.release()


def test_a_comparison_fits_a_telephone_and_needs_no_mouse(browser: Any, served: Dash) -> None:
    ids = ids_of(served, "CartPole-v1")
    window = Window(browser, served.url, size=(390, 844), has_touch=True, color_scheme="dark")
    page = window.open(f"#/compare?ids={ids}")
    page.locator(LEGEND).nth(1).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator(LEGEND).nth(0).focus()
    page.keyboard.press("Enter")
    assert pressed(page) == ["false", "true"]
    assert page.evaluate("document.activeElement.dataset.key") == state_of(page)["hide"]
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.locator(".legend-run").nth(2).wait_for()
    assert page.locator(".legend-run").count() == 3
    window.check()
    window.close()


def test_what_is_not_there_is_said(browser: Any, served: Dash) -> None:
    one = ids_of(served, "20260101_000001")
    window = Window(browser, served.url)
    page = window.open(
        f"#/compare?ids={one},{'0' * 16},../../etc&hide=<b>&from=nan&to=1&statistic=worst&x=weeks"
    )
    page.locator(LEGEND).wait_for()
    assert "1 run of this address is not here" in page.locator(".compare-caption").inner_text()
    window.check()
    page = window.open(f"#/compare?ids={one}&group_by=no.such.key")
    problem = page.locator(".compare [role=alert]")
    problem.wait_for()
    assert "no.such.key" in problem.inner_text()
    assert [fault for fault in window.faults if "422" not in fault] == []
    window.close()


def test_a_report_opens_from_a_file_and_asks_for_nothing(browser: Any, root: Path, tmp_path: Path) -> None:
    target = tmp_path / "a report.html"
    write_report(target, sorted(path.parent for path in root.rglob("metadata.json")))
    window = Window(browser, tmp_path.as_uri(), offline=True)
    page = window.open("a%20report.html#/")
    page.locator(".report-note").wait_for()
    assert page.locator(".row.run").count() == 8
    page.get_by_role("link", name="Compare").nth(0).click()
    page.locator(LEGEND).wait_for()
    page.get_by_label("Series").select_option("train.total_reward")
    page.get_by_label("Group by").select_option("none")
    page.locator(LEGEND).nth(2).wait_for()
    page.get_by_role("button", name="Time").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "compare-train.total_reward-time.csv"
    page.get_by_role("link", name="open").nth(0).click()
    page.locator(".chart-box canvas").nth(1).wait_for()
    page.get_by_role("tab", name="Episodes").click()
    page.get_by_text("300 episodes").wait_for()
    window.check()
    assert {url.partition("#")[0] for url in window.requests if not url.startswith(("data:", "blob:"))} == {
        target.as_uri()
    }
    window.close()


@pytest.mark.faults
def test_hostile_texts_in_a_report_stay_texts(browser: Any, tmp_path: Path) -> None:
    make_hostile_runs(tmp_path / "runs", ("\u2028", *MARKUP[:20]))
    directories = sorted(path.parent for path in (tmp_path / "runs").rglob("metadata.json"))
    write_report(tmp_path / "report.html", directories)
    window = Window(browser, tmp_path.as_uri(), offline=True)
    page = window.open("report.html#/")
    page.locator(".row.run").nth(5).wait_for()
    found = page.evaluate("STOKER_REPORT.answer('api/runs').runs.map(({ id, name }) => [name, id])")
    loud = dict(found)["loud"]
    for address in ("", "?tab=events", "?tab=config"):
        page = window.open(f"report.html#/run/{loud}{address}")
        page.locator("h1", has_text="loud").wait_for()
    page = window.open(
        f"report.html#/compare?ids={','.join(run_id for _, run_id in found)}&series=train.total_reward&all=1"
    )
    page.locator(LEGEND).nth(5).wait_for()
    window.check()
    window.close()
