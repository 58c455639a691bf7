"""A learner that was thought dead comes back: real processes on a file system without locks, stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from operator import methodcaller
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

import launching
from stoker.errors import RunFenced, RunLocked
from stoker.journal import segment_name
from stoker.runs import RunLock
from stoker.runs.holders import Holder, boot_id
from stoker.runs.lease import Lease, RunLease, newest_lease
from stoker.runs.locking import LOCK, holder_of
from stoker.writer import files
from stoker.writer.fencing import check_fence

PROGRAM = """
import errno, fcntl, os, signal, sys

def flock(descriptor, kind):
    raise OSError(errno.ENOLCK, "this file system has no locks")

fcntl.flock = flock
from stoker.cli.main import main
from stoker.runs import lease
from stoker.writer import fencing, files, logs

lease.LEASE_S = 2.0
file, function = sys.argv.pop(1), sys.argv.pop(1)
n_left = 3

def check_fence(path):
    global n_left
    fencing.check_fence(path)
    if file in path.name and sys._getframe(1).f_code.co_name == function:
        n_left -= 1
        if not n_left:
            os.kill(os.getpid(), signal.SIGSTOP)  # it may write, and stops before it does

files.check_fence = logs.check_fence = check_fence
sys.exit(main(sys.argv[1:]))
"""
TRAIN = (
    *("train", "CartPole-v1", "-n", "1500", "--seed", "1", "--checkpoint-freq", "150", "--num-envs", "2"),
    *("--eval-freq", "0", "--no-progress"),
)
NOWHERE = "-", "-"
CHECKPOINT = "step_", "put_in_place"
ROWS = "train_episodes", "write"
EVENTS = ".journal", "write"
CONFIRMATION = ".journal", "sync"
"""Behind the check, and before the rename of a checkpoint; before a write; before somebody is told of it."""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a command that stops itself at a place; what still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(where: tuple[str, str], *words: str) -> subprocess.Popen[str]:
        program: Any = launching.Popen(
            [sys.executable, "-c", PROGRAM, *where, *words],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(program)
        return program

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def until_stopped(process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    program = psutil.Process(process.pid)
    while not program.is_running() or program.status() != psutil.STATUS_STOPPED:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=90)
    return process.returncode, errors


def content_of(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "windows",
    [
        pytest.param([ROWS], id="rows"),
        pytest.param([CHECKPOINT, ROWS, EVENTS, CONFIRMATION], id="each in turn", marks=pytest.mark.faults),
    ],
)
def test_learners_that_stop_between_their_check_and_their_write_change_nothing_when_they_come_back(
    start: Start, tmp_path: Path, windows: list[tuple[str, str]]
) -> None:
    old: list[subprocess.Popen[str]] = []
    words: tuple[str, ...] = TRAIN
    for window in windows:
        old.append(start(window, *words))
        until_stopped(old[-1])
        [run] = tmp_path.glob("runs/CartPole-v1/v1/*")
        words = ("resume", str(run), "--no-progress")
    code, errors = ended(start(NOWHERE, *words))
    assert code == 0, errors
    assert f"is held by process {old[-1].pid} on" in errors
    before = content_of(run)
    for process in old:
        psutil.Process(process.pid).resume()
    for process in old:
        code, errors = ended(process)
        assert code == 1
        assert "was taken over by process" in errors
    assert content_of(run) == before
    assert ended(start(NOWHERE, "verify", str(run))) == (0, "")
    assert ended(start(NOWHERE, "replay", str(run), "--verify"))[0] == 0


def test_one_that_lives_is_not_replaced_and_one_that_ended_is_not_waited_for(
    start: Start, tmp_path: Path
) -> None:
    living = start(ROWS, *TRAIN)
    until_stopped(living)
    [run] = tmp_path.glob("runs/CartPole-v1/v1/*")
    challenger = start(NOWHERE, "resume", str(run))
    [lease] = run.glob(".lease.*")
    raw = lease.read_bytes()
    held = msgspec.json.decode(raw, type=Lease)
    while challenger.poll() is None:  # as the living one does, which is stopped for this
        held = msgspec.structs.replace(held, renewals=held.renewals + 1)
        lease.write_bytes(msgspec.json.encode(held))
        time.sleep(0.05)
    code, errors = ended(challenger)
    assert code == 1
    assert f"is being written by process {living.pid} on" in errors
    lease.write_bytes(raw)
    psutil.Process(living.pid).resume()
    assert ended(living)[0] == 0
    newest = newest_lease(run)
    assert newest is not None
    assert newest[0].is_released
    code, errors = ended(start(NOWHERE, "resume", str(run), "-n", "1600", "--no-progress"))
    assert code == 0
    assert "is held by" not in errors


def test_a_holder_on_another_machine_is_shown_while_it_renews(tmp_path: Path) -> None:
    lock = RunLock.acquire(tmp_path)
    [path] = tmp_path.glob(".lease.*")
    held = msgspec.json.decode(path.read_bytes(), type=Lease)
    lock.release()
    assert holder_of(tmp_path) is None
    path.write_bytes(msgspec.json.encode(held))  # under this kernel, where the lock says that it is dead
    assert holder_of(tmp_path) is None
    elsewhere = msgspec.structs.replace(held, boot="another", lease_s=0.5)
    path.write_bytes(msgspec.json.encode(elsewhere))
    assert holder_of(tmp_path) == held.holder
    lock = RunLock.acquire(tmp_path)  # half a second later
    assert [path.name for path in tmp_path.glob(".lease.*")] == [".lease.2"]
    with pytest.raises(RunLocked):
        RunLock.acquire(tmp_path)
    lock.release()


def left_by_another_machine(directory: Path, **changes: Any) -> Lease:
    """Put a lease there that its holder did not give back."""
    lock = RunLock.acquire(directory)
    [path] = directory.glob(".lease.*")
    held = msgspec.json.decode(path.read_bytes(), type=Lease)
    lock.release()
    held = msgspec.structs.replace(held, **{"boot": "another", "lease_s": 0.3, **changes})
    path.write_bytes(msgspec.json.encode(held))
    return held


def test_what_a_holder_that_was_replaced_appends_goes_nowhere(tmp_path: Path) -> None:
    rows, segment = tmp_path / "rows.jsonl", tmp_path / "journal" / segment_name(1, 0)
    segment.parent.mkdir()
    for path in (rows, segment):
        path.write_bytes(b"confirmed")
    left_by_another_machine(tmp_path)
    with rows.open("ab") as old_rows, segment.open("ab") as old_segment:
        lock = RunLock.acquire(tmp_path)
        old_rows.write(b"late")
        old_segment.write(b"late")
    lock.release()
    assert [path.read_bytes() for path in (rows, segment)] == [b"confirmed"] * 2


def test_where_there_are_no_locks_a_holder_on_the_same_machine_is_watched(tmp_path: Path) -> None:
    held = left_by_another_machine(tmp_path, boot=boot_id(), lease_s=10.0)
    over = threading.Event()

    def renew() -> None:
        renewals = 0
        while not over.wait(0.02):
            renewals += 1
            renewed = msgspec.json.encode(msgspec.structs.replace(held, renewals=renewals))
            files.write_atomically(tmp_path / ".lease.1", methodcaller("write", renewed))

    living = threading.Thread(target=renew)
    living.start()
    try:
        with pytest.raises(RunLocked):
            RunLease.take(tmp_path, Holder.here(), has_lock=False)
    finally:
        over.set()
        living.join()


def test_a_process_that_was_killed_before_it_wrote_its_lease_does_not_lock_the_run_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had not removed the lease of its predecessor either, which the lock proves dead."""
    monkeypatch.setattr("stoker.runs.lease.LEASE_S", 0.2)
    left_by_another_machine(tmp_path, boot=boot_id())
    (tmp_path / ".lease.2").touch()
    RunLock.acquire(tmp_path).release()
    assert {path.name for path in tmp_path.glob(".lease.*")} == {".lease.3"}


def test_a_holder_gives_signs_of_life(tmp_path: Path) -> None:
    held = left_by_another_machine(tmp_path)
    lease = RunLease(tmp_path, os.open(tmp_path / ".lease.1", os.O_RDWR), held)
    seen: set[int] = set()
    deadline = time.monotonic() + 5
    while len(seen) < 3:
        assert time.monotonic() < deadline
        newest = newest_lease(tmp_path)
        seen.add(0 if newest is None else newest[0].renewals)
    lease.release()


def test_a_holder_that_has_lost_its_run_leaves_the_next_ones_description(tmp_path: Path) -> None:
    lock = RunLock.acquire(tmp_path)
    (tmp_path / ".lease.2").touch()
    (tmp_path / ".lease.1").unlink()
    with pytest.raises(RunFenced):
        check_fence(tmp_path / "metadata.json")
    (tmp_path / LOCK).write_bytes(b"the next holder")
    lock.release()
    assert (tmp_path / LOCK).read_bytes() == b"the next holder"
    assert not (tmp_path / ".lease.1").exists()
