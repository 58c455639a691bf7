"""What happens to a training becomes rows of its run's ``events.jsonl``."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import anyio
import gymnasium as gym
import numpy as np
import pytest

from obstacles import Gate, files_of_at_most
from stoker import (
    DQN,
    ActorFailed,
    DQNConfig,
    EpisodeRecord,
    EpisodeStatus,
    Experience,
    ExperienceBatch,
    InvalidExperience,
    MissingDependency,
    SessionFailed,
    SyncTrainingSession,
    TrainingRun,
    TrainingSession,
    WriteFailed,
    run_actors,
)
from stoker.actors import FailureLimit
from stoker.recorders import RunContext
from stoker.recorders.protocol import BaseRecorder
from stoker.runs import lease
from stoker.runs.event_rows import EventRow
from stoker.runs.events import AttemptEnded, BestChanged, CheckpointWritten
from stoker.session.eventlog import EventLimit, EventLog
from stoker.testing import ChainEnv, FakeAgent

pytestmark = pytest.mark.anyio


def step(k: int, actor_id: int | str = 0, reward: float = 1.0) -> Experience:
    return Experience(k, 0, reward, k + 1, EpisodeStatus.CONTINUING, actor_id)


async def events_of(run: TrainingRun, *kinds: str) -> list[EventRow]:
    return [row for row in await run.read_events() if row.kind in kinds]


async def ending_of(run: TrainingRun) -> dict[str, Any]:
    """How the last attempt ended, without what is not known."""
    last = (await run.read_events())[-1]
    assert last.kind == "attempt_ended"
    return {name: value for name, value in last.details.items() if value is not None}


@pytest.fixture
async def run(tmp_path: Path) -> TrainingRun:
    return await TrainingRun.create("x", root=tmp_path)


async def test_an_attempt_is_recorded_from_its_beginning_to_its_end(run: TrainingRun) -> None:
    async with TrainingSession(FakeAgent(), run, max_steps=20, checkpoint_freq=10) as session:
        for k in range(20):
            await session.observe(step(k))
        await session.maybe_save_best(5.0)
    rows = await run.read_events()
    assert rows[0].kind == "attempt_began"
    assert rows[0].details["from_steps"] == 0
    assert str(rows[0].details["command"]).startswith(sys.orig_argv[0])
    assert (rows[-1].kind, rows[-1].total_steps) == ("attempt_ended", 20)
    assert rows[-1].details["how"] == "finished"
    written = [
        (row.details["step"], row.details["n_bytes"]) for row in rows if row.kind == "checkpoint_written"
    ]
    assert written[0][0] == 10
    assert written[-1] == (20, run.checkpoint_path(20).stat().st_size)
    assert [row.details for row in rows if row.kind == "best_changed"] == [{"value": 5.0, "step": 20}]
    assert {row.attempt for row in rows} == {1}


async def test_a_best_that_is_not_the_best_changes_nothing(run: TrainingRun) -> None:
    async with TrainingSession(FakeAgent(), run, keep_best=3) as session:
        for value in (2.0, 1.0, 3.0):
            await session.observe(step(int(value)))
            await session.maybe_save_best(value)
    assert [row.details["value"] for row in await events_of(run, "best_changed")] == [2.0, 3.0]


async def test_an_event_is_durable_after_a_flush(run: TrainingRun) -> None:
    async with TrainingSession(FakeAgent(), run) as session:
        session.log_event(BestChanged(value=1.0, step=0))
        await session.flush()
        assert [row.kind for row in await run.read_events()] == ["attempt_began", "best_changed"]


async def test_a_resumed_attempt_says_from_where(run: TrainingRun) -> None:
    async with TrainingSession(FakeAgent(), run) as session:
        await session.observe(step(0))
    again = await TrainingRun.resume(run.directory)
    async with TrainingSession(FakeAgent(), again):
        pass
    rows = [row for row in await again.read_events() if row.attempt == 2]
    assert [rows[0].kind, rows[1].kind, rows[-1].kind] == ["attempt_began", "resumed", "attempt_ended"]
    assert rows[0].details["from_steps"] == 1
    assert rows[1].details["checkpoint_step"] == 1
    assert [row.details["how"] for row in await events_of(again, "attempt_ended")] == ["finished"] * 2


async def test_a_resume_says_what_it_learned_again_and_how_far_the_killed_attempt_came(
    run: TrainingRun, tmp_path: Path
) -> None:
    as_killed = tmp_path / "copied" / "v1" / "20260101_000000"
    async with TrainingSession(FakeAgent(), run, checkpoint_freq=0) as session:
        for k in range(15):
            if k == 10:
                await session.checkpoint()
            await session.observe(step(k))
        await session.flush()
        await anyio.to_thread.run_sync(shutil.copytree, run.directory, as_killed)
    again = await TrainingRun.resume(as_killed)
    async with TrainingSession(FakeAgent(), again):
        pass
    resumed, killed = await events_of(again, "resumed"), (await events_of(again, "attempt_ended"))[0]
    details = [(row.details["checkpoint_step"], row.details["tail_steps"]) for row in resumed]
    assert details == [(10, 5)]
    assert (killed.attempt, killed.details["how"], killed.total_steps) == (1, "killed", 15)


async def test_an_agent_that_raises_is_named(run: TrainingRun) -> None:
    with pytest.raises(SessionFailed):
        async with TrainingSession(FakeAgent(fail_at=3), run) as session:
            for k in range(5):
                await session.observe(step(k))
            await anyio.sleep_forever()
    ending = await ending_of(run)
    assert (ending["how"], ending["part"], ending["error"]) == ("failed", "agent", "RuntimeError")
    assert ending["text"].startswith("failed at ")


async def test_an_error_in_the_block_and_a_stop_are_told_apart(run: TrainingRun) -> None:
    with pytest.raises(KeyError):
        async with TrainingSession(FakeAgent(), run) as session:
            raise KeyError("mine")
    ending = await ending_of(run)
    assert 'raise KeyError("mine")' in ending.pop("traceback")
    assert ending == {"how": "failed", "error": "KeyError", "text": "'mine'"}
    run = await TrainingRun.resume(run.directory)
    with pytest.raises(SystemExit):
        async with TrainingSession(FakeAgent(), run):
            raise SystemExit(3)
    assert await ending_of(run) == {"how": "stopped", "exit_code": 3}
    run = await TrainingRun.resume(run.directory)
    async with TrainingSession(FakeAgent(), run) as session:
        session.note_signal("SIGTERM")
        session.stop()
    assert await ending_of(run) == {"how": "stopped", "signal": "SIGTERM"}


async def test_a_start_that_fails_after_the_attempt_began_is_a_failure(run: TrainingRun) -> None:
    class Absent(BaseRecorder):
        name = "absent"

        def open(self, context: RunContext) -> None:
            raise MissingDependency("mlflow", "mlflow")

        def write(self, step: int, record: Any) -> None:
            raise AssertionError("it is not open")

    with pytest.raises(MissingDependency):
        async with TrainingSession(FakeAgent(), run, recorders=[Absent()]):
            pass
    assert (await ending_of(run))["error"] == "MissingDependency"


async def test_a_part_that_stalls_is_recorded_before_the_end(run: TrainingRun) -> None:
    gate = Gate()

    class Stuck(FakeAgent):
        def learn(self) -> None:
            gate()

    try:
        with anyio.fail_after(20), pytest.raises(SessionFailed):
            async with TrainingSession(Stuck(), run, stall_timeout_s=0.2) as session:
                await session.observe(step(0))
                await anyio.sleep_forever()
    finally:
        gate.release.set()
    [stalled] = await events_of(run, "stalled")
    assert stalled.details["part"] == "agent"
    assert "in one call" in str(stalled.details["doing"])
    ending = await ending_of(run)
    assert (ending["part"], ending["error"]) == ("agent", "Stalled")


class Fails(ChainEnv):
    """Raises at each third step of its life."""

    steps = 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 3:
            raise OSError("it broke")
        return super().step(action)


async def test_an_environment_that_fails_is_recorded_with_each_restart_and_when_it_is_given_up(
    run: TrainingRun,
) -> None:
    limit = FailureLimit(failures=3, first_delay_s=0.0)
    with pytest.raises(ActorFailed):
        async with TrainingSession(FakeAgent(), run) as session:
            await run_actors(session, Fails, ["a"], limit=limit)
    restarted = await events_of(run, "actor_restarted")
    assert [row.details["restarts"] for row in restarted] == [1, 2]
    [failed] = await events_of(run, "actor_failed")
    assert failed.details["error"].startswith("OSError: it broke (")
    assert (failed.details["actor_id"], failed.details["restarts"]) == ("a", 2)
    assert (await ending_of(run))["error"] == "ActorFailed"


async def test_an_environment_that_hangs_is_a_silent_actor(run: TrainingRun) -> None:
    gate = Gate()
    is_first = True

    class Hangs(ChainEnv):
        def step(self, action: Any) -> Any:
            nonlocal is_first
            if is_first:
                is_first = False
                gate()
            return super().step(action)

    settings: dict[str, Any] = {"actor_timeout_s": 0.3, "on_silent_actor": "restart", "max_steps": 20}
    try:
        with anyio.fail_after(30):
            async with TrainingSession(FakeAgent(), run, **settings) as session:
                await run_actors(session, Hangs, 1, stepping="thread", limit=FailureLimit(first_delay_s=0.0))
    finally:
        gate.release.set()
    silent, restarted = await events_of(run, "actor_silent", "actor_restarted")
    assert (silent.kind, silent.details["actor_id"]) == ("actor_silent", 0)
    assert "in its environment" in str(silent.details["doing"])
    assert str(restarted.details["error"]).startswith("Stalled")


async def test_a_silent_task_of_the_user_is_recorded(run: TrainingRun) -> None:
    settings: dict[str, Any] = {"actor_timeout_s": 0.1, "on_silent_actor": "fail", "stall_timeout_s": 60.0}
    with anyio.fail_after(30), pytest.raises(SessionFailed):
        async with TrainingSession(FakeAgent(), run, **settings) as session:
            await session.observe(step(0, "quiet"))
            await anyio.sleep_forever()
    [silent] = await events_of(run, "actor_silent")
    assert silent.details["actor_id"] == "quiet"


def dqn() -> DQN:
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    return DQN(box, gym.spaces.Discrete(2), DQNConfig(hidden_sizes=(4,)), seed=0)


GOOD = np.zeros(2, np.float32)
BAD: list[tuple[str, Any]] = [
    ("reward", {"reward": float("nan")}),
    ("reward", {"reward": "high"}),
    ("status", {"status": "over"}),
    ("actor_id", {"actor_id": 1 << 70}),
    ("policy_version", {"policy_version": -1}),
    ("seq", {"seq": -1}),
    ("action", {"action": 7}),
    ("observation", {"observation": np.zeros(3, np.float32)}),
    ("next_observation", {"next_observation": np.full(2, np.inf, np.float32)}),
]


def experience(**changes: Any) -> Experience:
    fields: dict[str, Any] = {
        "observation": GOOD,
        "action": 0,
        "reward": 1.0,
        "next_observation": GOOD,
        "status": EpisodeStatus.CONTINUING,
        "actor_id": 0,
    }
    return Experience(**{**fields, **changes})


def batch(**changes: Any) -> ExperienceBatch:
    two: dict[str, Any] = {
        "observations": np.zeros((2, 2), np.float32),
        "actions": np.zeros(2, np.int64),
        "rewards": np.zeros(2),
        "next_observations": np.zeros((2, 2), np.float32),
        "terminated": np.zeros(2, np.bool_),
        "truncated": np.zeros(2, np.bool_),
        "actor_ids": (0, 1),
    }
    return ExperienceBatch(**{**two, **changes})


async def refuse_all(session: Any, call: Any) -> dict[str, int]:
    """Make each call with an input that is refused; return how often which field is to be counted."""
    expected: dict[str, int] = {}

    async def refused(field: str, name: str, *args: Any, **more: Any) -> None:
        with pytest.raises(InvalidExperience):
            await call(getattr(session, name), *args, **more)
        expected[field] = expected.get(field, 0) + 1

    for field, change in BAD:
        await refused(field, "observe", experience(**change))
        await refused(field, "observe_many", [experience(), experience(**change)])
    await refused("experience", "observe", "nothing")
    await refused("reward", "observe_batch", batch(rewards=np.array([0.0, np.nan])))
    await refused("action", "observe_batch", batch(actions=np.zeros(3, np.int64)))
    await refused("action", "observe_batch", batch(actions=np.array([0, 9])))
    await refused("actor_id", "observe_batch", batch(actor_ids=(0, -(1 << 70))))
    await refused("observation", "act", np.zeros(3, np.float32))
    await refused("mode", "act", GOOD, "greedy")
    await refused("observation", "act_many", [GOOD], [0, 1])
    await refused("observation", "act_many", [GOOD, np.zeros(3, np.float32)], [0, 1])
    await refused("observation", "decide", np.zeros(3, np.float32))
    await refused("seed", "on_episode_start", 0, "seven")
    await refused("total_reward", "on_episode", float("inf"), 1, EpisodeStatus.TERMINATED)
    await refused("extras", "on_episode", 1.0, 1, EpisodeStatus.TERMINATED, {"loss": float("nan")})
    record = EpisodeRecord(1.0, -1, EpisodeStatus.TERMINATED)
    await refused("length", "on_eval_episode", record)
    await refused("mean_reward", "maybe_save_best", float("nan"))
    return expected


async def test_each_input_that_is_refused_is_counted_once_by_its_field(run: TrainingRun) -> None:
    async def call(method: Any, *args: Any, **more: Any) -> Any:
        return await method(*args, **more)

    async with TrainingSession(dqn(), run) as session:
        expected = await refuse_all(session, call)
        await session.observe(experience())
    rows = await events_of(run, "inputs_refused")
    assert {row.details["field"]: row.details["count"] for row in rows} == expected
    assert run.metadata.total_steps == 1


async def test_a_session_without_a_loop_counts_the_same(run: TrainingRun) -> None:
    async def call(method: Any, *args: Any, **more: Any) -> Any:
        return await anyio.to_thread.run_sync(lambda: method(*args, **more))

    def train() -> dict[str, int]:
        with SyncTrainingSession(dqn(), run) as session:
            return anyio.run(refuse_all, session, call)

    expected = await anyio.to_thread.run_sync(train)
    rows = await events_of(run, "inputs_refused")
    assert {row.details["field"]: row.details["count"] for row in rows} == expected


async def test_an_agent_that_needs_extras_has_its_refusals_counted_as_such(run: TrainingRun) -> None:
    class Needs(FakeAgent):
        needs_policy_extras = True

    async with TrainingSession(Needs(policy_extras=True), run) as session:
        with pytest.raises(InvalidExperience):
            await session.observe(step(0))
    [row] = await events_of(run, "inputs_refused")
    assert row.details == {"field": "policy_extras", "count": 1}


def test_a_limit_admits_the_first_of_each_kind_and_counts_the_rest() -> None:
    limit = EventLimit(most=2)
    assert [limit.admits("stalled") for _ in range(5)] == [True, True, False, False, False]
    assert limit.admits("actor_silent")
    assert [(one.of, one.count) for one in limit.begin_anew()] == [("stalled", 3)]
    assert limit.begin_anew() == []
    assert limit.admits("stalled")


async def test_many_events_of_a_kind_are_bounded_and_counted_minute_by_minute(run: TrainingRun) -> None:
    run.is_new = False
    log = EventLog(run, lambda: 7)
    log.begin()
    for minute in range(2):
        for k in range(100):
            log.note(CheckpointWritten(step=k, n_bytes=1, took_s=0.0))
        log.refusals.count(InvalidExperience("reward=nan"))
        log.look(log._minute_at + 59.9)  # not over yet
        if minute == 0:
            log.look(log._minute_at + 60.0)
    assert await log.end(AttemptEnded(how="finished"))
    kinds = [row.kind for row in await run.read_events()]
    minute_of = ["checkpoint_written"] * 60 + ["inputs_refused", "events_suppressed"]
    assert kinds == ["attempt_began", *minute_of, *minute_of, "attempt_ended"]
    assert {row.details["count"] for row in await events_of(run, "events_suppressed")} == {40}


async def test_what_stoker_logs_is_recorded_while_the_session_is_open(run: TrainingRun) -> None:
    logger = logging.getLogger("stoker.envs")
    async with TrainingSession(FakeAgent(), run) as session:
        await session.observe(step(0))
        await session.flush()
        logger.warning("slow: %s", "x" * 2000)
        logger.info("nothing to know")
        await anyio.to_thread.run_sync(lambda: logger.error("a step failed", exc_info=ValueError("no")))
    logger.warning("too late")
    slow, failed = await events_of(run, "logged")
    assert (slow.details["level"], slow.details["source"], slow.total_steps) == ("warning", "stoker.envs", 1)
    assert slow.event.sentence.startswith("warning: slow: xxx")
    assert len(slow.event.sentence) < 1100
    assert (failed.event.sentence, failed.details["traceback"]) == (
        "error: a step failed",
        "ValueError: no",
    )
    assert [slow.importance, failed.importance] == ["warning", "error"]


async def test_what_a_resume_passed_over_is_recorded_behind_it(run: TrainingRun) -> None:
    async with TrainingSession(FakeAgent(), run, checkpoint_freq=1, journal=False) as session:
        for k in range(2):
            await session.observe(step(k))
    run.checkpoint_path(2).write_bytes(b"torn")
    again = await TrainingRun.resume(run.directory)
    async with TrainingSession(FakeAgent(), again, journal=False):
        pass
    rows = [row for row in await again.read_events() if row.attempt == 2]
    assert [row.kind for row in rows[:3]] == ["attempt_began", "resumed", "logged"]
    assert "step_2.pt" in rows[2].event.sentence


async def test_a_session_that_cannot_be_opened_hears_nothing_more(run: TrainingRun) -> None:
    (run.directory / "events.jsonl").mkdir()
    with pytest.raises(WriteFailed):
        await TrainingSession(FakeAgent(), run).open()
    assert not [one for one in logging.getLogger("stoker").handlers if "notices" in type(one).__module__]


async def test_without_a_run_nothing_is_recorded_and_nothing_fails() -> None:
    async with TrainingSession(FakeAgent()) as session:
        session.log_event(BestChanged(value=1.0, step=0))
        with pytest.raises(InvalidExperience):
            await session.observe(step(0, reward=float("nan")))


async def test_a_full_disk_is_recorded_with_the_file_and_the_end(run: TrainingRun) -> None:
    (run.directory / "train_episodes.jsonl").symlink_to("/dev/full")
    with anyio.fail_after(20), pytest.raises(SessionFailed, match="No space left"):
        async with TrainingSession(FakeAgent(), run) as session:
            await session.on_episode(1.0, 1, EpisodeStatus.TERMINATED)
            await session.flush()
    [full] = await events_of(run, "disk_full")
    assert full.details == {"file": "train_episodes.jsonl", "errno": "ENOSPC"}
    ending = await ending_of(run)
    assert (ending["part"], ending["error"]) == ("writer", "WriteFailed")


async def test_an_end_that_cannot_be_recorded_is_logged_and_hides_nothing(
    run: TrainingRun, caplog: pytest.LogCaptureFixture
) -> None:
    session = TrainingSession(FakeAgent(), run)
    await session.open()
    with anyio.fail_after(20), files_of_at_most((run.directory / "events.jsonl").stat().st_size):
        for k in range(100):
            await session.observe(step(k))
        with pytest.raises(SessionFailed, match="File too large"):
            await session.flush()
        with pytest.raises(SessionFailed, match="File too large"):
            await session.close()
    assert any("the end of attempt 1 could not be recorded" in record.message for record in caplog.records)
    assert [row.kind for row in await run.read_events()] == ["attempt_began"]
    again = await TrainingRun.resume(run.directory)
    async with TrainingSession(FakeAgent(), again):
        pass
    ended = await events_of(again, "attempt_ended")
    assert [(row.attempt, row.details["how"]) for row in ended] == [(1, "killed"), (2, "finished")]


async def test_an_attempt_whose_beginning_cannot_be_recorded_does_not_begin(
    run: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 0.2)  # its file was torn, too, so that it must run out
    session = TrainingSession(FakeAgent(), run)
    with files_of_at_most(100), pytest.raises(WriteFailed, match=r"events\.jsonl: File too large"):
        await session.open()
    await session.open()
    await session.close()
    assert [row.attempt for row in await events_of(run, "attempt_began")] == [2]
