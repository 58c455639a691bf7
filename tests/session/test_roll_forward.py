"""A resume learns the tail of the journal: what was durable when a process was killed is there afterwards."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from dying import Order, agent_for, kept_of
from training_parts import unequal

import launching
from stoker import TrainingRun, TrainingSession
from stoker.runs.verifying import verify_run
from stoker.session.replaying import replay_run

pytestmark = pytest.mark.anyio

PROGRAM = Path(__file__).with_name("dying.py")
SETTINGS: dict[str, Any] = {
    "checkpoint_freq": 100,
    "journal_segment_bytes": 3000,
    "keep_journal": "all",
    "keep_checkpoints": None,
    "record_freq": 40,
}


def live_and_die(root: Path, until: int, agent: str = "dqn", n_rows: int = 1, **settings: Any) -> Any:
    """Train in a process of its own that is killed at that step; return what it was then."""
    order = Order(root=str(root), agent=agent, until=until, n_rows=n_rows, settings={**SETTINGS, **settings})
    done = launching.run([sys.executable, str(PROGRAM), msgspec.json.encode(order).decode()])
    assert done.returncode == -signal.SIGKILL
    return torch.load(root / "at_death.pt", weights_only=True)


def lines(run: TrainingRun, name: str) -> list[dict[str, Any]]:
    path = run.directory / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def damaged(run: TrainingRun) -> list[str]:
    return [f"{finding.file}: {finding.text}" for finding in verify_run(run) if finding.kind == "damaged"]


@pytest.mark.parametrize(("kind", "n_rows"), [("dqn", 1), ("dqn", 8), ("ppo", 1), ("ppo", 8)])
async def test_what_was_flushed_is_there_after_each_kill(tmp_path: Path, kind: str, n_rows: int) -> None:
    """The first kill comes before any checkpoint, the second and the third come between two."""
    for until in (56, 168, 296):
        was = live_and_die(tmp_path, until, kind, n_rows)
        run, agent = await TrainingRun.resume(tmp_path / "dying"), agent_for(kind, seed=3)
        # Opened and left at once: nothing is played.
        async with TrainingSession(agent, run, **SETTINGS) as session:
            assert list(unequal(was, kept_of(session, agent))) == []
            assert session.total_steps == until
        assert damaged(run) == []
    rows = lines(run, "train_episodes.jsonl")
    assert [row["episode"] for row in rows] == list(range(1, len(rows) + 1)), "each once"
    records = [(row["total_steps"], row["opt_steps"]) for row in lines(run, "metrics.jsonl")]
    assert [steps for steps, _ in records] == list(range(40, 296, 40))
    assert len(lines(run, "eval_episodes.jsonl")) == 3
    again = agent_for(kind)
    replayed = replay_run(run, again)
    assert replayed.from_steps == 0
    assert [found for found in replayed.comparisons if found.differences] == []
    assert len(replayed.comparisons) >= 5
    assert replayed.total_steps == 296
