"""``kill -9`` in the middle of ``stoker train``: it goes on from the last event on disk, nothing is torn.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec
import pytest
from breaking import Breaker, amount, check, journaled, train_again
from worker import Confirmed, Order, make_agent

import launching
from stoker import DQNConfig, TrainingRun, preset
from stoker.trainer import config_from
from stoker.writer import load_checkpoint

LOG = "runs/*/*/*/train_episodes.jsonl"
FREQ = 200
STARTS = 64
TRAIN = [
    "train", "CartPole-v1", "-n", "1000000", "--learning-starts", str(STARTS), "--n-step", "1",
    "--batch-size", str(STARTS), "--opt-interval", "1", "--hidden-sizes", "16", "--eval-freq", "500",
    "--eval-episodes", "5", "--num-envs", "4", "--json", "--no-progress",
]  # fmt: skip
OFTEN = ["--checkpoint-freq", str(FREQ)]
TAIL = 1_000
"""Steps that a kill leaves without a checkpoint."""


def stoker(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """A command in a process group of its own, so that a kill reaches whatever it has started."""
    log = (cwd / "stderr.txt").open("a")
    with log:
        return launching.Popen(
            [sys.executable, "-m", "stoker", *arguments],
            cwd=cwd, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
        )  # fmt: skip


def wait_for_steps(process: subprocess.Popen[str], root: Path, more_than: int) -> Path:
    """Wait until the run has rows beyond a step; return its directory."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, (root / "stderr.txt").read_text()
        for log in root.glob(LOG):
            rows = whole_rows(log)
            if rows and rows[-1]["total_steps"] > more_than:
                return log.parent
        time.sleep(0.01)  # a process cannot be awaited: this looks whether it has got there
    raise AssertionError(f"no row beyond {more_than}: {(root / 'stderr.txt').read_text()}")


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows; only the last may be torn, and only where nobody has opened the file since the kill."""
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    return [json.loads(line) for line in lines[:-1]]


class Left(NamedTuple):
    """What a kill left: the steps and the episodes in the journal, and the best value that was saved."""

    steps: int
    episodes: int
    best: float | None


def check_after_kill(directory: Path) -> Left:
    """All that is on disk under final names is whole, and no row is of an episode that the journal lacks."""
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
    assert "latest.pt" in states or len(steps) <= 1, "killed between the two names, at the worst"
    assert set(states) <= {"latest.pt", "best.pt", *(f"step_{step}.pt" for step in steps)}
    journal = journaled(anyio.run(TrainingRun.open, directory))
    assert journal.steps >= max(steps, default=0)
    assert [row["total_reward"] for row in rows] == journal.episodes[: len(rows)]
    best = states["best.pt"]["best"]["value"] if "best.pt" in states else None
    return Left(journal.steps, len(journal.episodes), best)


def check_history(directory: Path) -> None:
    """The episodes of all rows are 1 to total_episodes, and every line parses."""

    async def read() -> None:
        run = await TrainingRun.open(directory)
        columns = await run.read_train_episodes()
        assert columns["episode"].tolist() == list(range(1, run.metadata.total_episodes + 1))
        everything = await run.read_train_episodes(all_attempts=True)
        assert len(everything["episode"]) == len(columns["episode"]), "no row was abandoned"
        steps = columns["total_steps"].tolist()
        assert steps == sorted(steps)
        assert steps[-1] <= run.metadata.total_steps
        assert (columns["extras.epsilon"] <= 1.0).all()
        at_eval = (await run.read_eval_episodes())["total_steps_at_eval"]
        assert sorted(at_eval.tolist()) == at_eval.tolist()

    anyio.run(read)
    for log in directory.glob("*.jsonl"):
        for line in log.read_text().splitlines():
            json.loads(line)


def finish(directory: Path, root: Path, left: Left) -> None:
    """Resume to the end, and look whether it went on from the last step in the journal."""
    total = left.steps + 3 * FREQ + 50
    done = stoker("resume", str(directory), "-n", str(total), "--json", "--no-progress", cwd=root)
    out, _ = done.communicate(timeout=100)
    said = (root / "stderr.txt").read_text()
    assert done.returncode == 0, said
    assert f"resuming from step {left.steps:,} of {total:,}" in said
    line = json.loads(out.splitlines()[-1])
    assert line["total_steps"] == total
    assert Path(root / line["run"]) == directory
    if left.best is not None:
        assert line["best_eval_reward"] >= left.best, "the best value is not forgotten"
    metadata = json.loads((directory / "metadata.json").read_text())
    assert metadata["attempts"][-1]["from_steps"] == left.steps
    assert metadata["attempts"][-1]["from_episodes"] == left.episodes
    assert (metadata["total_steps"], metadata["total_episodes"]) == (total, line["total_episodes"])
    after = load_checkpoint(directory / "checkpoints" / f"step_{total}.pt")
    assert after["agent"]["total_steps"] == total
    assert after["journal"]["replay"]["size"] == total
    assert after["agent"]["opt_steps"] == total - STARTS + 1, "one update per step, over all attempts"
    config: DQNConfig = config_from(json.loads((directory / "config.json").read_text())).agent_settings
    for row in whole_rows(directory / "train_episodes.jsonl"):
        epsilon = config.exploration_rate_at(row["total_steps"])
        assert row["extras"]["epsilon"] == pytest.approx(epsilon, abs=0.05)
    assert not [path.name for path in directory.rglob(".*.tmp")], "leftovers are cleared away"
    check_history(directory)


def kill_and_resume(root: Path, n_kills: int, seed: int, options: Sequence[str] = ()) -> None:
    """Train, be killed, resume, be killed, and so on; at last resume to the end."""
    rng = random.Random(seed)
    process = stoker(*TRAIN, "--seed", str(seed), *options, cwd=root)
    reached = [0]
    try:
        for k in range(n_kills):
            directory = wait_for_steps(process, root, reached[-1])
            time.sleep(rng.uniform(0.0, 0.7))  # a random moment; nothing is waited for
            kill(process)
            left = check_after_kill(directory)
            assert left.steps > reached[-1], "it went on from the journal"
            reached.append(left.steps)
            if k + 1 < n_kills:
                process = stoker("resume", str(directory), "--json", "--no-progress", cwd=root)
    finally:
        if process.poll() is None:
            kill(process)
    finish(directory, root, left)
    attempts = json.loads((directory / "metadata.json").read_text())["attempts"]
    assert [attempt["from_steps"] for attempt in attempts] == reached


@pytest.mark.parametrize("options", [pytest.param([], marks=pytest.mark.faults), OFTEN])
def test_three_kills(tmp_path: Path, options: list[str]) -> None:
    kill_and_resume(tmp_path, 3, 0, options)


def test_a_kill_of_a_run_that_never_saves(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, 1, 0, ["--checkpoint-freq", "0", "--eval-freq", "0"])


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(1, 4))
def test_thirty_kills(tmp_path: Path, seed: int) -> None:
    kill_and_resume(tmp_path, 10, seed, OFTEN if seed == 1 else [])


AGENTS = ("fake", "dqn", "ppo")
N_ACTORS = 64


def chains(directory: Path, n_kills: int, seed: int, links: int = 25) -> str:
    """Kill workers at random moments, each of them resuming what the one before has left.

    Each has a learning rate and an ``opt_interval`` of its own. After each kill everything is held against
    what was confirmed, and the next worker must go on from the last step in the journal. Each chain ends with
    a worker that is left to finish; then the journal is learned again from its first event, and compared with
    each checkpoint, to the bit.

    Returns:
        What came of it, in one line.
    """
    rng = random.Random(seed)
    rows = steps = confirmed = early = relearning = compared = 0
    with Breaker(directory) as breaker:
        for first in range(0, n_kills, links):
            root = directory / f"runs_{first}"
            agent = AGENTS[first // links % len(AGENTS)]
            order = Order(root=str(root), agent=agent, n_actors=N_ACTORS, keep_all=agent != "fake")
            said: list[Confirmed] = []
            found = check(root, said)
            for k in range(first, min(first + links, n_kills)):
                settings = {"learning_rate": rng.choice([3e-4, 1e-3]), "opt_interval": rng.choice([1, 2])}
                worker = breaker.start(msgspec.structs.replace(order, seed=seed + k, **settings))
                if rng.random() < 0.8:  # else from its first instruction on
                    worker.listen_until(lambda said: said.attempt)
                worker.listen(rng.uniform(0.0, 0.5))  # a random moment
                assert worker.kill() == -signal.SIGKILL, worker.log()
                said.append(worker.said)
                if worker.said.attempt:
                    assert worker.said.from_steps == found.steps, "it goes on from the journal's end"
                else:
                    early += 1
                    relearning += worker.said.is_relearning
                confirmed += sum(worker.said.episodes) + worker.said.evals
                found = check(root, said)
            last = breaker.start(msgspec.structs.replace(order, cycles=2))
            assert last.end(60) == 0, last.log()
            assert last.said.has_ended
            assert last.said.from_steps == found.steps
            found = check(root, [*said, last.said])
            rows, steps = rows + found.n_rows, steps + found.steps
            if order.keep_all:
                compared += train_again(root / "fault", make_agent(agent))
    return (
        f"{n_kills} kills, {early} of them before a session had begun, {relearning} while it learned the "
        f"journal's tail: 0 of {confirmed} confirmed rows lost, 0 doubles in {rows} rows, 0 torn files, "
        f"{steps} steps, {compared} checkpoints equal to those of the journal learned again"
    )


def test_chains_of_kills(tmp_path: Path) -> None:
    print("\n" + chains(tmp_path, 6, seed=0, links=3))


@pytest.mark.faults
def test_kills_in_chains(tmp_path: Path) -> None:
    print("\n" + chains(tmp_path, amount("KILLS", 500), seed=1))


def contents(directory: Path) -> dict[str, bytes]:
    """All files below it but for the lock and the lease, which name their holder."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.stem not in (".lock", ".lease"))
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("agent", "updates"), [("dqn", (1, 900)), pytest.param("ppo", (1, 2), marks=pytest.mark.faults)]
)
def test_kills_while_the_tail_is_learned(tmp_path: Path, agent: str, updates: tuple[int, ...]) -> None:
    order = Order(root=str(tmp_path / "runs"), agent=agent, n_actors=N_ACTORS, keep_all=True)
    root = Path(order.root)
    with Breaker(tmp_path) as breaker:
        first = breaker.start(order)
        first.listen_until(lambda said: said.flushed > TAIL)
        first.kill()
        found, before = check(root, [first.said]), contents(root)
        for update in updates:
            worker = breaker.start(msgspec.structs.replace(order, dies_at_learn=update))
            assert worker.end(60) == -signal.SIGKILL, worker.log()
            assert worker.said.is_relearning
            assert worker.said.attempt == 0, "it had learned the whole tail"
            assert contents(root) == before, "nothing is written before the tail is learned"
        last = breaker.start(msgspec.structs.replace(order, cycles=2))
        assert last.end(60) == 0, last.log()
        assert last.said.from_steps == found.steps
        check(root, [first.said, last.said])
        train_again(root / "fault", make_agent(agent))
