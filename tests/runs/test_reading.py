"""What is written comes back: config, rows as columns, and the history that counts."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from stoker import ConfigError, EpisodeRecord, EpisodeStatus, InvalidExperience, RunBroken, TrainingRun
from stoker.runs import Attempt, EvalEpisodeRow, MetricsRow, RunMetadata, TrainEpisodeRow
from stoker.runs.history import read_table
from stoker.runs.metadata import now, write_json
from stoker.runs.rows import ROW_FILES, EvaluationSummary, effective, evaluations_of, loss_of
from stoker.writer import encode_rows

pytestmark = pytest.mark.anyio
TERMINATED = EpisodeStatus.TERMINATED


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    rate: float
    sizes: tuple[int, ...] = ()


async def test_config_round_trip(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    await run.write_config(Settings(0.5, (64, 64)))
    assert await run.read_config(Settings) == Settings(0.5, (64, 64))
    assert await run.read_config() == {"rate": 0.5, "sizes": [64, 64]}
    await run.write_config({"env": "CartPole-v1", "nested": {"a": [1, None]}})
    again = await TrainingRun.open(run.directory)
    assert await again.read_config() == {"env": "CartPole-v1", "nested": {"a": [1, None]}}
    assert (run.directory / "config.json").read_text().startswith('{\n  "env": "CartPole-v1",\n'), (
        "for people"
    )


async def test_a_config_that_cannot_be_read_is_a_typed_error(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    for content, problem in (
        (None, "No such file"),
        (b"", "truncated"),
        (b'{"rate":', "truncated"),
        (b'{"rate":"fast"}', "Expected `float`"),
        (b'{"rate":1.0,"rat":2}', "unknown field `rat`"),
        (b'{"rate":1.0,"\xff":2}', "can't decode"),
    ):
        if content is not None:
            (run.directory / "config.json").write_bytes(content)
        with pytest.raises(RunBroken, match=rf"config\.json: cannot be read \(.*{problem}"):
            await run.read_config(Settings)


async def test_rows_logged_without_a_session(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    await run.log_train_episode(EpisodeRecord(23.0, 23, TERMINATED, {"epsilon": 0.97}))
    await run.log_train_episode(
        EpisodeRecord(5.0, 7, EpisodeStatus.TRUNCATED, {"loss": 0.5}), total_steps=40, actor_id="a"
    )
    await run.log_eval_episode(EpisodeRecord(100.0, 99, TERMINATED), 100_000)
    await run.update_metadata(run.metadata.total_steps, run.metadata.total_episodes)
    await run.aclose()
    train = [json.loads(line) for line in (run.directory / "train_episodes.jsonl").read_text().splitlines()]
    assert all(datetime.fromisoformat(row.pop("time")).utcoffset() is not None for row in train)
    assert all(len(row.pop("crc")) == 8 for row in train)
    assert train == [
        {"total_reward": 23.0, "length": 23, "status": "Terminated", "extras": {"epsilon": 0.97},
         "total_steps": 23, "episode": 1, "actor_id": 0, "attempt": 1},
        {"total_reward": 5.0, "length": 7, "status": "Truncated", "extras": {"loss": 0.5},
         "total_steps": 40, "episode": 2, "actor_id": "a", "attempt": 1},
    ]  # fmt: skip
    (line,) = (run.directory / "eval_episodes.jsonl").read_text().splitlines()
    assert list(json.loads(line))[:5] == ["total_steps_at_eval", "total_reward", "length", "status", "extras"]
    metadata = json.loads((run.directory / "metadata.json").read_text())
    assert (metadata["total_steps"], metadata["total_episodes"]) == (40, 2)


async def test_columns_have_nan_where_an_extra_is_absent(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    for k, extras in enumerate([{"a": 1.0}, {}, {"b": 2.0, "a": 3.0}]):
        await run.log_train_episode(EpisodeRecord(float(k), k, TERMINATED, extras), actor_id=f"actor {k}")
    columns = await run.read_train_episodes()
    assert {len(column) for column in columns.values()} == {3}
    assert columns["total_reward"].dtype == np.float64
    assert columns["length"].dtype == columns["episode"].dtype == np.int64
    assert columns["status"].tolist() == ["Terminated"] * 3
    assert columns["actor_id"].tolist() == ["actor 0", "actor 1", "actor 2"]
    assert all(time.utcoffset() is not None for time in columns["time"])
    np.testing.assert_array_equal(columns["extras.a"], [1.0, math.nan, 3.0])
    np.testing.assert_array_equal(columns["extras.b"], [math.nan, math.nan, 2.0])
    await run.aclose()


async def test_without_rows_the_columns_are_empty(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    columns = await run.read_train_episodes()
    assert columns["total_reward"].shape == columns["status"].shape == (0,)
    assert (await run.read_eval_episodes())["total_steps_at_eval"].shape == (0,)


async def test_numbers_that_json_has_not_are_refused(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    values = (math.nan, math.inf, -math.inf)
    records = [EpisodeRecord(value, 1, TERMINATED) for value in values]
    for record in (*records, *(EpisodeRecord(1.0, 1, TERMINATED, {"x": value}) for value in values)):
        with pytest.raises(InvalidExperience, match="not finite"):
            await run.log_train_episode(record)
        with pytest.raises(InvalidExperience, match="not finite"):
            await run.log_eval_episode(record, 5)
    assert run.metadata.total_episodes == 0
    assert not (run.directory / "train_episodes.jsonl").exists()


async def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    for _ in range(3):
        await run.log_train_episode(EpisodeRecord(1.0, 1, TERMINATED))
    await run.aclose()
    path = run.directory / "train_episodes.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"#" + lines[1] + lines[2])
    with pytest.raises(RunBroken, match=r"train_episodes\.jsonl: line 2 is not a row"):
        await run.read_train_episodes()


def attempts(*starts: tuple[int, int]) -> list[Attempt]:
    """Attempts by where they began: steps and episodes."""
    return [
        Attempt(number=i, started_at=now(), from_steps=steps, from_episodes=episodes)
        for i, (steps, episodes) in enumerate(starts, 1)
    ]


def train_row(attempt: int, episode: int) -> TrainEpisodeRow:
    return TrainEpisodeRow(
        total_reward=0.0, length=1, status=TERMINATED, extras={}, total_steps=10 * episode, episode=episode,
        actor_id=0, time=now(), attempt=attempt,
    )  # fmt: skip


def eval_row(attempt: int, steps: int) -> EvalEpisodeRow:
    return EvalEpisodeRow(
        total_steps_at_eval=steps, total_reward=0.0, length=1, status=TERMINATED, extras={}, time=now(),
        attempt=attempt,
    )  # fmt: skip


# name, where each attempt began (steps, episodes), the episodes that each wrote, those that count
HISTORIES: list[tuple[str, list[tuple[int, int]], list[range], list[tuple[int, int]]]] = [
    ("one attempt", [(0, 0)], [range(1, 4)], [(1, 1), (1, 2), (1, 3)]),
    (
        "a clean resume",
        [(0, 0), (30, 3)],
        [range(1, 4), range(4, 6)],
        [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5)],
    ),
    ("killed", [(0, 0), (20, 2)], [range(1, 6), range(3, 5)], [(1, 1), (1, 2), (2, 3), (2, 4)]),
    ("killed before a checkpoint", [(0, 0), (0, 0)], [range(1, 6), range(1, 3)], [(2, 1), (2, 2)]),
    (
        "killed twice, further each time",
        [(0, 0), (20, 2), (40, 4)],
        [range(1, 4), range(3, 7), range(5, 7)],
        [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)],
    ),
    (
        "the second back before the first's checkpoint",
        [(0, 0), (40, 4), (20, 2)],
        [range(1, 6), range(5, 8), range(3, 4)],
        [(1, 1), (1, 2), (3, 3)],
    ),
    (
        "killed again at once",
        [(0, 0), (20, 2), (20, 2), (20, 2)],
        [range(1, 6), range(0), range(3, 6), range(3, 4)],
        [(1, 1), (1, 2), (4, 3)],
    ),
]


def counted(directory: Path, rows: list[Any], began: list[Attempt]) -> list[int]:
    """The places of the rows that count, as a reader of a run's files finds them."""
    directory.mkdir()
    metadata = RunMetadata(
        name="x", version="v1", run_id="1", started_at=now(), last_updated=now(), attempts=tuple(began)
    )
    write_json(directory / "metadata.json", metadata)
    (directory / ROW_FILES[type(rows[0])]).write_bytes(encode_rows(rows))
    table, found = read_table(directory, type(rows[0]))
    return np.arange(len(rows))[found].tolist() if table.n_rows == len(rows) else []


def test_the_history_that_counts(tmp_path: Path) -> None:
    for name, starts, written, counting in HISTORIES:
        rows = [train_row(i, episode) for i, episodes in enumerate(written, 1) for episode in episodes]
        kept = effective(rows, attempts(*starts))
        assert [(row.attempt, row.episode) for row in kept] == counting, name
        assert [row.episode for row in kept] == list(range(1, len(kept) + 1)), "without gaps"
        assert [rows[k] for k in counted(tmp_path / name, rows, attempts(*starts))] == kept, name


@pytest.mark.parametrize(
    ("episodes", "n_counted", "lost"),
    [
        ([1, 2, 3], 3, None),
        ([1, 2, 3], 2, None),  # a checkpoint counts no more than there were
        ([1, 2, 3], 5, "2 of 5 rows are missing, from line 4 on"),
        ([1, 3], 3, "1 of 3 rows are missing, from line 2 on"),
        ([1, 3, 2], 3, "rows are out of order, from line 2 on"),
        ([2, 3, 4], 3, "rows are out of order, from line 1 on"),
        ([], 1, "1 of 1 rows are missing, from line 1 on"),
        ([], 0, None),
    ],
)
def test_rows_that_a_checkpoint_counts_and_that_are_not_there_are_missed(
    episodes: list[int], n_counted: int, lost: str | None
) -> None:
    began = attempts((0, 0))
    assert loss_of([train_row(1, episode) for episode in episodes], began, n_counted) == lost


def test_lines_of_an_abandoned_future_are_counted_over() -> None:
    began = attempts((0, 0), (20, 2))
    rows = [*(train_row(1, episode) for episode in range(1, 5)), train_row(2, 3), train_row(2, 5)]
    assert loss_of(rows[:5], began, 3) is None
    assert loss_of(rows, began, 5) == "1 of 5 rows are missing, from line 6 on"
    evaluations = [eval_row(1, 10), eval_row(1, 90), eval_row(2, 30)]
    assert loss_of(evaluations, began, 2) is None
    assert loss_of(evaluations, began, 3) == "1 of 3 rows are missing, from line 4 on"


def test_evaluations_are_summed_up_by_their_steps() -> None:
    columns = {
        "total_steps_at_eval": np.array([20, 10, 20, 30, 10]),
        "total_reward": np.array([1.0, 2.0, 3.0, 7.0, 4.0]),
        "length": np.array([5, 6, 7, 8, 8]),
    }
    assert evaluations_of(columns) == [
        EvaluationSummary(10, 2, 3.0, 1.0, 7.0),
        EvaluationSummary(20, 2, 2.0, 1.0, 6.0),
        EvaluationSummary(30, 1, 7.0, 0.0, 8.0),
    ]


def test_evaluations_of_an_abandoned_future_do_not_count(tmp_path: Path) -> None:
    rows = [
        eval_row(1, 10),
        eval_row(1, 20),
        eval_row(1, 30),
        eval_row(2, 25),
        eval_row(2, 35),
        eval_row(3, 40),
    ]
    began = attempts((0, 0), (20, 2), (30, 3))
    kept = effective(rows, began)
    assert [rows[k] for k in counted(tmp_path / "run", rows, began)] == kept
    assert [(row.attempt, row.total_steps_at_eval) for row in kept] == [(1, 10), (1, 20), (2, 25), (3, 40)]


def test_records_are_placed_by_optimization_steps_too(tmp_path: Path) -> None:
    rows = [
        MetricsRow(total_steps=5, opt_steps=k, metrics={"x": 1.0}, time=now(), attempt=attempt)
        for attempt, k in ((1, 1), (1, 2), (1, 3), (2, 3), (7, 2), (7, 3))
    ]
    began = [
        Attempt(number=1, started_at=now()),
        Attempt(number=2, started_at=now(), from_steps=5, from_opt_steps=2),
    ]
    kept = effective(rows, began)
    assert [(row.attempt, row.opt_steps) for row in kept] == [(1, 1), (1, 2), (2, 3)]
    assert [rows[k] for k in counted(tmp_path / "run", rows, began)] == kept


async def test_attempts_are_noted_and_rows_carry_their_number(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    for _ in range(4):
        await run.log_train_episode(EpisodeRecord(1.0, 10, TERMINATED))
    await run.aclose()
    resumed = await TrainingRun.resume(run.directory)
    assert resumed.begin_attempt(20, 2, 25, 7, 5) == 2
    assert (resumed.metadata.total_steps, resumed.metadata.total_episodes) == (20, 2)
    attempt = (await TrainingRun.open(run.directory)).metadata.attempts[-1]
    assert (attempt.from_steps, attempt.from_episodes, attempt.from_events) == (20, 2, 25)
    assert (attempt.from_opt_steps, attempt.relearned_steps) == (7, 5)
    await resumed.log_train_episode(EpisodeRecord(9.0, 10, TERMINATED))
    await resumed.aclose()
    assert (await resumed.read_train_episodes())["total_reward"].tolist() == [1.0, 1.0, 9.0]
    everything: Any = await resumed.read_train_episodes(all_attempts=True)
    assert everything["attempt"].tolist() == [1, 1, 1, 1, 2]


async def test_a_negative_keep_is_refused(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    with pytest.raises(ConfigError, match="keep=-1"):
        await run.prune_checkpoints(-1)
