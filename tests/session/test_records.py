"""Records of the metrics: into the run's log and to recorders, at exact steps, by names that users know."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_parts import dqn, feed

from stoker import ConfigError, SessionFailed, TrainingRun, TrainingSession
from stoker.recorders import Recording, RunContext

pytestmark = pytest.mark.anyio


class Kept:
    """A recorder that keeps everything."""

    name = "kept"

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.context: RunContext | None = None
        self.records: list[tuple[int, dict[str, Any]]] = []
        self.status: str | None = None
        self.threads: set[str] = set()

    def open(self, context: RunContext) -> None:
        self.context = context

    def write(self, step: int, record: Any) -> None:
        self.threads.add(threading.current_thread().name)
        if self.fail_at is not None and step >= self.fail_at:
            raise OSError("the sink is full")
        self.records.append((step, dict(record)))

    def flush(self) -> None:
        pass

    def close(self, status: Any) -> None:
        self.status = status


def logged(run: TrainingRun) -> list[dict[str, Any]]:
    lines = (run.directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


async def test_rows_and_recorders_say_the_same_at_multiples_of_the_period(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    kept = Kept()
    async with TrainingSession(dqn(), run, recorders=[kept], record_interval=20) as session:
        await feed(session, 0, 75)
        session.store({"custom/loops": 3})
    rows = logged(run)
    assert [row["total_steps"] for row in rows] == [29, 49, 69]  # it learns from its tenth transition on
    assert [step for step, _ in kept.records] == [29, 49, 69]
    for row, (_, record) in zip(rows, kept.records, strict=True):
        assert row["metrics"] == {key: record[key] for key in row["metrics"]}
        assert record["train/n_updates"] == row["total_steps"] - 9
        assert record["time/total_timesteps"] == row["total_steps"]
        assert {"train/loss", "train/q_mean", "time/fps", "time/episodes"} <= record.keys()
        assert 0 < record["rollout/exploration_rate"] <= 1
    assert rows[-1]["metrics"]["rollout/ep_rew_mean"] == np.mean([9, 19, 29, 39, 49, 59])
    assert rows[-1]["metrics"]["rollout/ep_len_mean"] == 10
    assert kept.status == "finished"
    assert kept.context is not None
    assert kept.context.directory == run.directory
    assert kept.context.params["agent/learning_rate"] == 3e-4
    assert kept.context.params["session/record_interval"] == 20
    assert threading.current_thread().name not in kept.threads


async def test_loss_is_the_mean_over_the_optimization_steps_since_the_last_record(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    agent = dqn()
    losses: list[float] = []
    learn = agent.learn

    def learn_and_tell() -> Any:
        metrics = learn()
        if metrics is not None:
            losses.append(metrics["loss"])
        return metrics

    agent.learn = learn_and_tell  # type: ignore[method-assign]
    async with TrainingSession(agent, run, record_freq=25) as session:
        await feed(session, 0, 50)
    first, second = logged(run)
    assert first["metrics"]["train/loss"] == pytest.approx(np.mean(losses[:16]))
    assert second["metrics"]["train/loss"] == pytest.approx(np.mean(losses[16:41]))


async def test_values_of_the_caller_are_in_the_next_record_and_record_is_one_of_its_own() -> None:
    kept = Kept()
    async with TrainingSession(dqn(), recorders=[kept], record_freq=10) as session:
        session.store({"game/score": 1.0})
        session.store({"game/score": 4.0})
        await feed(session, 0, 10)
        await session.flush()
        await session.record({"eval/mean_reward": 7.5}, total_steps=5)
        with pytest.raises(ConfigError, match="bad name"):
            session.store({"bad name": 1.0})
        with pytest.raises(ConfigError, match="cannot be recorded"):
            await session.record({"ok": object()})
    assert kept.records[0][1]["game/score"] == 2.5
    assert kept.records[1] == (5, {"eval/mean_reward": 7.5})


async def test_a_failing_recorder_does_not_disturb_the_run_unless_that_was_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    broken, whole = Kept(fail_at=0), Kept()
    with caplog.at_level(logging.WARNING):
        async with TrainingSession(dqn(), run, recorders=[broken, whole], record_freq=10) as session:
            await feed(session, 0, 40)
    assert "the sink is full" in caplog.text
    assert len(whole.records) == len(logged(run)) == 4

    second = await TrainingRun.create("r", root=tmp_path)
    strict = Recording([Kept(fail_at=0)], on_error="fail")
    with pytest.raises(SessionFailed, match="the sink is full"):
        async with TrainingSession(dqn(), second, recorders=strict, record_freq=10) as session:
            for k in range(0, 10**6, 10):
                await feed(session, k, k + 10)
                await session.flush()
    assert logged(second)


async def test_recorders_are_told_how_it_ended(tmp_path: Path) -> None:
    stopped, failed = Kept(), Kept()
    async with TrainingSession(dqn(), recorders=[stopped]) as session:
        session.stop()
    agent = dqn()
    agent.observe = lambda experiences: 1 / 0  # type: ignore[method-assign, assignment]
    with pytest.raises(SessionFailed):
        async with TrainingSession(agent, recorders=[failed]) as session:
            await feed(session, 0, 5)
            await session.flush()
    assert (stopped.status, failed.status) == ("stopped", "failed")


async def test_a_resumed_run_goes_on_with_its_window_and_drops_the_abandoned_future(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    async with TrainingSession(dqn(), run, record_freq=50, checkpoint_freq=50) as session:
        await feed(session, 0, 100)
    for name in ("step_100.pt", "latest.pt"):
        (run.checkpoints_directory / name).unlink()
    again = await TrainingRun.resume(run.directory)
    settings: dict[str, Any] = {"record_freq": 20, "checkpoint_freq": 50, "roll_forward": False}
    async with TrainingSession(dqn(), again, **settings) as session:
        assert session.total_steps == 50
        await feed(session, 50, 80)
    columns = await again.read_metrics()
    assert columns["total_steps"].tolist() == [50, 60, 80]
    # The checkpoint knows the four episodes before it; the record of the fifth one came behind it.
    means = [np.mean(rewards) for rewards in ([9, 19, 29, 39], [9, 19, 29, 39], [9, 19, 29, 39, 59, 69])]
    assert columns["metrics.rollout/ep_rew_mean"].tolist() == means
    everything = await again.read_metrics(all_attempts=True)
    assert everything["total_steps"].tolist() == [50, 100, 60, 80]
