"""The rows of ``events.jsonl``: their kinds and details, their words, and what verifying and forking do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from stoker import EpisodeStatus, Experience, RunBroken, TrainingRun, TrainingSession
from stoker.runs import fork
from stoker.runs.event_rows import KINDS, EventRow
from stoker.runs.events import (
    ActorGivenUp,
    ActorRestarted,
    AttemptBegan,
    AttemptEnded,
    BestChanged,
    DiskFilled,
    EventsSuppressed,
    InputsRefused,
    Logged,
    Resumed,
    RunEvent,
)
from stoker.runs.outcomes import killed_attempts
from stoker.runs.processes import command_line
from stoker.runs.verifying import Finding, verify_run
from stoker.testing import FakeAgent
from stoker.writer import encode_rows

pytestmark = pytest.mark.anyio
BEGAN = AttemptBegan(pid=7, host="a", command="x", python="3", torch="2", stoker="1", from_steps=0)

SAID: list[tuple[RunEvent, str]] = [
    (AttemptEnded(how="finished"), "attempt finished"),
    (AttemptEnded(how="stopped", signal="SIGTERM"), "attempt stopped by SIGTERM"),
    (AttemptEnded(how="stopped", exit_code=3), "attempt stopped with exit code 3"),
    (AttemptEnded(how="killed"), "attempt was killed: it recorded no end"),
    (
        AttemptEnded(how="failed", part="agent", error="ValueError", text="no"),
        "attempt failed in the agent: ValueError: no",
    ),
    (
        Resumed(checkpoint_step=4000, tail_steps=1200, tail_events=1260, took_s=0.5),
        "resumed from the checkpoint of step 4,000 and learned 1,200 steps of the journal again, in 0.50 s",
    ),
    (
        Resumed(checkpoint_step=None, tail_steps=0, tail_events=0, took_s=0.25),
        "resumed without a checkpoint in 0.25 s",
    ),
    (BestChanged(value=200.5, step=6000), "the policy of step 6,000 is the best so far: 200.5"),
    (
        ActorRestarted(actor_id="a", error="OSError: gone", restarts=2),
        "actor 'a' got a new environment (restart 2): OSError: gone",
    ),
    (
        ActorGivenUp(actor_id=3, error="OSError: gone", restarts=4),
        "actor 3 failed for good after 4 restarts: OSError: gone",
    ),
    (InputsRefused(field="reward", count=7), "refused 7 inputs within a minute: invalid reward"),
    (
        DiskFilled(file="step_4.pt", errno="ENOSPC"),
        "the disk was full (ENOSPC) while step_4.pt was written",
    ),
    (Logged(level="error", source="stoker.envs", text="no frame"), "error: no frame"),
    (
        EventsSuppressed(of="checkpoint_written", count=8),
        "left out 8 more events of the kind checkpoint_written within a minute",
    ),
]


def row(event: RunEvent, attempt: int = 1) -> EventRow:
    return EventRow.of(event, total_steps=10, attempt=attempt)


@pytest.mark.parametrize(("event", "words"), SAID, ids=[words for _, words in SAID])
def test_an_event_comes_back_from_its_row_and_has_words(event: RunEvent, words: str) -> None:
    again = msgspec.json.decode(msgspec.json.encode(row(event)), type=EventRow)
    assert again.event == event
    assert again.event.sentence == words


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        ("coffee_made", {}),
        ("best_changed", {"value": 1.0}),
        ("best_changed", {"value": "high", "step": 4}),
        ("best_changed", {"value": 1.0, "step": 4, "more": 1}),
    ],
)
async def test_a_row_of_an_unknown_kind_or_with_other_details_is_damage(
    tmp_path: Path, kind: str, details: dict[str, Any]
) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    fields = {"time": "2026-01-01T00:00:00Z", "attempt": 1, "total_steps": 4, "kind": kind}
    (run.directory / "events.jsonl").write_bytes(encode_rows([{**fields, "details": details}]))
    with pytest.raises(RunBroken, match=r"events\.jsonl: line 1 is not a row"):
        await run.read_events()
    assert "events.jsonl" in {found.file for found in verify_run(run) if found.kind == "damaged"}


def test_texts_of_a_row_are_valid_unicode_and_not_endless() -> None:
    found = row(AttemptEnded(how="failed", error="ValueError", text="\ud800" + "x" * 5000)).details["text"]
    assert isinstance(found, str)
    assert found.startswith("\\ud800xxx")
    assert found.endswith("x...")
    assert len(found) < 1100


def test_of_a_long_traceback_the_end_is_kept() -> None:
    found = row(AttemptEnded(how="failed", traceback="first" + "x" * 5000 + "last")).details["traceback"]
    assert isinstance(found, str)
    assert (len(found), found[-5:]) == (4000, "xlast")


@pytest.mark.parametrize(
    ("event", "importance"),
    [
        (BestChanged(value=1.0, step=4), "info"),
        (AttemptEnded(how="stopped"), "info"),
        (AttemptEnded(how="killed"), "error"),
        (InputsRefused(field="reward", count=7), "warning"),
        (Logged(level="warning", source="stoker", text="slow"), "warning"),
        (Logged(level="error", source="stoker", text="no"), "error"),
    ],
)
def test_an_event_matters_more_or_less(event: RunEvent, importance: str) -> None:
    assert row(event).importance == importance


def test_an_attempt_that_began_and_recorded_no_end_was_killed() -> None:
    ended, best = AttemptEnded(how="stopped"), BestChanged(value=1.0, step=4)
    rows = [row(BEGAN, 1), row(best, 1), row(ended, 1), row(BEGAN, 2), row(best, 2), row(BEGAN, 3)]
    assert killed_attempts(rows) == [rows[4], rows[5]], "the last that was heard of attempts 2 and 3"
    assert killed_attempts([row(best, 4)]) == [], "it was written without a session"


def test_each_kind_has_one_struct() -> None:
    assert len(KINDS) == len(RunEvent.__subclasses__())


SECRETS = [
    (["stoker", "train", "--api-key", "XYZ", "-n", "5"], "stoker train --api-key *** -n 5"),
    (["train", "--wandb-token=XYZ", "PASSWORD=XYZ"], "train '--wandb-token=***' 'PASSWORD=***'"),
    (["train", "https://me:XYZ@host/path"], "train 'https://***@host/path'"),
    (["train", "--set", '{"api_key": "XYZ", "rate": 1}'], """train --set '{"api_key": ***, "rate": 1}'"""),
    (["train", "--token", "--json"], "train --token --json"),
    (["train", "CartPole-v1", "--keep-checkpoints", "3"], "train CartPole-v1 --keep-checkpoints 3"),
]


@pytest.mark.parametrize(("words", "line"), SECRETS, ids=[line for _, line in SECRETS])
def test_a_command_line_shows_no_secrets(words: list[str], line: str) -> None:
    assert command_line(words) == line
    assert "XYZ" not in line
    assert command_line(["x" * 100], most=10) == "xxxxxxx..."


async def trained(root: Path, n_steps: int) -> TrainingRun:
    run = await TrainingRun.create("source", root=root)
    async with TrainingSession(FakeAgent(), run) as session:
        for k in range(n_steps):
            await session.observe(Experience(k, 0, 1.0, k + 1, EpisodeStatus.CONTINUING, 0))
    return run


async def test_a_torn_row_is_passed_over_and_set_aside_by_the_next_attempt(tmp_path: Path) -> None:
    run = await trained(tmp_path, 3)
    path = run.directory / "events.jsonl"
    path.write_bytes(path.read_bytes() + b'{"time":"2026')
    before = await run.read_events()
    assert [found for found in verify_run(run) if found.file == "events.jsonl"] == [
        Finding(
            "events.jsonl",
            path.stat().st_size,
            "torn",
            f"{len(before)} whole rows, then a torn tail of 13 bytes; the next resume sets it aside",
        )
    ]
    async with TrainingSession(FakeAgent(), await TrainingRun.resume(run.directory)):
        pass
    assert (run.directory / "events.jsonl.torn").read_bytes().startswith(b'{"time":"2026')
    after = await run.read_events()
    assert after[: len(before)] == before
    assert [one.kind for one in after[len(before) :]][:2] == ["attempt_began", "resumed"]


async def test_rows_that_are_damaged_do_not_keep_a_run_from_resuming(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = await trained(tmp_path, 3)
    path = run.directory / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0].replace(b"attempt_began", b"attempt_egg"), *lines[1:]]))
    async with TrainingSession(FakeAgent(), await TrainingRun.resume(run.directory)) as session:
        assert session.total_steps == 3
    [said] = [record.message for record in caplog.records if "events.jsonl" in record.message]
    assert "line 1 is not a row" in said
    assert "whether earlier attempts were killed is unknown" in said


async def test_a_fork_has_its_own_events_and_no_attempt_of_its_source_counts_as_killed(
    tmp_path: Path,
) -> None:
    source = await trained(tmp_path, 3)
    made = await fork(source, 3, "fork", root=tmp_path)
    [forked] = await made.read_events()
    assert forked.details == {"source": str(source.directory), "step": 3}
    async with TrainingSession(FakeAgent(), await TrainingRun.resume(made.directory)):
        pass
    rows = await made.read_events()
    assert [rows[0].kind, rows[1].kind, rows[2].kind] == ["forked", "attempt_began", "resumed"]
    assert [one.details["how"] for one in rows if one.kind == "attempt_ended"] == ["finished"]
    assert {found.kind for found in verify_run(made)} <= {"ok", "note"}
