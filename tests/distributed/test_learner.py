"""The learner as a detached actor of a real cluster, killed and moved; the commands that follow it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from ray_parts import cluster_of, started_cluster

import launching
from stoker.distributed.supervising import LearnerStatus, read_status
from stoker.errors import RunDirectoryError
from stoker.runs import TrainingRun

pytestmark = pytest.mark.timeout(600)
MAIN = "import sys\nfrom stoker.cli.main import main\nsys.exit(main(sys.argv[1:]))"
KILLED_STEPS = 20_000
"""Of trainings that are killed several times: they are not done before."""


def training(n_steps: int) -> tuple[str, ...]:
    return (
        *("train", "CartPole-v1", "-n", str(n_steps), "--seed", "1", "--checkpoint-freq", "500"),
        *("--num-envs", "2", "--eval-freq", "0", "--restart-learner"),
    )


TRAIN = training(2000)
ON_WORKERS = ("--actors", "ray", "--workers", "2", "--envs-per-worker", "1", "--worker-cpus", "0.25")
Command = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with started_cluster(2) as found:
        yield found


@pytest.fixture
def command(address: str, tmp_path: Path) -> Iterator[Command]:
    with commands_on(address, tmp_path) as start:
        yield start


@contextlib.contextmanager
def commands_on(address: str, directory: Path) -> Iterator[Command]:
    """Starts a command line that knows the cluster; what still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        program: Any = launching.Popen(
            [sys.executable, "-c", MAIN, *words],
            cwd=directory,
            env={**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(program)
        return program

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def until_trained(root: Path, n_events: int, pids: set[int]) -> tuple[Path, LearnerStatus]:
    """The run, once a process that is not among these has brought its journal that far."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        time.sleep(0.1)
        for run in root.glob("runs/CartPole-v1/v1/*"):
            try:
                status = read_status(run)
                reached = TrainingRun.find(run).journal.n_events()
            except RunDirectoryError:
                continue
            if status and status.state == "running" and status.pid not in pids and reached >= n_events:
                return run, status
    raise AssertionError("the learner got no further")


def attempts_with_workers(run: Path) -> set[int]:
    """The attempts whose events say that a worker played."""
    rows = anyio.run(TrainingRun.find(run).read_events)
    return {row.attempt for row in rows if row.kind == "workers_changed" and row.details["playing"]}


def check_whole(run: Path, command: Command, n_steps: int = 2000) -> None:
    assert TrainingRun.find(run).metadata.total_steps == n_steps
    code, output = ended(command("verify", str(run)))
    assert code == 0, output
    code, output = ended(command("replay", str(run), "--verify"))
    assert code == 0, output


def test_a_learner_that_is_killed_resumes_by_itself_and_those_who_follow_may_leave(
    command: Command, tmp_path: Path
) -> None:
    first = command(*TRAIN)
    run, status = until_trained(tmp_path, 300, set())
    first.send_signal(signal.SIGINT)
    code, output = ended(first)
    assert code == 0, output
    assert f"stoker stop runs/CartPole-v1/v1/{run.name}" in output
    assert "resuming" not in output
    os.kill(status.pid, signal.SIGSTOP)  # until there is somebody who follows
    followers = [command(*TRAIN), command("resume", str(run), "--restart-learner")]
    for follower in followers:
        assert follower.stdout is not None
        while "the learner runs on" not in (line := follower.stdout.readline()):
            assert line, "it has ended"
    os.kill(status.pid, signal.SIGKILL)
    for follower in followers:
        code, output = ended(follower)
        assert code == 0, output
        assert "Done: 2,000 steps" in output
    assert [each.name for each in run.parent.iterdir()] == [run.name]
    status = read_status(run)
    assert status is not None
    assert (status.state, status.restarts, status.exit_code) == ("ended", 1, 0)
    check_whole(run, command)


@pytest.mark.faults
def test_a_learner_that_is_killed_resumes_with_workers_on_the_cluster(
    command: Command, tmp_path: Path
) -> None:
    follower = command(*training(KILLED_STEPS), *ON_WORKERS)
    pids: set[int] = set()
    n_kills = 3
    for n in range(n_kills):
        run, status = until_trained(tmp_path, 300 * (n + 1), pids)
        deadline = time.monotonic() + 60
        while len(attempts_with_workers(run)) <= n:
            assert time.monotonic() < deadline, "an attempt had no workers"
            time.sleep(0.1)
        os.kill(status.pid, signal.SIGKILL)
        pids.add(status.pid)
    code, output = ended(follower)
    assert code == 0, output
    assert output.count("of the learner: it was killed by SIGKILL") == n_kills
    assert "Done: 20,000 steps" in output
    assert len(attempts_with_workers(run)) == n_kills + 1
    check_whole(run, command, KILLED_STEPS)


def test_it_is_stopped_in_good_order_and_resumed(command: Command, tmp_path: Path) -> None:
    first = command(*TRAIN)
    run, _ = until_trained(tmp_path, 300, set())
    code, output = ended(command("stop", str(run)))
    assert code == 0, output
    assert "Interrupted" in output
    assert ended(first)[0] == 0
    code, output = ended(command("resume", str(run), "--restart-learner"))
    assert code == 0, output
    check_whole(run, command)


def test_what_cannot_work_is_said_once(command: Command, tmp_path: Path) -> None:
    code, output = ended(command(*TRAIN, "--device", "cuda:7"))
    assert code == 2
    assert output.count("cuda:7") == 1
    code, output = ended(command(*TRAIN, "--cluster", "local"))
    assert code == 2
    assert "ends with this command" in output
    assert not list(tmp_path.glob("runs"))


@pytest.mark.faults
def test_it_survives_three_kills_and_the_loss_of_its_node(tmp_path: Path) -> None:
    with cluster_of(0, 2) as (address, tell), commands_on(address, tmp_path) as command:
        follower = command(*training(KILLED_STEPS))
        pids: set[int] = set()
        for n_events in (300, 600, 900):
            run, status = until_trained(tmp_path, n_events, pids)
            os.kill(status.pid, signal.SIGKILL)
            pids.add(status.pid)
        _, status = until_trained(tmp_path, 1200, pids)
        tell("-")  # the only node that has CPUs
        tell("2")
        code, output = ended(follower)
        assert code == 0, output
        ending = read_status(run)
        assert ending is not None
        assert (ending.state, ending.restarts, ending.exit_code) == ("ended", 4, 0)
        assert output.count("it was killed by SIGKILL") == 3
        check_whole(run, command, KILLED_STEPS)
