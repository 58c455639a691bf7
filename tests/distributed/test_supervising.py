"""A training that fails is started again, unless that would not help: real processes, without a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from stoker.distributed.supervising import Supervisor, read_status
from stoker.runs import TrainingRun
from stoker.runs.run import new_directory

PROGRAM = """
import os, signal, sys, time
from pathlib import Path

run = Path(sys.argv[1])
n = len(list(run.glob("start-*")))
(run / f"start-{n}").write_text(str(os.getpid()))
print("start", n, flush=True)

def advance():
    (run / "checkpoints" / f"step_{n + 1}.pt").write_text("")

def fail(code=1):
    print("stoker: error: it broke", file=sys.stderr)
    sys.exit(code)
"""
ADVANCES = "if n == 3: sys.exit(0)\nadvance()\nif n % 2: os.kill(os.getpid(), signal.SIGKILL)\nfail()"
WAITS = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nprint('up', flush=True)\ntime.sleep(120)"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return TrainingRun.create_at(*new_directory(tmp_path / "x/v1")).directory


def supervised(run: Path, code: str) -> Supervisor:
    (run / "program.py").write_text(PROGRAM + code)
    return Supervisor(run, ["program", str(run)], str(run), {**os.environ, "PYTHONPATH": path_with(run)})


def path_with(run: Path) -> str:
    return os.pathsep.join([str(run), *sys.path])


def test_one_that_gets_further_is_started_again_however_it_fails(run: Path) -> None:
    supervisor = supervised(run, ADVANCES)
    status = supervisor.run()
    assert (status.state, status.exit_code, status.restarts, status.fruitless) == ("ended", 0, 3, 1)
    assert read_status(run) == status
    news = supervisor.news(0, 0.0)
    assert [line for line in news.lines if line[0]] == [(True, f"start {n}") for n in range(4)]
    assert supervisor.news(news.until, 0.0).lines == []


@pytest.mark.parametrize(
    ("code", "n_starts", "reason"),
    [
        pytest.param("fail(2)", 1, "stoker: error: it broke", id="a setting"),
        pytest.param("fail()", 2, "stoker: error: it broke (given up", id="the same twice"),
    ],
)
def test_what_would_come_again_is_not_repeated(run: Path, code: str, n_starts: int, reason: str) -> None:
    status = supervised(run, code).run()
    assert status.state == "ended"
    assert status.reason.startswith(reason)
    assert len(list(run.glob("start-*"))) == n_starts


def test_one_that_is_stopped_finishes_and_is_not_started_again(run: Path) -> None:
    supervisor = supervised(run, WAITS)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    deadline = time.monotonic() + 60
    while (True, "up") not in supervisor.news(0, 0.0).lines:
        supervisor.news(1, 1.0)
        assert time.monotonic() < deadline
    supervisor.stop()
    thread.join(60)
    assert (supervisor.status.state, supervisor.status.restarts) == ("ended", 0)


def test_a_training_ends_with_its_supervisor_and_the_next_one_counts_on(run: Path) -> None:
    (run / "program.py").write_text(PROGRAM + WAITS)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom stoker.distributed.supervising import Supervisor\n"
        "Supervisor(Path(sys.argv[1]), ['program', sys.argv[1]], '/', dict(os.environ)).run()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run)], env={**os.environ, "PYTHONPATH": path_with(run)}
    ) as process:
        deadline = time.monotonic() + 60
        while (status := read_status(run)) is None or status.state != "running":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        training = psutil.Process(status.pid)
        process.kill()
    training.wait(60)
    (run / "checkpoints" / "step_5.pt").write_text("")
    status = supervised(run, "sys.exit(0)").run()
    assert (status.exit_code, status.restarts, status.fruitless, status.reached) == (0, 1, 1, 5)
