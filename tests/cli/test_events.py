"""What ``stoker show`` tells of a training that was killed, stopped by a signal, or had failures."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from stoker import TrainingRun
from stoker.cli.main import main
from stoker.runs.event_rows import EventRow

SMALL = ("--learning-starts", "64", "--hidden-sizes", "16", "--num-envs", "4", "--eval-freq", "0")
DEADLINE_S = 40.0

FAILING_ENV = """
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

class Fails(CartPoleEnv):
    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 40:
            raise OSError("the plug was pulled")
        return super().step(action)

gym.register("Fails-v0", Fails)
"""


def events_of(path: Path) -> list[EventRow]:
    async def read() -> list[EventRow]:
        return await (await TrainingRun.open(path)).read_events()

    return anyio.run(read)


def wait_for_checkpoints(root: Path, attempt: int, count: int) -> None:
    """Return when that many checkpoints of an attempt are recorded."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        assert time.monotonic() < deadline, "no checkpoint came"
        paths = list(root.rglob("events.jsonl"))
        rows = events_of(paths[0].parent) if paths else []
        if sum(row.kind == "checkpoint_written" for row in rows if row.attempt == attempt) >= count:
            return
        time.sleep(0.02)


def shown(path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> list[str]:
    """The lines of the events that ``stoker show`` prints."""
    capsys.readouterr()
    assert main(["show", str(path), *flags]) == 0
    return capsys.readouterr().out.partition("last events\n")[2].splitlines()


def ends_shown(path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """How the attempts ended, as ``stoker show`` says."""
    capsys.readouterr()
    assert main(["show", str(path)]) == 0
    lines = capsys.readouterr().out.partition("last events\n")[0].splitlines()
    return [line.rpartition(": ")[2] for line in lines if line.startswith("attempt ")]


def test_a_kill_and_a_signal_are_recorded_and_shown(
    started: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs"
    first = started("train", "CartPole-v1", *SMALL, "-n", "100000000", "--checkpoint-freq", "150")
    wait_for_checkpoints(root, 1, 2)
    first.kill()
    first.communicate()
    before = events_of(root)
    assert (before[0].kind, before[0].details["pid"]) == ("attempt_began", first.pid)
    assert "attempt_ended" not in {row.kind for row in before}
    assert ends_shown(root, capsys) == ["killed"], "also before anybody resumes it"
    second = started("resume", "runs")
    wait_for_checkpoints(root, 2, 1)
    assert ends_shown(root, capsys) == ["killed", "running"]
    second.terminate()
    _, stderr = second.communicate(timeout=DEADLINE_S)
    assert second.returncode == 0, stderr
    rows = events_of(root)
    assert rows[: len(before)] == before
    killed, began, resumed = rows[len(before) : len(before) + 3]
    assert (killed.kind, killed.attempt, killed.details["how"]) == ("attempt_ended", 1, "killed")
    assert (began.kind, began.attempt) == ("attempt_began", 2)
    assert (resumed.kind, began.details["from_steps"]) == ("resumed", resumed.total_steps)
    assert (rows[-1].details["how"], rows[-1].details["signal"]) == ("stopped", "SIGTERM")
    assert ends_shown(root, capsys) == ["killed", "stopped"]
    assert len(shown(root, capsys)) == min(10, len(rows))
    lines = shown(root, capsys, "--events", "100000")
    assert len(lines) == len(rows)
    assert [line.split()[2:4] for line in lines if "attempt was killed" in line] == [["attempt", "1"]]
    assert lines[-1].endswith("attempt stopped by SIGTERM")
    assert main(["verify", str(root)]) == 0


def test_an_environment_that_fails_is_shown_and_is_in_the_json(
    stoker: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "failing_envs.py").write_text(FAILING_ENV)
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = stoker("train", "failing_envs:Fails-v0", *SMALL, "-n", "300", env={"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    root = tmp_path / "runs"
    restarted = [row for row in events_of(root) if row.kind == "actor_restarted"]
    assert restarted
    assert "the plug was pulled" in str(restarted[0].details["error"])
    lines = shown(root, capsys, "--events", "1000")
    assert any("got a new environment" in line and "the plug was pulled" in line for line in lines)
    assert shown(root, capsys, "--events", "0") == []
    assert main(["show", str(root), "--json", "--events", "1000"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [row["kind"] for row in facts["events"]] == [row.kind for row in events_of(root)]


def test_a_damaged_event_is_named_and_the_rest_is_shown(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs/x/v1/20260101_000000"
    run.parent.mkdir(parents=True)
    run.mkdir()
    for name in ("metadata.json", "train_episodes.jsonl", "eval_episodes.jsonl"):
        (run / name).write_bytes((trained.run / name).read_bytes())
    lines = (trained.run / "events.jsonl").read_bytes().splitlines(keepends=True)
    (run / "events.jsonl").write_bytes(b"".join([lines[0], b"#" + lines[1], *lines[2:]]))
    episodes = bytearray((run / "train_episodes.jsonl").read_bytes())
    episodes[5] ^= 1
    (run / "train_episodes.jsonl").write_bytes(episodes)
    assert main(["show", str(run)]) == 0
    *said, first, _, second = capsys.readouterr().out.splitlines()
    assert any("attempt finished" in line for line in said), "the other events"
    assert any("episode reward over steps" in line for line in said), "the other episodes"
    assert "train_episodes.jsonl: line 1 is not a row" in first
    assert "events.jsonl: line 2 is not a row" in second
