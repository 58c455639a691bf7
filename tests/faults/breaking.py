"""What breaks a worker and looks at what is left: starting, killing, tracing, checking, mounting.

``Breaker`` starts workers (``worker.py``), ``check`` holds what is on disk against what they confirmed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import anyio
import msgspec
import numpy as np
from numpy.typing import NDArray
from worker import RECORD_FREQ, Confirmed, Order, serial

from stoker import Experience, TrainingRun
from stoker.agents.protocol import LearningAgent
from stoker.journal import EpisodeEnded
from stoker.runs.rows import Columns
from stoker.runs.verifying import verify_run
from stoker.session.replaying import replay_run
from stoker.writer import load_checkpoint

WORKER = Path(__file__).with_name("worker.py")


def amount(name: str, default: int) -> int:
    """How long a full form is: from the environment, or else its full length."""
    return int(os.environ.get(f"STOKER_FAULTS_{name}", default))


# Workers ------------------------------------------------------------------------------------------


class Worker:
    """A worker that runs, seen from outside.

    Attributes:
        pid: its process, which leads a group of its own.
        said: the last that it confirmed.
    """

    def __init__(self, pid: int, channel: socket.socket, orders: socket.socket, log: Path) -> None:
        self.pid = pid
        self.said = Confirmed()
        self._channel = channel
        self._orders = orders
        self._log = log
        self._status: int | None = None

    def release(self) -> None:
        """Let a held worker go."""
        self._channel.send(b"!")

    def listen(self, seconds: float) -> bool:
        """Take in what it says for so long; returns whether it has ended before that."""
        deadline = time.monotonic() + seconds
        while self._channel.fileno() >= 0:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._channel], [], [], left)[0]:
                return False
            try:
                data = self._channel.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                self._channel.close()
                break
            self.said = msgspec.json.decode(data, type=Confirmed)
        return True

    def listen_until(self, is_there: Callable[[Confirmed], object]) -> None:
        """Take in what it says until that is there, or it has ended."""
        deadline = time.monotonic() + 60
        while not is_there(self.said) and not self.listen(0.002):
            assert time.monotonic() < deadline, self.log()

    def kill(self) -> int:
        """SIGKILL to the group, wherever it is; returns how it ended, which may have been before."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return self.end(10.0)

    def end(self, seconds: float) -> int:
        """Wait for its end and return its exit status; one that is still alive after ``seconds`` hangs."""
        if self._status is None:
            has_ended = self.listen(seconds)
            if not has_ended or not select.select([self._orders], [], [], 10.0)[0]:
                os.killpg(self.pid, signal.SIGKILL)
                self._status = int(self._orders.recv(64))
                raise AssertionError(f"the worker hung: alive after {seconds} s\n{self.log()}")
            self._status = int(self._orders.recv(64))
            self._channel.close()
        return self._status

    def log(self) -> str:
        """What went to its standard error, and to that of those before it."""
        return self._log.read_text()[-4000:]


class Breaker:
    """Starts workers, one at a time, from a server that has everything imported. A context manager."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "workers.log"
        self._worker: Worker | None = None

    def __enter__(self) -> Self:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = self.log.open("ab")
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, str(WORKER), str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stderr=self._log,
            )  # fmt: skip
        if self._orders.recv(64) != b"ready":
            self._leave()
            raise AssertionError(self.log.read_text())
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._worker is not None:
                self._worker.kill()
        finally:
            self._leave()

    def _leave(self) -> None:
        self._orders.close()
        self._log.close()
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def start(self, order: Order) -> Worker:
        """Start a worker; the one before it must have ended."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            data = msgspec.json.encode(order)
            socket.send_fds(self._orders, [data], [theirs.fileno(), self._log.fileno()])
        pid = int(self._orders.recv(64))
        self._worker = Worker(pid, ours, self._orders, self.log)
        return self._worker


# Looking at what is left --------------------------------------------------------------------------


def run_in(root: Path) -> TrainingRun | None:
    """The run that workers make there; None while there is none.

    A worker that is killed while it makes the run may leave directories without a ``metadata.json``: nothing
    has begun in them.
    """
    if not any(root.glob("fault/*/*/metadata.json")):
        return None
    return anyio.run(TrainingRun.open, root / "fault")


class Journaled(NamedTuple):
    """What a journal holds, up to where it can be read.

    Attributes:
        steps: environment steps, over all attempts.
        episodes: the serials of the episodes that ended, in their order.
        is_whole: whether that is from the first event on.
    """

    steps: int
    episodes: list[float]
    is_whole: bool


def journaled(run: TrainingRun) -> Journaled:
    """Read the journal: what a resume has to come to, if nothing is damaged."""
    journal = run.journal
    last = journal.n_events()
    first = journal.leads_from(last) if last else 0
    assert first is not None, "the journal's end cannot be reached"
    steps = next((header.total_steps for header in journal.headers() if header.first_event == first), 0)
    events = [event for _, event in journal.read(first, last)]
    ends = [event.record.total_reward for event in events if isinstance(event, EpisodeEnded)]
    return Journaled(steps + sum(isinstance(event, Experience) for event in events), ends, first == 0)


class Found(NamedTuple):
    """What a look at a run gave: the steps that a resume has to go on from, and how many rows there are."""

    steps: int
    n_rows: int


def check(root: Path, said: Sequence[Confirmed]) -> Found:
    """Hold the run against all that its workers confirmed, in the order of their lives.

    Nothing under a final name is torn, no confirmed step, row, checkpoint or best value is missing, no row is
    there twice or does not count, and the rows are those of the episodes in the journal, in their order.
    """
    run = run_in(root)
    begun = [worker for worker in said if worker.attempt]
    if run is None:
        assert not begun, "a run that had begun is gone"
        return Found(0, 0)
    for name in ("metadata.json", "config.json"):
        if (run.directory / name).exists():
            json.loads((run.directory / name).read_bytes())
    states = {path.name: load_checkpoint(path) for path in run.checkpoints_directory.glob("*.pt")}
    assert not list(run.directory.rglob("*.broken")), "a resume found a checkpoint torn"
    assert not list(run.directory.rglob("*.abandoned")), "a resume went back behind a checkpoint"
    resumable = [state["session"] for state in states.values() if state["kind"] == "step"]
    newest = max((session["total_steps"] for session in resumable), default=0)
    for name, state in states.items():
        if match := re.fullmatch(r"step_(\d+)\.pt", name):
            assert state["session"]["total_steps"] == state["agent"]["total_steps"] == int(match[1])
    if "best.pt" in states:
        assert states["best.pt"]["best"]["value"] >= max(worker.best for worker in said)
    else:
        assert not any(worker.best for worker in said), "a confirmed best.pt is gone"
    journal = journaled(run)
    assert journal.steps >= newest, "a checkpoint knows of steps that the journal has lost"
    for worker in begun:
        assert newest >= worker.steps, f"the checkpoint at {worker.steps} steps is lost: {sorted(states)}"
        assert journal.steps >= worker.flushed, f"{worker.flushed - journal.steps} confirmed steps are lost"
    kinds = Counter((row.kind, row.attempt) for row in anyio.run(run.read_events))
    for worker in begun:
        assert kinds["attempt_began", worker.attempt] == 1
        is_past = worker is not begun[-1] or worker.has_ended
        assert is_past <= kinds["attempt_ended", worker.attempt] <= 1, "each attempt's end is recorded once"
    counting, everything, evals, every_eval, records, every_record = anyio.run(_rows, run)
    assert len(counting["episode"]) == len(everything["episode"]), "rows of episodes were abandoned"
    assert len(evals["attempt"]) == len(every_eval["attempt"]), "rows of evaluations were abandoned"
    assert len(records["attempt"]) == len(every_record["attempt"]), "records were abandoned"
    recorded_at = records["total_steps"].tolist()
    assert recorded_at == [RECORD_FREQ * (k + 1) for k in range(len(recorded_at))], "records lost or doubled"
    rows = counting["total_reward"]
    for worker in begun:
        for actor_id, confirmed in enumerate(worker.episodes):
            _check_serials(rows[counting["actor_id"] == actor_id], worker.attempt, confirmed)
        _check_serials(evals["total_reward"], worker.attempt, worker.evals)
    assert counting["episode"].tolist() == list(range(1, len(rows) + 1))
    assert (counting["total_steps"][1:] >= counting["total_steps"][:-1]).all()
    held = max((session["total_episodes"] for session in resumable), default=0)
    assert len(rows) >= held, "a checkpoint knows of rows that are not there"
    if journal.is_whole:
        assert rows.tolist() == journal.episodes[: len(rows)], "the rows are not those of the journal"
        if said and said[-1].has_ended:
            assert len(rows) == len(journal.episodes) == run.metadata.total_episodes
            assert len(recorded_at) == journal.steps // RECORD_FREQ
    return Found(journal.steps, len(rows))


def _check_serials(serials: NDArray[np.float64], attempt: int, confirmed: int) -> None:
    """One stream's rows of the episodes of an attempt: each once, in order, at least those confirmed."""
    mine = [value for value in serials.tolist() if serial(attempt, 0) < value < serial(attempt + 1, 0)]
    assert mine == [serial(attempt, k + 1) for k in range(len(mine))], "rows are lost, doubled or moved"
    assert len(mine) >= confirmed, f"{confirmed - len(mine)} confirmed rows are lost"


async def _rows(run: TrainingRun) -> tuple[Columns, ...]:
    return (
        await run.read_train_episodes(),
        await run.read_train_episodes(all_attempts=True),
        await run.read_eval_episodes(),
        await run.read_eval_episodes(all_attempts=True),
        await run.read_metrics(),
        await run.read_metrics(all_attempts=True),
    )


def train_again(directory: Path, agent: LearningAgent) -> int:
    """Train again from the first event on, and compare with each checkpoint; returns how many there were.

    The run must have ended in good order, so that its last checkpoint is of the journal's end.
    """
    run = anyio.run(TrainingRun.open, directory)
    assert not [finding for finding in verify_run(run) if finding.kind == "damaged"]
    replayed = replay_run(run, agent)
    assert replayed.from_steps == 0
    assert [each for each in replayed.comparisons if each.differences] == []
    assert [each.step for each in replayed.comparisons] == sorted(run.checkpoint_steps())
    assert replayed.comparisons[-1].step == replayed.total_steps == journaled(run).steps
    return len(replayed.comparisons)


# Tracing ------------------------------------------------------------------------------------------


def no_strace() -> str:
    """Why system calls cannot be tampered with here; empty: they can."""
    if sys.platform != "linux":
        return "strace is of Linux"
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(["strace", "-o", os.devnull, "true"], check=False, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"strace may not trace: {done.stderr.strip()}"


@contextlib.contextmanager
def traced(worker: Worker, log: Path, *options: str) -> Generator[subprocess.Popen[bytes]]:
    """Attach strace to a held worker and all its threads, and let it go; its log has a time per line."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-ttt", "-o", str(log), *options, "-p", str(worker.pid)],
        stderr=subprocess.PIPE,
    )
    assert tracer.stderr is not None
    try:
        line = tracer.stderr.readline()
        assert b"attached" in line, line
        worker.release()
        yield tracer
    finally:
        worker.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            tracer.wait(5)
        if tracer.poll() is None:
            tracer.kill()
        tracer.wait()
        tracer.stderr.close()


# File systems -------------------------------------------------------------------------------------


def no_mounts() -> str:
    """Why file systems cannot be mounted here; empty: they can."""
    if sys.platform != "linux":
        return "mounts are made the Linux way"
    if os.geteuid() != 0:
        return "mounting needs root"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices"
    if shutil.which("mkfs.ext4") is None:
        return "mkfs.ext4 is not installed"
    with tempfile.TemporaryDirectory() as place:  # a container's root may not mount
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "tmpfs", place], check=False, capture_output=True, text=True
        )
        if done.returncode == 0:
            subprocess.run(["umount", place], check=True)
    return done.stderr.strip()


@contextlib.contextmanager
def mounted(kind: str, megabytes: int, directory: Path) -> Generator[Path]:
    """A small file system of its own, ``tmpfs`` or one on a loop device, for as long as the block runs."""
    place, image = directory / "mounted", directory / "image"
    place.mkdir()
    if kind == "tmpfs":
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    else:
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True)
        mount = ["mount", "-o", "loop", str(image), str(place)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        image.unlink(missing_ok=True)
