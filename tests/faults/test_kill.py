"""``kill -9`` in the middle of ``stoker train``: the run goes on from its last checkpoint, nothing is torn.

The same in chains of workers that confirm what is durable (``worker.py``): that is never lost. The short
forms run with all the tests; the long ones are marked ``faults`` (``make faults``).
STOKER_FAULTS_KILLS sets how many workers are killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from breaking import Breaker, amount, check
from worker import Confirmed, Order

import launching
from stoker import DQNConfig, TrainingRun, preset
from stoker.trainer import config_from
from stoker.writer import load_checkpoint

LOG = "runs/*/*/*/train_episodes.jsonl"
FREQ = 200
STARTS = 64
TRAIN = [
    "train", "CartPole-v1", "-n", "1000000", "--checkpoint-freq", str(FREQ), "--learning-starts", str(STARTS),
    "--n-step", "1", "--opt-interval", "1",
    "--hidden-sizes", "16", "--eval-freq", "500", "--eval-episodes", "5", "--num-envs", "4", "--json",
    "--no-progress",
]  # fmt: skip


def stoker(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """A command in a process group of its own, so that a kill reaches whatever it has started."""
    log = (cwd / "stderr.txt").open("a")
    with log:
        return launching.Popen(
            [sys.executable, "-m", "stoker", *arguments],
            cwd=cwd, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
        )  # fmt: skip


def wait_for_steps(process: subprocess.Popen[str], root: Path, more_than: int) -> Path:
    """Wait until the run has checkpoints beyond a step; return its directory."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, (root / "stderr.txt").read_text()
        for directory in root.glob("runs/*/*/*"):
            run = TrainingRun(directory, None)  # type: ignore[arg-type]  # only its paths are used
            if any(step > more_than for step in run.checkpoint_steps()):
                return directory
        time.sleep(0.01)  # a process cannot be awaited: this looks whether it has got there
    raise AssertionError(f"no checkpoint beyond {more_than}: {(root / 'stderr.txt').read_text()}")


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows; only the last may be torn, and only where nobody has opened the file since the kill."""
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    return [json.loads(line) for line in lines[:-1]]


def check_after_kill(directory: Path) -> dict[str, Any]:
    """All that is on disk under final names is whole; the newest checkpoint."""
    json.loads((directory / "metadata.json").read_text())
    json.loads((directory / "config.json").read_text())
    rows = whole_rows(directory / "train_episodes.jsonl")
    assert all(row["status"] in ("Terminated", "Truncated") for row in rows)
    whole_rows(directory / "eval_episodes.jsonl")
    states = {path.name: load_checkpoint(path) for path in (directory / "checkpoints").glob("*.pt")}
    steps = {int(name[5:-3]): state for name, state in states.items() if name.startswith("step_")}
    for step, state in steps.items():
        assert state["session"]["total_steps"] == state["agent"]["total_steps"] == step
        assert state["journal"]["replay"]["size"] == min(step, preset("dqn", "CartPole-v1").buffer_size)
        assert step % FREQ == 0
    assert "latest.pt" in states or len(steps) == 1, "killed between the two names, at the worst"
    assert set(states) <= {"latest.pt", "best.pt", *(f"step_{step}.pt" for step in steps)}
    newest = steps[max(steps)]
    newest["best"] = states["best.pt"]["best"] if "best.pt" in states else None
    return newest


def check_history(directory: Path) -> None:
    """The episodes that count are 1 to total_episodes, and every line parses."""

    async def read() -> None:
        run = await TrainingRun.open(directory)
        columns = await run.read_train_episodes()
        assert columns["episode"].tolist() == list(range(1, run.metadata.total_episodes + 1))
        steps = columns["total_steps"].tolist()
        assert steps == sorted(steps)
        assert steps[-1] <= run.metadata.total_steps
        assert (columns["extras.epsilon"] <= 1.0).all()
        at_eval = (await run.read_eval_episodes())["total_steps_at_eval"]
        assert sorted(at_eval.tolist()) == at_eval.tolist()

    anyio.run(read)
    for name in ("train_episodes.jsonl", "eval_episodes.jsonl"):
        for line in (directory / name).read_text().splitlines():
            json.loads(line)


def finish(directory: Path, root: Path, before: dict[str, Any]) -> None:
    """Resume to the end, and look whether it went on from where the newest checkpoint was."""
    step = before["session"]["total_steps"]
    total = step + 3 * FREQ + 50
    done = stoker("resume", str(directory), "-n", str(total), "--json", "--no-progress", cwd=root)
    out, _ = done.communicate(timeout=100)
    said = (root / "stderr.txt").read_text()
    assert done.returncode == 0, said
    assert f"resuming from step {step:,} of {total:,}" in said
    line = json.loads(out.splitlines()[-1])
    assert line["total_steps"] == total
    assert Path(root / line["run"]) == directory
    if before["best"] is not None:
        assert line["best_eval_reward"] >= before["best"]["value"], "the best value is not forgotten"
    metadata = json.loads((directory / "metadata.json").read_text())
    assert metadata["attempts"][-1]["from_steps"] == step
    assert metadata["attempts"][-1]["from_episodes"] == before["session"]["total_episodes"]
    assert (metadata["total_steps"], metadata["total_episodes"]) == (total, line["total_episodes"])
    after = load_checkpoint(directory / "checkpoints" / f"step_{total}.pt")
    assert after["agent"]["total_steps"] == total
    assert after["journal"]["replay"]["size"] == total
    assert after["agent"]["opt_steps"] == total - STARTS + 1, "one update per step, over all attempts"
    config: DQNConfig = config_from(json.loads((directory / "config.json").read_text())).agent_settings
    rows = whole_rows(directory / "train_episodes.jsonl")
    mine = [row for row in rows if row["attempt"] == metadata["attempts"][-1]["number"]]
    for row in mine:
        assert row["total_steps"] >= step
        epsilon = config.exploration_rate_at(row["total_steps"])
        assert row["extras"]["epsilon"] == pytest.approx(epsilon, abs=0.05)
    assert not [path.name for path in directory.rglob(".*.tmp")], "leftovers are cleared away"
    check_history(directory)


def kill_and_resume(root: Path, n_kills: int, seed: int) -> None:
    """Train, be killed, resume, be killed, and so on; at last resume to the end."""
    rng = random.Random(seed)
    process = stoker(*TRAIN, "--seed", str(seed), cwd=root)
    reached = 0
    try:
        for k in range(n_kills):
            directory = wait_for_steps(process, root, reached)
            time.sleep(rng.uniform(0.0, 0.7))  # a random moment; nothing is waited for
            kill(process)
            newest = check_after_kill(directory)
            assert newest["session"]["total_steps"] > reached, "it went on from the checkpoint"
            reached = newest["session"]["total_steps"]
            if k + 1 < n_kills:
                process = stoker("resume", str(directory), "--json", "--no-progress", cwd=root)
    finally:
        if process.poll() is None:
            kill(process)
    finish(directory, root, newest)
    attempts = json.loads((directory / "metadata.json").read_text())["attempts"]
    starts = [attempt["from_steps"] for attempt in attempts]
    assert len(starts) == n_kills + 1
    assert starts == sorted(starts)
    assert all(start % FREQ == 0 for start in starts)


def test_three_kills(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, 3, seed=0)


def test_a_kill_before_the_first_checkpoint(tmp_path: Path) -> None:
    never = ["--checkpoint-freq", "0", "--eval-freq", "0"]
    process = stoker(*TRAIN, *never, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        # The file is made a moment before its first row is in it.
        while not (logs := [log for log in tmp_path.glob(LOG) if log.stat().st_size]):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)  # a process cannot be awaited: this looks whether it has got there
    finally:
        kill(process)
    directory = logs[0].parent
    assert b"\n" in logs[0].read_bytes(), "a batch is one write"
    done = stoker("resume", str(directory), "-n", "300", "--json", "--no-progress", cwd=tmp_path)
    out, _ = done.communicate(timeout=100)
    assert done.returncode == 0, (tmp_path / "stderr.txt").read_text()
    assert json.loads(out.splitlines()[-1])["total_steps"] == 300
    said = (tmp_path / "stderr.txt").read_text()
    assert "no checkpoint yet: the training starts from the beginning" in said
    assert {row["attempt"] for row in whole_rows(directory / "train_episodes.jsonl")} == {1, 2}

    async def history() -> list[int]:
        run = await TrainingRun.open(directory)
        return (await run.read_train_episodes())["episode"].tolist()

    episodes = anyio.run(history)
    assert episodes == list(
        range(1, json.loads((directory / "metadata.json").read_text())["total_episodes"] + 1)
    )


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(1, 4))
def test_thirty_kills(tmp_path: Path, seed: int) -> None:
    kill_and_resume(tmp_path, 10, seed)


def chains(directory: Path, n_kills: int, seed: int, links: int = 25) -> str:
    """Kill workers at random moments, each of them resuming what the one before has left.

    After each kill everything is held against what was confirmed; each chain ends with a worker that is
    left to finish.

    Returns:
        What came of it, in one line.
    """
    rng = random.Random(seed)
    resumed = rows = confirmed = early = 0
    with Breaker(directory) as breaker:
        for first in range(0, n_kills, links):
            root = directory / f"runs_{first}"
            agent = ("fake", "dqn")[first // links % 2]
            said: list[Confirmed] = []
            found = check(root, said)
            for k in range(first, min(first + links, n_kills)):
                worker = breaker.start(Order(root=str(root), agent=agent, seed=seed + k))
                if rng.random() < 0.8:  # else from its first instruction on
                    worker.listen_until_begun()
                worker.listen(rng.uniform(0.0, 0.5))  # a random moment
                assert worker.kill() == -signal.SIGKILL, worker.log()
                said.append(worker.said)
                if worker.said.attempt:
                    assert worker.said.from_steps == found.steps, "it goes on from the newest checkpoint"
                    resumed += worker.said.from_steps > 0
                else:
                    early += 1
                confirmed += sum(worker.said.episodes) + worker.said.evals
                found = check(root, said)
            last = breaker.start(Order(root=str(root), agent=agent, cycles=2))
            assert last.end(60) == 0, last.log()
            assert last.said.has_ended
            assert last.said.from_steps == found.steps
            rows += check(root, [*said, last.said]).n_rows
    return (
        f"{n_kills} kills: 0 of {confirmed} confirmed rows lost, 0 torn files, {resumed} resumed from a "
        f"checkpoint, {early} killed before they had begun, 0 doubles in {rows} rows"
    )


def test_a_chain_of_kills(tmp_path: Path) -> None:
    print("\n" + chains(tmp_path, 10, seed=0))


@pytest.mark.faults
def test_kills_in_chains(tmp_path: Path) -> None:
    print("\n" + chains(tmp_path, amount("KILLS", 500), seed=1))
