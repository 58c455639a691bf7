"""The pure parts of the page: how layers become columns, ticks texts, and runs a list."""

from __future__ import annotations

from typing import Any

import numpy as np
from nodes import in_node, needs_node

pytestmark = needs_node


def layer(xs: list[float], ys: list[float | None], **more: Any) -> dict[str, Any]:
    return {"label": "one", "kind": "line", "x": xs, "y": ys, **more}


def test_layers_are_merged_without_loss_of_a_point() -> None:
    """Also points of one layer that share an x, of which there are many where actors end together."""
    random = np.random.default_rng(3)
    cases: list[list[dict[str, Any]]] = []
    for _ in range(200):
        drawn = [np.sort(random.integers(0, 12, random.integers(0, 9))) for _ in range(random.integers(1, 4))]
        ys = [random.integers(-5, 5, len(xs)) for xs in drawn]
        gaps = [random.random(len(xs)) < 0.2 for xs in drawn]
        cases.append([
            layer(xs.tolist(), [None if gap else int(y) for y, gap in zip(own, is_gap, strict=True)])
            for xs, own, is_gap in zip(drawn, ys, gaps, strict=True)
        ])  # fmt: skip
    found = in_node("layers.js", "(page, given) => given.map((layers) => page.align(layers))", cases)
    for layers, merged in zip(cases, found, strict=True):
        xs, *columns = merged["data"]
        assert xs == sorted(xs)
        for one, place in zip(layers, merged["places"], strict=True):
            rows = [row for row, point in enumerate(place["index"]) if point >= 0]
            assert [place["index"][row] for row in rows] == list(range(len(one["x"])))  # each once, in order
            assert [xs[row] for row in rows] == one["x"]
            assert [columns[place["y"] - 1][row] for row in rows] == one["y"]


def test_rows_of_other_layers_are_no_gaps_but_those_within_a_gap_are() -> None:
    layers = [layer([0, 4, 8, 12], [1, None, None, 2]), layer([1, 5, 6, 13], [0, 0, 0, 0])]
    script = """(page, given) => page.align(given).data.map((column) =>
      column.map((y) => y === undefined ? "other" : y))"""
    xs, first, _ = in_node("layers.js", script, layers)
    assert xs == [0, 1, 4, 5, 6, 8, 12, 13]
    # The value before the gap is the last one that is drawn to: its neighbor belongs to the gap.
    assert first == [1, None, None, None, None, None, 2, "other"]


def test_ticks_that_are_close_together_are_told_apart() -> None:
    ticks = [
        ([0, 5000, 10_000], 5000),
        ([2500, 5000, 7500], 2500),
        ([1e6, 1.5e6, 2e6], 5e5),
        ([62_490_100, 62_490_150, 62_490_200], 50),
        ([0, 0.0025, 0.005], 0.0025),
        ([-150, -100, 0], 50),
        ([None, 10], 5),
    ]
    texts = in_node(
        "format.js", "(page, given) => given.map(([ticks, step]) => page.tickTexts(ticks, step))", ticks
    )
    assert texts == [
        ["0", "5k", "10k"],
        ["2.5k", "5k", "7.5k"],
        ["1M", "1.5M", "2M"],
        ["62,490,100", "62,490,150", "62,490,200"],
        ["0", "0.0025", "0.005"],
        ["-150", "-100", "0"],
        ["", "10"],
    ]


def test_numbers_and_times_read_as_people_write_them() -> None:
    script = """(page, given) => ({
      number: [1234567, 0.001234567, 0, null, -0.00001, 1e300].map((one) => page.number(one)),
      compact: [1234567, 999, 0.05, 2000000000, null, 3e20].map((one) => page.compact(one)),
      duration: [0.004, 9.96, 61, 3600, 7500, 90061, null].map((one) => page.duration(one)),
      clock: [page.clock(65), page.clock(3725), page.clock(-5), page.clock(4.5, 0.5)],
      age: [2, 59, 61, 7200, 86400 * 3].map((one) => page.age(1000000 - one, 1000000)),
    })"""
    assert in_node("format.js", script, None) == {
        "number": ["1,234,567", "0.001235", "0", "\u2013", "-1.00e-5", "1.00e+300"],
        "compact": ["1.23M", "999", "0.05", "2B", "\u2013", "3e20"],
        "duration": ["0.004 s", "10 s", "1 min 1 s", "1 h", "2 h 5 min", "1 d 1 h", "\u2013"],
        "clock": ["1:05", "1:02:05", "-0:05", "4.5 s"],
        "age": ["now", "59 s ago", "1 min ago", "2 h ago", "3 d ago"],
    }


def run(name: str, **more: Any) -> dict[str, Any]:
    base = {"name": "env", "version": "v1", "group": "env/v1", "path": f"env/v1/{name}", "status": "done"}
    return {"id": name, "run_id": name, "last_updated": 0, "settings": {}, **base, **more}


def test_a_filter_takes_words_and_settings() -> None:
    settings = {"agent_settings.learning_rate": 0.001}
    runs = [run("a"), run("b", agent="ppo"), run("c", status="live", settings=settings)]
    wanted = {
        "": ["a", "b", "c"],
        "ENV a": ["a"],
        "agent=ppo": ["b"],
        "learning_rate=0.001": ["c"],
        "agent_settings.learning_rate=0.001 status=live": ["c"],
        "constructor=1": [],
    }
    script = """(page, { runs, texts }) =>
      texts.map((text) => page.filtered(runs, text, "").map((run) => run.id))"""
    found = in_node("sorting.js", script, {"runs": runs, "texts": [*wanted]})
    assert dict(zip(wanted, found, strict=True)) == wanted


def test_runs_without_a_value_come_last_in_both_orders_and_groups_stand_together() -> None:
    values = {"a": 1.0, "b": None, "c": 3.0, "d": 2.0}
    runs = [
        run(name, best_value=value, group=f"env/{'x' if name in 'ac' else name}")
        for name, value in values.items()
    ]
    script = """(page, runs) => {
      const inOrder = (order) => page.sorted(runs, "best", order)
      const entries = page.entriesOf(inOrder("desc"), true, new Set())
      const told = ({ kind, group, runs, isInGroup }) => kind === "group" ? group : [runs[0].id, isInGroup]
      return [...["asc", "desc"].map((order) => inOrder(order).map((run) => run.id)), entries.map(told)]
    }"""
    rising, falling, entries = in_node("sorting.js", script, runs)
    assert rising == ["a", "d", "c", "b"]
    assert falling == ["c", "d", "a", "b"]
    assert entries == ["env/x", ["c", True], ["a", True], ["d", False], ["b", False]]


def test_what_every_record_has_keeps_its_gaps_and_other_rows_are_left_out() -> None:
    """A loss that is no number is a gap; an evaluation's row, which has no loss at all, is none."""
    reference = {"x": [0, 1, 2, 3], "mean": [5, 5, None, 5]}
    loss = {
        "x": [0, 1, 2, 3],
        "min": [1, None, None, 3],
        "max": [1, None, None, 3],
        "mean": [1, None, None, 3],
    }
    rare = {"x": [0, 1, 2, 3], "mean": [None, None, 7, None]}
    script = """(page, [loss, rare, reference]) =>
      [loss, rare].map((one) => page.withoutForeignRows(one, reference))"""
    kept, few = in_node("panels.js", script, [loss, rare, reference])
    assert (kept["x"], kept["mean"]) == ([0, 1, 3], [1, None, 3])
    assert (few["x"], few["mean"]) == ([2], [7])


def test_panels_are_few_at_first_and_hold_what_belongs_together() -> None:
    names = {
        "train.total_reward": "reward", "train.length": "length", "train.extras.loss": "loss",
        "metrics.train/loss": "loss", "metrics.train/staleness_mean": "staleness",
        "metrics.train/staleness_max": "staleness", "metrics.time/fps": "speed", "metrics.load/cpus": "other",
        "metrics.time/loop_running": "time", "metrics.eval/mean_reward": "reward",
        "metrics.constructor": "other",
    }  # fmt: skip
    series = [
        {"name": name, "of": name.partition(".")[0], "group": group, "n": 3} for name, group in names.items()
    ]
    found = in_node("panels.js", "(page, series) => page.panelsOf(series)", series)
    assert [panel["title"] for panel in found["first"]] == [
        "Episode length",
        "Loss",
        "Staleness",
        "Steps per second",
    ]
    assert [curve["label"] for curve in found["first"][2]["curves"]] == ["mean", "max"]
    assert [panel["title"] for panel in found["more"]] == [
        "Loss (per episode)",
        "Processors in use",
        "Constructor",
    ]
