"""What the API answers about runs: each number is that of the run's own files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from benchmarks.made_runs import SPIKE, MadeRun, config_of
from dashes import Dash, dash

from stoker import TrainingRun
from stoker.runs.events import Logged, PartStalled
from stoker.stats.intervals import interquartile_mean, t_quantile

N = 3_000
SPIKES = (11, 1_500, 2_999)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    run = MadeRun(tmp_path_factory.mktemp("runs"), n_wanted=N, spikes=SPIKES)
    for _ in range(3):
        run.grow(N // 3)
        run.add_record()
        run.add_evaluation(8)
    run.add_event(PartStalled(part="writer", doing="syncing", still_s=3.0))
    run.end()
    return run


@pytest.fixture(scope="module")
def page(made: MadeRun) -> Iterator[Dash]:
    with dash(made.directory.parents[2]) as found:
        yield found


@pytest.fixture(scope="module")
def train(made: MadeRun) -> dict[str, Any]:
    return anyio.run(TrainingRun.find(made.directory).read_train_episodes)


def test_the_list_has_a_line_for_the_run(page: Dash, train: dict[str, Any]) -> None:
    answer = page.get("/api/runs")
    [run] = answer["runs"]
    assert answer["hint"] is None
    assert (run["name"], run["version"], run["group"]) == ("CartPole-v1", "v1", "CartPole-v1/v1")
    assert (run["env"], run["agent"]) == ("CartPole-v1", "dqn")
    assert (run["total_episodes"], run["total_steps"]) == (N, int(train["total_steps"][-1]))
    assert run["last_mean"] == pytest.approx(train["total_reward"][-100:].mean())
    assert run["settings"]["agent_settings.batch_size"] == config_of().agent_settings.batch_size
    assert run["status"] == "stopped"


def test_a_run_has_its_config_its_curves_and_its_files(page: Dash) -> None:
    details = page.get(page.only())
    assert details["config"]["agent"] == "dqn"
    series = {each["name"]: each for each in details["series"]}
    assert next(iter(series)) == "train.total_reward"
    groups = ("train.length", "metrics.train/loss", "metrics.rollout/exploration_rate", "metrics.time/fps")
    assert [series[name]["group"] for name in groups] == ["length", "loss", "exploration", "speed"]
    assert series["metrics.train/staleness_mean"]["group"] == "staleness"
    assert series["eval.total_reward"]["n"] == 24
    assert {file["path"] for file in details["files"]} >= {"metadata.json", "train_episodes.jsonl"}
    assert details["attempts"][0]["ended"] == "attempt finished"
    assert (details["share_read"], details["problems"]) == (1.0, [])
    assert details["explanation"]["lines"][0].startswith("2,")


def test_a_curve_has_every_spike_and_the_smoothing_of_all_points(page: Dash, train: dict[str, Any]) -> None:
    answer = page.get(f"{page.only()}/series", name="train.total_reward", points=100, smooth="mean:50")
    [series] = answer["series"]
    assert (series["n"], series["is_whole"], len(series["x"])) == (N, False, 100)
    assert sum(value == SPIKE for value in series["max"]) == len(SPIKES)
    assert series["smooth"][-1] == pytest.approx(train["total_reward"][-50:].mean())
    middle = {"from": 300_000, "to": 301_000}
    [zoomed] = page.get(f"{page.only()}/series", name="train.total_reward", points=100, **middle)["series"]
    assert zoomed["is_whole"]
    assert zoomed["x"] == [300_000, 300_200, 300_400, 300_600, 300_800, 301_000]
    assert zoomed["mean"] == train["total_reward"][1499:1505].tolist()


@pytest.mark.parametrize(
    ("name", "axis", "last"),
    [
        ("train.length", "episodes", N),
        ("eval.mean", "steps", N * 200),
        ("eval.mean", "episodes", N),
        ("metrics.train/loss", "episodes", N),
        ("train.extras.epsilon", "time", (N - 1) * 0.1),
    ],
)
def test_a_curve_lies_on_the_axis_that_is_asked_for(page: Dash, name: str, axis: str, last: float) -> None:
    [series] = page.get(f"{page.only()}/series", name=name, x=axis)["series"]
    assert series["x"][-1] == pytest.approx(last, rel=1e-3)
    assert None not in series["mean"]


def test_several_curves_come_in_the_order_of_the_request(page: Dash) -> None:
    names = ["metrics.time/fps", "train.length", "eval.total_reward"]
    answer = page.ask(f"{page.only()}/series", params=[("name", name) for name in names]).json()
    assert [series["name"] for series in answer["series"]] == names


def test_evaluations_have_their_intervals_and_the_best_one(made: MadeRun, page: Dash) -> None:
    run = TrainingRun.find(made.directory)
    rows = anyio.run(run.read_eval_episodes)
    found = page.get(f"{page.only()}/evaluations")["evaluations"]
    assert [each["step"] for each in found] == sorted({*rows["total_steps_at_eval"].tolist()})
    rewards = rows["total_reward"][-8:]
    half = t_quantile(7) * rewards.std(ddof=1) / math.sqrt(8)
    assert (found[-1]["n"], found[-1]["mean"]) == (8, pytest.approx(rewards.mean()))
    assert found[-1]["high"] - found[-1]["mean"] == pytest.approx(half)
    assert found[-1]["iqm"] == pytest.approx(interquartile_mean(rewards.tolist()))
    assert [each["step"] for each in found if each["is_best"]] == [run.metadata.best_step]


def test_actors_have_their_last_episodes(page: Dash, train: dict[str, Any]) -> None:
    place = f"{page.only()}/actors"
    found = page.get(place, size=1000)
    actors = {str(actor) for actor in train["actor_id"]}
    assert {str(row["actor_id"]) for row in found["rows"]} == actors
    assert found["n"] == len(actors)
    for row in found["rows"][:3]:
        own = np.array([str(actor) == str(row["actor_id"]) for actor in train["actor_id"]])
        rewards, lengths = train["total_reward"][own], train["length"][own]
        assert (row["n_episodes"], row["n_steps"]) == (own.sum(), lengths.sum())
        assert row["mean_reward"] == pytest.approx(rewards[-100:].mean())
        assert row["max_reward"] == rewards[-100:].max()
        assert row["mean_length"] == pytest.approx(lengths[-100:].mean())
    best = page.get(place, sort="mean_reward", order="desc", size=1)["rows"]
    assert best[0]["mean_reward"] == max(row["mean_reward"] for row in found["rows"])
    one = str(found["rows"][0]["actor_id"])
    assert {one} <= {str(row["actor_id"]) for row in page.get(place, text=one, size=1000)["rows"]}
    assert page.get(place, text="no such actor") == {"n": 0, "rows": []}
    assert page.get(place, page=10**6)["rows"] == []


def test_episodes_are_sorted_filtered_and_paged(page: Dash, train: dict[str, Any]) -> None:
    place = f"{page.only()}/episodes"
    best = page.get(place, sort="total_reward", order="desc", size=4)
    assert best["n"] == N
    assert [row["episode"] for row in best["rows"][:3]] == [*SPIKES]
    assert best["rows"][3]["total_reward"] == np.sort(train["total_reward"])[-4]
    few = page.get(place, reward_from=100, reward_to=200, size=1)
    is_there = (train["total_reward"] >= 100) & (train["total_reward"] <= 200)
    assert few["n"] == is_there.sum()
    assert few["rows"][0]["episode"] == train["episode"][is_there][0]
    second = page.get(place, page=1, size=10)
    assert [row["episode"] for row in second["rows"]] == list(range(11, 21))
    assert second["rows"][0]["extras"].keys() == {"epsilon"} | {
        name.removeprefix("extras.")
        for name in train
        if name.startswith("extras.") and name != "extras.epsilon"
    }
    actor = str(train["actor_id"][5])
    assert page.get(place, actor=actor)["n"] == sum(str(one) == actor for one in train["actor_id"])
    assert page.get(place, page=10**6)["rows"] == []
    assert page.get(place, actor=actor, kind="eval")["n"] == 0
    assert page.get(place, status="Terminated")["n"] == sum(train["status"] == "Terminated")
    evals = page.get(place, kind="eval", order="desc", size=2)
    assert (evals["n"], evals["rows"][0]["episode"], evals["rows"][0]["actor_id"]) == (24, None, None)


def test_events_are_sentences_with_a_level(page: Dash) -> None:
    found = page.get(f"{page.only()}/events")
    assert [event["kind"] for event in found["rows"][:2]] == ["attempt_ended", "stalled"]
    assert found["rows"][1]["level"] == "warning"
    assert "the writer made no progress" in found["rows"][1]["sentence"]
    only = page.get(f"{page.only()}/events", kind="evaluation_finished", order="asc", size=2, page=1)
    assert (only["n"], len(only["rows"])) == (3, 1)


def test_the_last_words_of_a_run_are_its_newest_warnings_and_errors(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, is_held=True)
    for k in range(20):
        run.add_event(Logged(level="warning", source="stoker.envs", text=f"slow {k}"))
        run.add_evaluation()
    with dash(tmp_path) as page:
        place = page.only()
        assert [event["sentence"] for event in page.get(place)["last_words"]] == [
            f"warning: slow {k}" for k in range(15, 20)
        ]
        trace = "Traceback (most recent call last):\nValueError: no"
        run.end("failed", part="agent", error="ValueError", text="no", traceback=trace)
        *_, last = page.get(place)["last_words"]
        assert (last["level"], last["details"]["traceback"]) == ("error", trace)
        found = page.get(f"{place}/events", level="warning", size=3)
        assert [event["level"] for event in found["rows"]] == ["error", "warning", "warning"]
        assert (found["n"], page.get(f"{place}/events", level="error")["n"]) == (21, 1)


def test_the_shares_of_each_part_add_up(page: Dash) -> None:
    parts = page.get(f"{page.only()}/shares", points=2)["parts"]
    assert {part["part"] for part in parts} >= {"learner", "loop"}
    for part in parts:
        assert len(part["shares"]) == len(part["states"])
        assert len(part["x"]) == 2
    loop = next(part for part in parts if part["part"] == "loop")
    assert loop["states"] == ["waiting", "running", "starved", "blocked"]


def test_a_table_can_be_taken_away(page: Dash, train: dict[str, Any]) -> None:
    response = page.ask(f"{page.only()}/series.csv?name=train.total_reward&name=train.length")
    name = "CartPole-v1-v1-20260101_000000-series.csv"
    assert response.headers["content-disposition"] == f"attachment; filename*=UTF-8''{name}"
    head, *rows = csv.reader(io.StringIO(response.text))
    assert head == ["steps", "train.total_reward", "train.length"]
    assert [float(row[1]) for row in rows] == train["total_reward"].tolist()
    head, *rows = csv.reader(io.StringIO(page.ask(f"{page.only()}/episodes.csv?reward_from=1000").text))
    assert [int(row[head.index("episode")]) for row in rows] == [*SPIKES]


def test_the_small_curve_ends_where_the_run_does(page: Dash) -> None:
    run_id = page.only().rpartition("/")[2]
    [spark] = page.get("/api/sparks", ids=run_id)["sparks"].values()
    evaluations = page.get(f"{page.only()}/evaluations")["evaluations"]
    assert spark == pytest.approx([each["mean"] for each in evaluations], rel=1e-4)


def test_runs_are_compared_in_groups_and_by_their_settings(tmp_path: Path) -> None:
    for version, rate in (("a", 0.1), ("b", 0.2)):
        for seed in range(3):
            config = config_of(seed=seed, agent_settings={"learning_rate": rate})
            run = MadeRun(
                tmp_path, version=version, run_id=f"2026010{seed + 1}_000000", seed=seed, config=config
            )
            run.grow(50 + 10 * seed)
            run.end()
    MadeRun(tmp_path, version="empty").end()
    with dash(tmp_path) as page:
        runs = page.runs()
        ids = [run["id"] for run in runs.values()]
        asked = {"ids": ",".join(ids), "points": 20}
        answer = page.get("/api/compare", **asked, group_by="agent_settings.learning_rate", statistic="iqm")
        assert [group["label"] for group in answer["groups"]] == ["learning_rate=0.1", "learning_rate=0.2"]
        first = answer["groups"][0]
        assert (first["n_runs"], first["n"][0], first["n"][-1]) == (3, 3, 1)
        assert [run["label"] for run in first["runs"]] == ["seed 0", "seed 1", "seed 2"]
        assert len(first["runs"][0]["x"]) < len(first["x"]) == 20
        assert answer["left_out"] == [
            {"id": runs["CartPole-v1/empty/20260101_000000"]["id"], "reason": "it has no value yet"}
        ]
        alone = page.get("/api/compare", **asked)
        assert [group["ids"] for group in alone["groups"]] == [[each] for each in ids[:6]]
        part = page.get("/api/compare", **asked, **{"from": 2_000, "to": 4_000})["groups"][0]
        assert (part["x"][0], part["x"][-1]) == (2_000, 4_000)
        keys = {each["key"]: each for each in page.get("/api/diff", ids=",".join(ids[:4]))["keys"]}
        assert keys["agent_settings.learning_rate"] == {
            "key": "agent_settings.learning_rate",
            "values": [0.1, 0.1, 0.1, 0.2],
            "differs": True,
        }
        assert not keys["agent"]["differs"]
        refused = page.ask("/api/compare", params={**asked, "group_by": "learning_rat"})
        assert refused.status_code == 422
        assert "learning_rate" in refused.json()["detail"]


def test_numbers_that_json_does_not_have_are_gaps(tmp_path: Path) -> None:
    made = MadeRun(tmp_path)
    made.grow(3)
    path = made.directory / "train_episodes.jsonl"
    lines = path.read_bytes().splitlines()
    assert all(math.isfinite(json.loads(line)["total_reward"]) for line in lines)
    made.add_record()
    made.grow(3)
    with dash(tmp_path) as page:
        answer = page.get(f"{page.only()}/series", name="metrics.train/loss")
        assert len(answer["series"][0]["mean"]) == 1
        evals = page.get(f"{page.only()}/series", name="eval.mean")
        assert evals["series"][0]["x"] == []
