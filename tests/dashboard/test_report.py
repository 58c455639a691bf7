"""A report: one file that holds runs and the page, and answers by itself as the server would."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.made_runs import SPIKE, MadeRun, make_runs
from nodes import in_node, needs_node

import stoker.dashboard.report as report
from stoker.cli.main import main
from stoker.dashboard.answers.compare import compare_answer, diff_answer
from stoker.dashboard.answers.curves import curve_of
from stoker.dashboard.answers.episodes import EpisodeQuery, episodes_answer
from stoker.dashboard.answers.events import events_answer
from stoker.dashboard.answers.series import SeriesQuery, series_answer
from stoker.dashboard.inlining import inlined, script_json
from stoker.dashboard.pages import PAGE
from stoker.dashboard.report import Report, make_report, write_report
from stoker.dashboard.series import SeriesCache
from stoker.errors import ConfigError, StokerError, WriteFailed
from stoker.runs.averaging import compared
from stoker.runs.history import RunHistory
from stoker.runs.smoothing import Smoothing, smoothed
from stoker.stats.intervals import t_quantile


def assert_same(found: Any, wanted: Any, where: str = "") -> None:
    """Two answers are the same, numbers to six digits."""
    match wanted:
        case dict():
            assert found.keys() == wanted.keys(), where
            for key, value in wanted.items():
                assert_same(found[key], value, f"{where}.{key}")
        case list():
            assert len(found) == len(wanted), where
            for place, value in enumerate(wanted):
                assert_same(found[place], value, f"{where}[{place}]")
        case float():
            assert math.isclose(found, wanted, rel_tol=2e-6, abs_tol=1e-2), f"{where}: {found} != {wanted}"
        case _:
            assert found == wanted, where


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions with three seeds each, of different lengths, whole in a report; and another run."""
    root = tmp_path_factory.mktemp("reported") / "runs"
    for run in make_runs(root, 6, 120, per_version=3):
        run.grow(30 * (len(str(run.directory)) % 3))
        run.add_evaluation()
        run.add_record()
    other = MadeRun(root, "Other-v1", config={"env": "Other-v1", "only": {"here": 1}, "seed": 7})
    other.grow(20)
    return root


def directories_of(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.rglob("metadata.json"))


@pytest.fixture(scope="module")
def made(root: Path) -> Report:
    return make_report(directories_of(root))


ASK = "(page, [data, asked]) => asked.map(([path, params]) => page.openReport(data).answer(path, params))"


@needs_node
def test_a_report_answers_as_the_server_does(root: Path, made: Report) -> None:
    histories = {}
    for directory, run_id in zip(directories_of(root), made.runs, strict=True):
        histories[run_id] = RunHistory(directory)
        histories[run_id].refresh()
    summaries = {summary.id: summary for summary in made.list.runs}
    run_id = next(iter(histories))
    history = histories[run_id]
    ids = ",".join(histories)
    wanted: list[tuple[str, dict[str, Any], Any]] = []

    names = ("train.total_reward", "train.extras.loss_mean", "metrics.train/loss", "eval.mean", "eval.length")
    for axis, smooth, low, high in (
        ("steps", "", None, None), ("episodes", "mean:7", 20, 90), ("time", "ema:0.9", 3.05, None),
    ):  # fmt: skip
        how = Smoothing.parse(smooth) if smooth else None
        query = SeriesQuery(names, axis, low, high, 1200, how)
        answer = series_answer(history, query, SeriesCache(1 << 20)).series
        params = {"name": list(names), "x": axis, "smooth": smooth, "from": low, "to": high}
        wanted.append((f"api/runs/{run_id}/series", params, answer))

    for series, axis, by, statistic, low, high in (
        ("eval.mean", "steps", "version", "mean", None, None),
        ("eval.mean", "time", "none", "iqm", None, None),
        ("train.total_reward", "steps", "agent_settings.learning_rate", "iqm", None, None),
        ("train.total_reward", "episodes", "version", "mean", 10, 130),
        ("train.length", "steps", "seed", "mean", 1e9, 2e9),
    ):
        runs = [(summaries[one], curve_of(histories[one], series, axis)) for one in histories]
        answer = compare_answer(
            runs, group_by=by, statistic=statistic, n_points=100, x_from=low, x_to=high
        )  # fmt: skip
        params = {"ids": ids, "series": series, "x": axis, "group_by": by, "statistic": statistic}
        wanted.append(("api/compare", {**params, "points": 100, "from": low, "to": high}, answer))

    some = list(histories)[1:4]
    wanted.append(
        ("api/diff", {"ids": ",".join(some)}, diff_answer({one: histories[one].config for one in some}))
    )
    for query in (
        EpisodeQuery(is_descending=True),
        EpisodeQuery(sort="total_reward", status="Terminated"),
        EpisodeQuery(kind="eval", sort="total_reward", is_descending=True, reward_from=10.0),
        EpisodeQuery(actor="3"),
    ):
        params = {"kind": query.kind, "sort": query.sort, "order": "desc" if query.is_descending else "asc"}
        params |= {"status": query.status, "actor": query.actor, "reward_from": query.reward_from, "size": 20}
        wanted.append((f"api/runs/{run_id}/episodes", params, episodes_answer(history, query, slice(20))))
    wanted.append(
        (f"api/runs/{run_id}/events", {"kind": "best_changed"}, events_answer(history, "best_changed"))
    )
    wanted.append(
        (f"api/runs/{run_id}/events", {"level": "warning"}, events_answer(history, level="warning"))
    )

    answers = in_node("offline.js", ASK, [made, [(path, params) for path, params, _ in wanted]])
    for (path, params, answer), found in zip(wanted, answers, strict=True):
        plain = json.loads(script_json(answer))
        for answered in (found, plain) if path == "api/compare" else ():
            answered["left_out"].sort(key=lambda one: one["id"])
        assert_same(found["series"] if path.endswith("/series") else found, plain, f"{path} {params}")


@needs_node
def test_its_statistics_are_those_of_the_server() -> None:
    rng = np.random.default_rng(1)

    def walk(n: int, first: int, last: int, gaps: float) -> tuple[np.ndarray, np.ndarray]:
        x, y = np.sort(rng.integers(first, last, n)).astype(float), rng.normal(size=n).cumsum()
        y[rng.random(n) < gaps] = np.nan
        return x, y

    sets = (
        [(np.arange(0.0, 10_000.0, 1_000.0), rng.normal(size=10)) for _ in range(5)],  # the same steps
        [walk(900, 0, 10_000 - 1_000 * k, 0.05) for k in range(4)],  # a common grid; some end early
        [*(walk(50, 500 * k, 9_000, 0.1) for k in range(7)), (np.empty(0), np.empty(0))],  # some begin late
        [walk(5, 0, 100, 0.0)],
    )
    factors = [0.0, 0.0, *(t_quantile(n - 1) for n in range(2, 9))]
    given: list[Any] = []
    wanted: list[Any] = []
    for curves in sets:
        for statistic, low, high in (("mean", None, None), ("iqm", None, None), ("iqm", 40.0, 6_000.0)):
            strata = ["abca"[place % 4] for place in range(len(curves))]
            options = {"statistic": statistic, "points": 100, "from": low, "to": high}
            one = compared(
                [(str(place), x, y) for place, (x, y) in enumerate(curves)], statistic, 100,
                strata=strata, x_from=low, x_to=high,
            )  # fmt: skip
            given.append(
                [[{"x": x, "y": y} for x, y in curves], {**options, "strata": strata, "factors": factors}]
            )
            wanted.append(one)
    given = json.loads(json.dumps(given, default=lambda array: [None if math.isnan(v) else v for v in array]))
    script = """(page, given) => given.map(([curves, options]) => page.compared(curves.map(({ x, y }) => (
        { x, y: y.map((value) => value ?? NaN) })), options))"""
    for found, one in zip(in_node("statistics.js", script, given), wanted, strict=True):
        for name in ("x", "mid", "low", "high", "n"):
            np.testing.assert_allclose(found[name], getattr(one, name), rtol=1e-9, atol=1e-9, err_msg=name)
        assert found["kept"] == [int(label) for label in one.labels]

    _, values = walk(300, 0, 300, 0.2)
    for how in ("mean:1", "mean:20", "ema:0", "ema:0.95"):
        given = [[None if math.isnan(value) else value for value in values.tolist()], how]
        script = """(page, [values, how]) => page.smoothed(
            values.map((value) => value ?? NaN), values.map(() => 1), how)"""  # JSON has null for NaN
        found = np.array(in_node("statistics.js", script, given), float)
        np.testing.assert_allclose(found, smoothed(values, Smoothing.parse(how)), rtol=1e-9, err_msg=how)


def test_a_long_run_is_reduced_and_keeps_its_spikes(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, spikes=(3, 7_777, 15_000))
    run.grow(20_000)
    run.end()
    made = make_report([run.directory])
    [found] = made.runs.values()
    curve = found.curves["train.total_reward"]
    table = found.tables[curve.table]
    assert len(curve.mean) == len(table.counts) <= 2000
    assert sum(table.counts) == 20_000
    assert table.x["episodes"][-1] == 20_000
    assert curve.max is not None
    assert curve.max.count(SPIKE) == 3
    assert len(found.episodes["train"].rows) <= 500
    assert {3, 7_777, 15_000, 20_000} <= {row.episode for row in found.episodes["train"].rows}
    assert "2,000 points" in made.note
    assert "of 20,000 episodes" in made.note
    assert write_report(tmp_path / "report.html", [run.directory]) < 2_000_000


def test_the_size_of_a_report_is_bounded_by_all_of_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_MOST_BYTES", 200_000)
    made = make_report([run.directory for run in make_runs(tmp_path, 4, 2_000)])
    assert 50_000 < len(script_json([run.curves for run in made.runs.values()])) < 250_000


def test_no_text_of_a_run_ends_an_element_of_the_document(tmp_path: Path) -> None:
    texts = ("<|script>alert(1)<|script>", "<!--<script>", "]]><img src=x>", "\u2028", "\"'`", "\\u003c")
    for name in (text.replace("|", "\u2215") for text in texts):  # no file name has a slash
        run = MadeRun(tmp_path / "runs", name, config={text: text.replace("|", "/") for text in texts})
        run.grow(2)
        run.end("failed", error="</script><script>alert(2)</script>")
    write_report(tmp_path / "report.html", directories_of(tmp_path / "runs"))
    document = (tmp_path / "report.html").read_text(encoding="utf-8")
    elements = re.findall(r"<\s*(/?script|/?style|img|svg|iframe)\b", document, re.IGNORECASE)
    assert elements == ["style", "/style", *["script", "/script"] * 3]
    assert not re.search(r"<script[^>]*>[^<]*\u2028", document)
    data = json.loads(re.findall(r'id="stoker-report">(.*?)</script>', document, re.DOTALL)[0])
    configs = [run["run"]["config"] for run in data["runs"].values()]
    assert configs == [{text: text.replace("|", "/") for text in texts}] * len(texts)
    assert {run["name"] for run in data["list"]["runs"]} == {text.replace("|", "\u2215") for text in texts}


def test_a_report_holds_its_page_and_the_license_of_what_is_in_it(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("before")
    assert write_report(target, directories_of(root)) == target.stat().st_size
    document = target.read_text(encoding="utf-8")
    assert (PAGE / "vendor/uPlot.LICENSE").read_text(encoding="utf-8").strip() in document
    assert str(root.parent) not in document
    assert re.findall(r'(?:src|href)="(?!data:)', document) == []
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_what_cannot_be_a_report_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 runs: a report holds from 1 to 200"):
        make_report([])
    with pytest.raises(ConfigError, match="201 runs"):
        make_report([tmp_path / str(number) for number in range(201)])
    target = tmp_path / "missing" / "report.html"
    with pytest.raises(WriteFailed, match="missing"):
        write_report(target, directories_of(root)[:1])


def test_a_page_that_names_a_file_that_is_not_inlined_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page"
    shutil.copytree(PAGE, page)
    document = (page / "index.html").read_text(encoding="utf-8")
    (page / "index.html").write_text(document.replace("<body>", '<body><img src="x.png">'), encoding="utf-8")
    with pytest.raises(StokerError, match="x.png"):
        inlined({}, "title", page)
    (page / "index.html").write_text(document, encoding="utf-8")
    (page / "router.js").unlink()
    with pytest.raises(StokerError, match=r"imports \./router\.js"):
        inlined({}, "title", page)


def test_the_command_writes_the_runs_that_are_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "report.html"
    name = next(path for path in root.iterdir())
    [version, *_] = name.iterdir()
    [one, *_] = sorted(version.iterdir())
    assert main(["dash", "--export", str(target), str(version), str(one)]) == 0
    assert capsys.readouterr().out.startswith(f"{target}  shows 3 runs in ")
    before = target.read_bytes()
    for words, code, message in (
        ([str(tmp_path / "report.txt"), str(one)], 2, "give a file that ends in .html"),
        ([str(tmp_path / "no" / "report.html"), str(one)], 2, f"there is no directory {tmp_path / 'no'}"),
        ([str(target), str(tmp_path / "nowhere")], 1, "nowhere: there is no run; `stoker ls`"),
        ([str(target), str(one), "--port", "0"], 2, "leave out --port"),
    ):
        assert main(["dash", "--export", *words]) == code
        assert message in capsys.readouterr().err
    assert target.read_bytes() == before
