"""Rows as data frames of pandas and polars."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from stoker import ConfigError, EpisodeRecord, EpisodeStatus, MissingDependency
from stoker.runs import TrainingRun


async def played(root: Path) -> TrainingRun:
    run = await TrainingRun.create("r", root=root)
    for k in range(1, 4):
        record = EpisodeRecord(k / 2, 10 * k, EpisodeStatus.TERMINATED, {"loss": 0.5} if k > 1 else {})
        await run.log_train_episode(record, actor_id=k if k < 3 else "npc-3")
    await run.aclose()
    return run


@pytest.mark.anyio
@pytest.mark.parametrize("library", ["pandas", "polars"])
async def test_a_frame_has_the_rows_with_their_types(tmp_path: Path, library: Any) -> None:
    run = await played(tmp_path)
    frame = run.to_frame(library=library)
    columns = await run.read_train_episodes()
    assert list(frame.columns) == list(columns)
    assert frame["total_reward"].to_list() == [0.5, 1.0, 1.5]
    assert frame["status"].to_list() == ["Terminated"] * 3
    assert frame["actor_id"].to_list() == ["1", "2", "npc-3"]
    assert [at.replace(tzinfo=UTC) for at in frame["time"].to_list()] == list(columns["time"])
    if library == "pandas":
        assert isinstance(frame, pd.DataFrame)
        assert str(frame.dtypes["length"]) == "int64"
        assert str(frame.dtypes["time"]) == "datetime64[us, UTC]"
        assert math.isnan(frame["extras.loss"][0])
    else:
        assert frame.schema["length"] == pl.Int64
        assert frame.schema["time"] == pl.Datetime("us", "UTC")
        assert frame["extras.loss"].to_list() == [None, 0.5, 0.5]
    empty = run.to_frame("eval", library=library)
    assert (len(empty), list(empty.columns)) == (0, list(await run.read_eval_episodes()))


@pytest.mark.anyio
async def test_the_frame_of_records_has_numbers_and_texts(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    rows = [run.metrics_row(k, k, {"loss": 0.5 * k, "phase": "warm" if k == 1 else k}) for k in (1, 2)]
    await run.metrics_log.append_rows([row for row in rows if row is not None])
    await run.aclose()
    for library in ("pandas", "polars"):
        frame = run.to_frame("metrics", library=library)
        assert frame["metrics.phase"].to_list() == ["warm", "2.0"]
        assert frame["metrics.loss"].to_list() == [0.5, 1.0]
        assert frame["time"][0] <= datetime.now(UTC)


@pytest.mark.anyio
async def test_what_there_is_no_frame_of_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await played(tmp_path)
    with pytest.raises(ConfigError, match=r"rows 'events' \(str\): give train, eval, metrics"):
        run.to_frame("events")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"library 'dask' \(str\): give pandas or polars"):
        run.to_frame(library="dask")  # pyright: ignore[reportArgumentType]
    monkeypatch.setitem(sys.modules, "polars", None)  # as where it is not installed
    with pytest.raises(MissingDependency, match=r"polars is not installed: run .*stoker\[polars\]"):
        run.to_frame(library="polars")
