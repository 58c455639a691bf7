"""A person on the dashboard, with a real browser: from the list into a curve, to a comparison, and back.

Each test ends with what went wrong in the window: a word on the console, an exception, a request to another
origin, something that the content security policy stopped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.made_runs import MadeRun, make_runs
from browsing import Window, needs_browser
from dashes import Dash, dash
from hostile_runs import FEW, TEXTS, broken_run, make_hostile_runs
from sweeping import low_contrast, markup_of_runs, nameless, overflowing, unreachable

from stoker.runs.events import Logged

pytestmark = needs_browser

DESK, PHONE = (1280, 900), (390, 844)
N_EPISODES = 3_000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of five seeds, and a long run whose evaluations get better."""
    root = tmp_path_factory.mktemp("dashboard") / "runs"
    make_runs(root, 10, 60)
    long = MadeRun(root, "Long-v1", n_wanted=N_EPISODES, spikes=(1_500,))
    for _ in range(10):
        long.grow(N_EPISODES // 10)
        long.add_evaluation()
        for _ in range(5):
            long.add_record()
    long.end()
    return root


@pytest.fixture(scope="module")
def dashboard(root: Path) -> Iterator[Dash]:
    with dash(root) as dashboard:
        dashboard.runs()  # so that all are found
        yield dashboard


@pytest.fixture
def window(browser: Any, dashboard: Dash) -> Iterator[Window]:
    window = Window(browser, dashboard.url)
    yield window
    window.close()


def run_of(dashboard: Dash, name: str) -> str:
    """The view of the first run of that name."""
    return next(f"#/run/{run['id']}" for run in dashboard.runs().values() if run["name"] == name)


def ids_of(dashboard: Dash, most: int) -> str:
    return ",".join([run["id"] for run in dashboard.runs().values()][:most])


def address(page: Any) -> str:
    return page.evaluate("location.hash")


def spoken(page: Any, title: str) -> Any:
    """The chart of that title; its label says what it shows."""
    return page.locator(f".chart-box[aria-label^='{title}. ']")


def drawn(page: Any, title: str) -> str:
    """What the chart of that title says once it has data."""
    chart = spoken(page, title)
    chart.and_(page.locator("[aria-label*=' at last ']")).wait_for()
    return chart.get_attribute("aria-label")


def drag(page: Any, chart: Any, start: float, end: float) -> None:
    box = chart.locator(".u-over").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * start, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * (start + end) / 2, y, steps=3)
    page.mouse.move(box["x"] + box["width"] * end, y, steps=3)
    page.mouse.up()


def until_address(page: Any, pattern: str) -> None:
    page.wait_for_function("(pattern) => new RegExp(pattern).test(location.hash)", arg=pattern)


def test_from_the_list_into_a_curve_to_a_comparison_and_back(window: Window, dashboard: Dash) -> None:
    page = window.open()
    page.get_by_text("11 runs").wait_for()
    page.get_by_role("searchbox").fill("long")
    page.get_by_text("1 of 11 runs").wait_for()
    page.locator(".row.run .name").click()

    chart = spoken(page, "Reward")
    drawn(page, "Reward")
    box = chart.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.locator(".tip .tip-value").first.wait_for()
    assert re.search(r"\d", page.locator(".tip").inner_text()), "exact values beside the pointer"

    with page.expect_response(lambda answer: "from=" in answer.url and "total_reward" in answer.url) as found:
        drag(page, chart, 0.4, 0.6)
    until_address(page, "from=\\d+&to=\\d+")
    [series] = found.value.json()["series"]
    assert series["n"] < N_EPISODES / 3, "the zoom asks for its part alone"
    assert series["is_whole"], "at full resolution"
    page.get_by_role("button", name="Show all").wait_for()
    page.go_back()
    until_address(page, "run/[0-9a-f]+$")

    page.get_by_role("slider", name="Smoothing").focus()
    page.keyboard.press("ArrowRight")
    until_address(page, "smooth=mean:100")
    page.get_by_role("button", name="Log", exact=True).click()
    until_address(page, "scale=log")
    page.get_by_role("button", name="Time", exact=True).click()
    until_address(page, "x=time")
    for tab, words in (
        ("Episodes", "3,000"),
        ("Events", "evaluated"),
        ("Config", "learning_rate"),
        ("Files", "train_episodes.jsonl"),
    ):
        page.get_by_role("tab", name=tab).click()
        page.get_by_role("tabpanel").get_by_text(words).first.wait_for()

    page.get_by_role("link", name="stoker: all runs").click()
    page.get_by_role("checkbox", name="Select all of Acrobot-v1/v1").check()
    page.get_by_text("5 runs selected").wait_for()
    page.get_by_role("button", name="Compare").click()
    until_address(page, "compare\\?ids=")
    page.get_by_role("heading", name="Compare runs").wait_for()
    page.get_by_text("1 group").first.wait_for()
    page.get_by_text("Config differences").wait_for()
    page.get_by_role("row", name="seed").wait_for()
    page.go_back()
    page.get_by_text("11 runs").wait_for()
    window.check()


def test_a_view_that_is_overtaken_leaves_the_next_one_alone(window: Window, dashboard: Dash) -> None:
    held: list[Any] = []
    asked = re.compile(r"/api/runs(\?.*)?$")
    run = run_of(dashboard, "Long-v1")
    page = window.open(run)
    drawn(page, "Reward")

    def hold(route: Any) -> None:  # playwright takes no built-in
        held.append(route)

    page.route(asked, hold)
    with page.expect_request(asked):
        page.evaluate("location.hash = '#/'")
    page.evaluate("(run) => { location.hash = run }", run)
    drawn(page, "Reward")
    crumbs = page.locator(".crumbs").inner_text()
    with page.expect_request_finished(lambda request: asked.search(request.url)):
        held[0].continue_()
    page.evaluate("() => new Promise(requestAnimationFrame)")  # what the answer leads to has happened
    assert spoken(page, "Reward").is_visible()
    assert page.locator(".crumbs").inner_text() == crumbs
    window.check()


def test_a_training_is_seen_to_move(browser: Any, tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "moving", is_held=True)
    run.grow(40)
    with dash(tmp_path) as dashboard:
        list_window, run_window = Window(browser, dashboard.url), Window(browser, dashboard.url)
        listed, shown = list_window.open(), run_window.open(run_of(dashboard, run.directory.parts[-3]))
        listed.get_by_text("8k", exact=False).first.wait_for()
        chart = spoken(shown, "Reward")
        before = drawn(shown, "Reward")
        run.grow(60)
        run.add_evaluation()
        listed.get_by_text("20k", exact=False).first.wait_for()
        shown.locator(".fact", has_text="Episodes").get_by_text("100", exact=True).wait_for()
        chart.and_(shown.locator("[aria-label*='evaluation at last']")).wait_for()
        assert chart.get_attribute("aria-label") != before
        run.end("failed", error="ValueError", text="the reason why")
        shown.get_by_text("the reason why").first.wait_for()
        listed.get_by_text("crashed").first.wait_for()
        MadeRun(tmp_path, "newcomer").end()
        listed.get_by_text("newcomer").first.wait_for()
        for window in (list_window, run_window):
            window.check()
            window.close()


@pytest.mark.faults
def test_a_run_that_is_read_anew_is_drawn_anew(browser: Any, tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "replaced")
    run.grow(50)
    run.end()
    with dash(tmp_path) as dashboard:
        window = Window(browser, dashboard.url)
        page = window.open(run_of(dashboard, run.directory.parts[-3]))
        drawn(page, "Reward")
        rows = run.directory / "train_episodes.jsonl"
        first_rows = rows.read_bytes().splitlines(keepends=True)[:20]
        with page.expect_response(
            lambda answer: "cursor=" in answer.url and "total_reward" in answer.url
        ) as found:
            rows.write_bytes(b"".join(first_rows))
        answer = found.value.json()
        assert not answer["is_appended"]
        assert answer["series"][0]["n"] == 20
        window.check()
        window.close()


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        (PHONE, "light"),
        *(
            pytest.param(*each, marks=pytest.mark.faults)
            for each in ((PHONE, "dark"), (DESK, "light"), (DESK, "dark"))
        ),
    ],
    ids=str,
)
def test_everybody_can_read_and_operate_it(
    browser: Any, dashboard: Dash, size: tuple[int, int], scheme: str
) -> None:
    window = Window(browser, dashboard.url, size=size, color_scheme=scheme)
    run = run_of(dashboard, "Long-v1")
    views = {
        "#/": ".row.run",
        run: ".multiples .chart-box canvas",
        f"{run}?tab=episodes": "table",
        f"{run}?tab=events": "[role=tabpanel] :text('attempt began:')",
        f"{run}?tab=config": ":text('learning_rate')",
        f"{run}?tab=files": ":text('metadata.json')",
        f"{run}?tab=actors": "th[aria-sort=descending]:has-text('Last ended')",
        f"#/compare?ids={ids_of(dashboard, 5)}": ".compare canvas",
    }
    faults: dict[str, list[str]] = {}
    for view, awaited in views.items():
        page = window.open(view)
        page.locator(awaited).first.wait_for()
        found = [*low_contrast(page), *nameless(page), *overflowing(page), *unreachable(page, 40)]
        if found:
            faults[view] = found
    assert faults == {}
    window.check()
    window.close()


def test_a_run_shows_what_it_said_last(browser: Any, tmp_path: Path) -> None:
    run = MadeRun(tmp_path, is_held=True)
    run.grow(20)
    with dash(tmp_path) as dashboard:
        window = Window(browser, dashboard.url)
        page = window.open(run_of(dashboard, "CartPole-v1"))
        page.locator(".chart-box canvas").first.wait_for()
        words = page.locator(".last-words")
        assert words.is_hidden(), "nothing went wrong"
        run.add_event(Logged(level="warning", source="stoker.envs", text="<b>slow</b>"))
        words.get_by_text("warning: <b>slow</b>").wait_for()
        run.end(
            "failed", part="agent", error="ValueError", text="no", traceback="File 'a.py'\nValueError: no"
        )
        words.get_by_text("attempt failed in the agent: ValueError: no").wait_for()
        assert words.locator("details[open] pre").inner_text() == "File 'a.py'\nValueError: no"
        words.get_by_role("link", name="All").click()
        until_address(page, "tab=events&level=warning")
        lines = page.locator("[role=tabpanel] .event")
        page.locator("[role=tabpanel]").get_by_text("2 events").wait_for()
        assert lines.count() == 2
        page.get_by_label("Kind").select_option("All events")
        page.locator("[role=tabpanel]").get_by_text("3 events").wait_for()
        window.check()
        window.close()


def test_keys_alone_lead_from_the_list_to_a_comparison(window: Window) -> None:
    page = window.open()
    page.get_by_text("11 runs").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("acrobot")
    page.get_by_text("5 of 11 runs").wait_for()
    page.keyboard.press("Escape")
    for _ in range(2):
        page.keyboard.press("j")
        page.keyboard.press("x")
    page.locator(".tray").get_by_text("selected").wait_for()
    page.keyboard.press("?")
    page.get_by_role("dialog").get_by_text("Compare the selected runs").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Light or dark").press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("c")
    until_address(page, "compare\\?ids=")
    page.get_by_role("heading", name="Compare runs").wait_for()
    window.check()


def test_the_policy_stops_what_is_not_the_page_s(browser: Any, dashboard: Dash) -> None:
    window = Window(browser, dashboard.url)
    page = window.open()
    page.locator(".row.run").first.wait_for()
    page.evaluate(
        """async () => {
          const script = document.createElement("script")
          script.textContent = "window.pwned = 1"
          document.head.append(script)
          const image = document.createElement("img")
          image.setAttribute("onerror", "window.pwned = 1")
          image.src = "nothing.png"
          document.body.append(image)
          await image.decode().catch(() => null)
          await fetch("http://127.0.0.1:9/").catch(() => null)
          await import("http://127.0.0.1:9/x.js").catch(() => null)
        }"""
    )
    assert page.evaluate("window.pwned") is None
    stopped = {violation.split()[0] for violation in page.evaluate("window.violations")}
    assert {"script-src-elem", "script-src-attr", "connect-src"} <= stopped
    window.close()


@pytest.mark.parametrize(
    "texts", [FEW[::3], pytest.param(TEXTS, marks=pytest.mark.faults)], ids=["few", "all"]
)
def test_no_text_of_a_run_becomes_markup(browser: Any, tmp_path: Path, texts: tuple[str, ...]) -> None:
    make_hostile_runs(tmp_path, texts)
    broken_run(tmp_path, "<img src=x onerror=window.pwned=1>")
    with dash(tmp_path) as dashboard:
        window = Window(browser, dashboard.url)
        loud, broken = run_of(dashboard, "loud"), run_of(dashboard, "broken")
        ids = ",".join([loud.rpartition("/")[2], ids_of(dashboard, 40)])
        views = {
            "#/?group=no": ".row.run",
            "#/?q=<img src=x onerror=window.pwned=1>": ".row.run, .empty",
            loud: ".chart-box canvas",
            f"{loud}?tab=episodes": "table",
            f"{loud}?tab=events": "[role=tabpanel] :text('got a new environment')",
            f"{loud}?tab=config": ":text('agent_settings')",
            f"{loud}?tab=files": ":text('metadata.json')",
            broken: ":text('cannot be read')",
            "#/run/<img src=x onerror=window.pwned=1>": "[role=alert]:visible",
            f"#/compare?ids={ids}&group_by=none": ".compare canvas",
            f"#/compare?ids={ids}&series=<script>window.pwned=1</script>": ".compare",
        }
        for view, awaited in views.items():
            page = window.open()  # so that each view begins from nothing
            page.evaluate("(view) => { location.hash = view }", view)
            page.locator(awaited).first.wait_for()
            more = page.locator("details.more summary")
            if more.is_visible():
                more.click()
            assert markup_of_runs(page) == [], view
            assert page.evaluate("window.pwned") is None, view
        assert [fault for fault in window.faults if "404" not in fault and "422" not in fault] == []
        window.close()
