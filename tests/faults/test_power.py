"""Power cuts on real file systems: what was confirmed is there afterwards, whole, and the run goes on.

A worker trains on a loop-mounted ext4 or XFS. At a random moment the file system is shut down below it, as
a power cut would (``FS_IOC_SHUTDOWN``: nothing that is only in memory reaches the disk any more), the worker
is killed or left to find out, and the file system is mounted again, which recovers its log. The cache of
the drive itself is not part of the rig: what the file system has issued counts as written.

The short form runs with all the tests; the long one is marked ``faults``. STOKER_POWER_CUTS sizes it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from breaking import train_again
from power_server import make_agent

from stoker import TrainingRun
from stoker.runs.rows import Columns
from stoker.runs.verifying import verify_run
from stoker.writer import load_checkpoint

CUTS = int(os.environ.get("STOKER_POWER_CUTS", "400"))
AGENTS = ("dqn", "ppo")
"""By turns, for each run."""
SHUTDOWN = 0x8004587D
LOG_FLUSH, NO_LOG_FLUSH = 1, 2
SIZES_MB = {"ext4": 96, "xfs": 320}
PATIENCE_S = 60.0
SERVER = Path(__file__).with_name("power_server.py")

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="shuts Linux file systems down"),
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root"),
    pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="there are no loop devices"),
]


class Disk:
    """A file system of its own in a file."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.image = directory / f"{kind}.img"
        self.place = directory / kind
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(SIZES_MB[kind] << 20)
        subprocess.run([f"mkfs.{kind}", "-q", self.image], check=True)

    def mount(self) -> subprocess.CompletedProcess[str]:
        """Mount it, which recovers what a cut left."""
        command = ["mount", "-t", self.kind, "-o", "loop", self.image, self.place]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    def unmount(self) -> None:
        """Unmount it and give its loop device back."""
        deadline = time.monotonic() + PATIENCE_S
        while (
            done := subprocess.run(["umount", self.place], check=False, capture_output=True, text=True)
        ).returncode:
            assert time.monotonic() < deadline, done.stderr
            time.sleep(0.05)  # a dying process may still hold a file

    def sync(self) -> None:
        """Write out all that it has in memory, as the kernel does now and then."""
        with _opened(self.place) as descriptor:
            ctypes.CDLL(None).syncfs(descriptor)

    def cut(self, how: int) -> None:
        """Shut it down: nothing more reaches the disk."""
        with _opened(self.place) as descriptor:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", how))

    def recover(self) -> None:
        """Drop what is in memory and mount what is on the disk."""
        self.unmount()
        done = self.mount()
        assert done.returncode == 0, done.stderr


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def mounted(kind: str, directory: Path) -> Iterator[Disk]:
    """A fresh, mounted file system; skips where this machine cannot have one."""
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    disk = Disk(kind, directory)
    if (done := disk.mount()).returncode:
        pytest.skip(f"{kind} cannot be mounted here: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        disk.unmount()


class Server:
    """The program that forks the workers, and what it and they say."""

    def __init__(self, log: Path) -> None:
        self._log = log
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, SERVER],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, bufsize=0,
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._buffer = b""

    def start(self, **request: Any) -> int:
        """Fork a worker; its process id."""
        self._in.write(json.dumps(request).encode() + b"\n")
        started = self.hear(PATIENCE_S)
        assert started is not None
        assert started[0] == "started"
        return started[1]

    def hear(self, wait_s: float) -> list[Any] | None:
        """The next line, or None if there is none in that time."""
        deadline = time.monotonic() + wait_s
        while b"\n" not in self._buffer:
            readable, _, _ = select.select([self._out], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                return None
            data = os.read(self._out.fileno(), 1 << 16)
            assert data, self._log.read_text()
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        """End the server and, with it, a worker that still runs."""
        self._process.kill()
        self._process.wait()
        self._in.close()
        self._out.close()


@dataclass
class Promised:
    """What stoker has promised to one run."""

    agent: str
    directory: str | None = None
    rows: set[int] = field(default_factory=set)
    eval_rows: set[int] = field(default_factory=set)
    steps: int = 0
    """So many are durable: a flush has returned, or a checkpoint."""
    checkpoint: int = 0
    best: float = -1.0
    journaled: int = 0
    """The steps that were in the journal when the power was back."""
    n_resumed: int = 0
    ending: list[list[Any]] = field(default_factory=list)
    code: int | None = None

    def note(self, line: list[Any]) -> None:
        """Take one line of the worker in."""
        match line:
            case ["run", directory]:
                self.directory = directory
            case ["resumed", steps, _]:
                assert steps == self.journaled, f"resumed at {steps}, the journal has {self.journaled} steps"
                self.n_resumed += 1
            case ["rows", rows, eval_rows]:
                self.rows.update(rows)
                self.eval_rows.update(eval_rows)
            case ["flushed", steps]:
                self.steps = max(self.steps, steps)
            case ["checkpoint", steps]:
                self.checkpoint = max(self.checkpoint, steps)
                self.steps = max(self.steps, steps)
            case ["best", value]:
                self.best = max(self.best, value)
            case ["failed", *_] | ["refused", *_] | ["finished", *_] | ["crashed", *_]:
                self.ending.append(line)
            case ["ended", code]:
                self.code = code
            case _:
                raise AssertionError(line)


def listen(server: Server, promised: Promised, wait_s: float, until: str = "", n: int = 1) -> None:
    """Take in what is said for some time, or until the n-th word of a kind, or the worker's end."""
    deadline = time.monotonic() + wait_s
    while promised.code is None and (left_s := deadline - time.monotonic()) > 0.0:
        line = server.hear(left_s)
        if line is not None:
            promised.note(line)
            n -= line[0] == until
            if n == 0:
                return


def cut(server: Server, disk: Disk, promised: Promised, rng: random.Random, number: int) -> str:
    """Let a worker train, and cut the power below it; how it was done.

    Most workers save no checkpoint: what they learn is in the journal alone.
    """
    promised.ending, promised.code = [], None
    n_resumed = promised.n_resumed
    moment = rng.choice(["starting", "rows", "rows", "checkpoint", "best", "any time", "any time"])
    pid = server.start(
        root=str(disk.place), directory=promised.directory, agent=promised.agent, serial=number * 1_000_000,
        max_steps=None, saves=moment == "checkpoint",
    )  # fmt: skip
    if moment == "starting":
        listen(server, promised, rng.uniform(0.0, 0.15))
    else:
        listen(server, promised, PATIENCE_S, "resumed")
    if rng.random() < 0.3:
        listen(server, promised, rng.uniform(0.0, 0.3))
        disk.sync()
    if moment == "any time":
        listen(server, promised, rng.uniform(0.0, 0.6))
    elif moment != "starting":
        listen(server, promised, PATIENCE_S, moment, rng.randint(1, 6))
    assert promised.code is None, f"it ended by itself: {promised.ending}"
    disk.cut(rng.choice([LOG_FLUSH, NO_LOG_FLUSH]))
    if kill := rng.random() < 0.7:
        with suppress(ProcessLookupError):  # it may have found out by now
            os.kill(pid, signal.SIGKILL)
    listen(server, promised, PATIENCE_S)
    if promised.code is None:
        os.kill(pid, signal.SIGKILL)
        raise AssertionError("the worker did not notice that its disk is gone")
    if not kill:
        assert promised.ending, "no error was raised"
        expected = ("failed", "refused") if promised.n_resumed == n_resumed else ("failed",)
        assert promised.ending[0][0] in expected, promised.ending[0][1]
    disk.recover()
    return "killed" if kill else "told by a typed error"


def check(promised: Promised) -> None:
    """All that was promised is there and whole."""
    if promised.directory is None:
        return
    directory = Path(promised.directory)

    async def read() -> tuple[TrainingRun, list[tuple[Columns, Columns, set[int]]]]:
        run = await TrainingRun.open(directory)
        train, evals = await run.read_train_episodes(), await run.read_eval_episodes()
        every_train = await run.read_train_episodes(all_attempts=True)
        every_eval = await run.read_eval_episodes(all_attempts=True)
        return run, [(train, every_train, promised.rows), (evals, every_eval, promised.eval_rows)]

    run, found = anyio.run(read)
    for counting, everything, confirmed in found:
        serials = [int(serial) for serial in everything.get("extras.serial", ())]
        assert len(set(serials)) == len(serials), "a row is there twice"
        serials = [int(serial) for serial in counting.get("extras.serial", ())]
        assert confirmed <= set(serials), f"lost or abandoned: {sorted(confirmed - set(serials))}"
    episodes = found[0][0]["episode"].tolist()
    assert episodes == list(range(1, len(episodes) + 1))
    states = {path.name: load_checkpoint(path) for path in (directory / "checkpoints").glob("*.pt")}
    steps = {state["session"]["total_steps"] for name, state in states.items() if name.startswith("step_")}
    assert max(steps, default=0) >= promised.checkpoint
    if promised.best >= 0.0:
        assert states["best.pt"]["best"]["value"] >= promised.best
    assert run.attempt >= promised.n_resumed
    damaged = [finding for finding in verify_run(run) if finding.kind == "damaged"]
    assert not damaged, damaged
    _, promised.journaled = run.journal.end()
    assert promised.journaled >= promised.steps, f"{promised.steps - promised.journaled} steps are lost"


def finish(server: Server, disk: Disk, promised: Promised, number: int) -> None:
    """Resume to an end in peace; the history is one, and learning it again gives the same weights."""
    assert promised.directory is not None
    promised.ending, promised.code = [], None
    max_steps = promised.journaled + 500
    server.start(
        root=str(disk.place), directory=promised.directory, agent=promised.agent, serial=number * 1_000_000,
        max_steps=max_steps, saves=False,
    )  # fmt: skip
    listen(server, promised, PATIENCE_S)
    assert promised.code == 0, promised.ending
    [[ending, total_steps, total_episodes]] = promised.ending
    assert ending == "finished"
    assert total_steps == max_steps
    check(promised)
    run = anyio.run(TrainingRun.open, promised.directory)
    assert anyio.run(run.read_train_episodes)["episode"].tolist() == list(range(1, total_episodes + 1))
    train_again(Path(promised.directory), make_agent(promised.agent))
    assert not [path.name for path in Path(promised.directory).rglob(".*.tmp")], "leftovers are cleared away"


def campaign(kind: str, n_cuts: int, seed: int, directory: Path, per_run: int = 10) -> str:
    """Cut the power so often, in chains on one run each; a summary."""
    rng = random.Random(seed)
    n_rows = n_resumed = n_steps = 0
    hows: Counter[str] = Counter()
    log = directory / "server.txt"
    with mounted(kind, directory) as disk, closing(Server(log)) as server:  # so that no worker holds the disk
        for first in range(0, n_cuts, per_run):
            promised = Promised(agent=AGENTS[first // per_run % len(AGENTS)])
            last = min(first + per_run, n_cuts)
            for number in range(first, last):
                hows[cut(server, disk, promised, rng, number)] += 1
                check(promised)
            if promised.directory is not None:
                finish(server, disk, promised, last)
                shutil.rmtree(promised.directory)
            n_rows += len(promised.rows) + len(promised.eval_rows)
            n_resumed += promised.n_resumed
            n_steps += promised.journaled
    ends = ", ".join(f"{n} {how}" for how, n in sorted(hows.items()))
    return (
        f"{n_cuts} power cuts on {kind} ({ends}): 0 of {n_rows} confirmed rows lost, 0 torn, 0 doubles, "
        f"{n_resumed} times started or resumed, {n_steps} steps learned again to the same weights"
    )


@pytest.mark.parametrize("kind", ["ext4"])
def test_four_power_cuts(kind: str, tmp_path: Path) -> None:
    print(f"\n{campaign(kind, 4, 1, tmp_path, per_run=2)}")


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_hundreds_of_power_cuts(kind: str, tmp_path: Path) -> None:
    print(f"\n{campaign(kind, CUTS, 0, tmp_path)}")
