"""One writer per run: real processes, killed for real, and what their children keep."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from anyio import to_thread

import launching
from stoker import EpisodeRecord, EpisodeStatus, TrainingRun, WriteFailed, list_runs
from stoker.errors import RunLocked
from stoker.runs import Holder, RunLock
from stoker.runs.locking import holder_of

pytestmark = pytest.mark.anyio
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

HOLD = """
lock = RunLock.acquire(directory)
print("held", flush=True)
sys.stdin.read()
"""
FORK = """
lock = RunLock.acquire(directory)
child = os.fork()
if child == 0:
    os.close(1)
    signal.pause()
print(child, flush=True)
sys.stdin.read()
"""
RACE = """
print("ready", flush=True)
sys.stdin.readline()
try:
    lock = RunLock.acquire(directory)
except RunLocked as error:
    print("refused", error.holder, flush=True)
else:
    print("won", os.getpid(), flush=True)
sys.stdin.readline()
"""
LEAVE = """
lock = RunLock.acquire(directory)
if os.fork() == 0:
    sys.exit()  # with all that is called at an interpreter's end
os.wait()
print("held", flush=True)
sys.stdin.read()
"""
CHILD = """
lock = RunLock.acquire(directory)
if os.fork() == 0:
    try:
        RunLock.acquire(directory)
    except RunLocked:
        print("refused", lock.is_held, flush=True)
    os._exit(0)
os.wait()
print(lock.is_held, flush=True)
"""
DETACHED = """
import threading
lock = RunLock.acquire(directory)
os.closerange(3, 256)  # as a program does that becomes a daemon
if os.fork() == 0:
    thread = threading.Thread(target=RunLock.acquire, args=[directory], daemon=True)
    thread.start()
    thread.join(20)
    print("waits" if thread.is_alive() else "returned", flush=True)
    os._exit(0)
os.wait()
os._exit(0)
"""
GLANCE = """
from stoker.runs.locking import holder_of
RunLock.acquire(directory).release()

def fork_before_it_closes(frame, event, called):
    if event == "c_call" and called is os.close and frame.f_code is holder_of.__code__:
        sys.setprofile(None)
        if os.fork() == 0:
            os.close(writing)
            os.read(reading, 1)  # until its parent ends, in any way
            os._exit(0)

reading, writing = os.pipe()
sys.setprofile(fork_before_it_closes)
print(holder_of(directory), flush=True)
try:
    print(RunLock.acquire(directory).is_held, flush=True)
except RunLocked as error:
    print(error.holder, flush=True)
os.write(writing, b".")
os.wait()
os._exit(0)
"""
SESSION = """
import time
import anyio
from stoker import TrainingRun

async def create():
    return await TrainingRun.create("x", root=directory)

run = anyio.run(create)
run.begin_session()
reading, writing = os.pipe()
if os.fork() == 0:
    os.close(writing)
    try:
        run.begin_session()
    except RunLocked as error:
        print("another session" in str(error), flush=True)
    os.read(reading, 1)  # until the parent is going: its files close a moment before it is gone
    for _ in range(500):
        try:
            run.begin_session()
            break
        except RunLocked:
            time.sleep(0.01)
    run.end_session(True)
    run.begin_session()
    print(run.is_acquired, flush=True)
    os._exit(0)
os.close(reading)
sys.stdin.read()
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process with this code on ``tmp_path``; what still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []
    imports = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom stoker.errors import RunLocked\n"
        f"from stoker.runs.locking import RunLock\ndirectory = Path({str(tmp_path)!r})\n"
    )

    def start(code: str, popen: Callable[..., Any] = launching.Popen) -> subprocess.Popen[str]:
        processes.append(
            popen(
                [sys.executable, "-c", imports + code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_process_is_refused_with_the_holder_named_and_free_when_it_is_killed(
    start: Start, tmp_path: Path
) -> None:
    other = start(HOLD)
    assert said(other) == "held"
    with pytest.raises(RunLocked) as caught:
        RunLock.acquire(tmp_path)
    assert re.search(rf"process {other.pid} on \S+, since \d{{4}}-\d\d-\d\d", str(caught.value))
    assert str(tmp_path) in str(caught.value)
    assert sys.executable in str(caught.value)
    holder = holder_of(tmp_path)
    assert isinstance(holder, Holder)
    assert holder.pid == other.pid
    other.kill()
    other.wait()
    assert holder_of(tmp_path) is None
    lock = RunLock.acquire(tmp_path)
    assert lock.is_held
    lock.release()


def test_a_holder_that_exits_without_releasing_frees_the_lock(start: Start, tmp_path: Path) -> None:
    other = start(HOLD)
    said(other)
    other.communicate("")
    RunLock.acquire(tmp_path).release()


def test_a_killed_holders_forked_child_does_not_keep_it(start: Start, tmp_path: Path) -> None:
    other = start(FORK)
    child = int(said(other))
    try:
        with pytest.raises(RunLocked, match=f"process {other.pid} "):
            RunLock.acquire(tmp_path)
        other.kill()
        other.wait()
        assert psutil.pid_exists(child)
        assert holder_of(tmp_path) is None
        lock = RunLock.acquire(tmp_path)
        with pytest.raises(RunLocked, match=f"process {os.getpid()} .*this very process"):
            RunLock.acquire(tmp_path)
        lock.release()
        assert [path.name for path in tmp_path.glob("*.tmp")] == []
    finally:
        os.kill(child, signal.SIGKILL)


@needs_proc
def test_a_killed_holder_that_is_not_reaped_yet_frees_the_lock(start: Start, tmp_path: Path) -> None:
    other = start(FORK, subprocess.Popen)
    child = int(said(other))
    try:
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(other.pid).status() == psutil.STATUS_ZOMBIE
        RunLock.acquire(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_ends_does_not_give_up_its_parents_lock(start: Start, tmp_path: Path) -> None:
    other = start(LEAVE)
    assert said(other) == "held"
    with pytest.raises(RunLocked, match=f"process {other.pid} "):
        RunLock.acquire(tmp_path)


def test_a_forked_child_does_not_hold_what_its_parent_holds(start: Start) -> None:
    other = start(CHILD)
    assert said(other) == "refused False"
    assert said(other) == "True"


def test_a_forked_child_can_lock_a_run_after_its_parent_closed_all_descriptors(start: Start) -> None:
    assert said(start(DETACHED)) == "returned"


def test_asking_for_the_holder_leaves_no_lock_in_a_child_forked_meanwhile(start: Start) -> None:
    other = start(GLANCE)
    assert (said(other), said(other)) == ("None", "True")


@pytest.mark.parametrize("left", ["nothing", "a dead holder", "a dead holder's child"])
def test_of_eight_processes_exactly_one_wins(start: Start, tmp_path: Path, left: str) -> None:
    child = None
    if left != "nothing":
        holder = start(HOLD if left == "a dead holder" else FORK)
        words = said(holder)
        child = int(words) if words.isdecimal() else None
        holder.kill()
        holder.wait()
    try:
        racers = [start(RACE) for _ in range(8)]
        assert {said(racer) for racer in racers} == {"ready"}
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        results = [said(racer) for racer in racers]
        (winner,) = [result.split()[1] for result in results if result.startswith("won")]
        refusals = [result for result in results if result.startswith("refused")]
        assert len(refusals) == 7
        assert all(f"process {winner} " in refusal for refusal in refusals)
    finally:
        if child is not None:
            os.kill(child, signal.SIGKILL)


def test_a_holder_elsewhere_is_named_and_one_that_is_gone_is_not(start: Start, tmp_path: Path) -> None:
    other = start(HOLD)
    said(other)
    path = tmp_path / ".lock"
    holder = msgspec.json.decode(path.read_bytes(), type=Holder)
    elsewhere = msgspec.structs.replace(holder, host="another", pid=2**22 + 1)
    path.write_bytes(msgspec.json.encode(elsewhere))
    with pytest.raises(RunLocked, match=f"process {elsewhere.pid} on another"):
        RunLock.acquire(tmp_path)
    assert holder_of(tmp_path) == elsewhere
    other.kill()
    other.wait()
    for left in (elsewhere, msgspec.structs.replace(holder, pid=os.getpid())):
        path.write_bytes(msgspec.json.encode(left))
        assert holder_of(tmp_path) is None, "whatever the file says, the lock is free"
    RunLock.acquire(tmp_path).release()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 50, b'{"pid":1}'])
def test_a_holder_that_says_nothing_still_holds_and_a_file_that_says_nothing_does_not(
    start: Start, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / ".lock").write_bytes(content)
    assert holder_of(tmp_path) is None
    RunLock.acquire(tmp_path).release()
    other = start(HOLD)
    said(other)
    (tmp_path / ".lock").write_bytes(content)
    assert holder_of(tmp_path) == "an unknown process"
    with pytest.raises(RunLocked, match="an unknown process"):
        RunLock.acquire(tmp_path)


def test_a_lock_that_is_collected_is_released(tmp_path: Path) -> None:
    lock = RunLock.acquire(tmp_path)
    with pytest.raises(RunLocked, match="this very process"):
        RunLock.acquire(tmp_path)
    del lock
    gc.collect()
    again = RunLock.acquire(tmp_path)
    again.release()
    again.release()
    assert not again.is_held
    assert holder_of(tmp_path) is None


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match=r"missing/\.lock: No such file"):
        RunLock.acquire(tmp_path / "missing")
    assert holder_of(tmp_path / "missing") is None


@pytest.mark.parametrize("room", [0, 10])
def test_on_a_full_disk_it_can_be_taken_though_the_holder_is_not_written_down(
    start: Start, tmp_path: Path, room: int
) -> None:
    other = start(
        "import resource\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))\n" + HOLD
    )
    assert said(other) == "held"
    assert (tmp_path / ".lock").read_bytes() == b""
    with pytest.raises(RunLocked, match="an unknown process"):
        RunLock.acquire(tmp_path)


def test_a_holder_says_who_it_is(tmp_path: Path) -> None:
    lock = RunLock.acquire(tmp_path)
    holder = holder_of(tmp_path)
    assert isinstance(holder, Holder)
    assert (holder.pid, holder.is_this_process, holder.is_running) == (os.getpid(), True, True)
    assert len(holder.command) <= 80
    assert not msgspec.structs.replace(
        holder, command="of the same number in another container"
    ).is_this_process
    lock.release()
    assert not holder.is_this_process


# The run


async def test_a_writer_holds_the_run_until_it_closes(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    assert run.holder() is None
    await run.log_train_episode(EpisodeRecord(1.0, 1, EpisodeStatus.TERMINATED))
    holder = run.holder()
    assert isinstance(holder, Holder)
    assert holder.is_this_process
    other = await TrainingRun.resume(run.directory)
    writes: list[Callable[[], Any]] = [
        lambda: other.log_train_episode(EpisodeRecord(1.0, 1, EpisodeStatus.TERMINATED)),
        lambda: other.log_eval_episode(EpisodeRecord(1.0, 1, EpisodeStatus.TERMINATED), 1),
        lambda: other.update_metadata(1, 1),
        lambda: other.write_config({}),
        lambda: other.prune_checkpoints(1),
        lambda: to_thread.run_sync(other.begin_attempt, 0, 0),
    ]
    before = {path: path.read_bytes() for path in run.directory.rglob("*") if path.is_file()}
    for write in writes:
        with pytest.raises(RunLocked, match="this very process"):
            await write()
    assert {path: path.read_bytes() for path in run.directory.rglob("*") if path.is_file()} == before
    assert other.metadata.total_episodes == 0
    assert (await other.read_train_episodes())["episode"].tolist() == [1], "readers need no lock"
    assert len(await list_runs(tmp_path)) == 1
    await run.aclose()
    assert run.holder() is None
    for write in writes:
        await write()
    await other.aclose()


async def test_metadata_of_another_writer_is_read_and_the_own_count_is_kept(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    await run.log_train_episode(EpisodeRecord(1.0, 7, EpisodeStatus.TERMINATED))
    await run.aclose()
    run.acquire()
    assert (run.metadata.total_steps, run.is_new) == (7, True), "counted, though not written yet"
    run.acquire()
    run.release()
    run.release()
    other = await TrainingRun.resume(run.directory)
    assert other.begin_attempt(40, 4, 400) == 2
    await other.aclose()
    run.acquire()
    assert run.metadata == other.metadata
    assert run.attempt == 2
    assert not run.is_new
    run.release()


async def test_one_session_at_a_time_on_one_object_too(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    await run.log_train_episode(EpisodeRecord(1.0, 1, EpisodeStatus.TERMINATED))
    run.begin_session()
    for _ in range(2):
        with pytest.raises(RunLocked, match=rf"process {os.getpid()} .*another session on this very run"):
            run.begin_session()
        with pytest.raises(RunLocked, match="this very process"):
            (await TrainingRun.open(run.directory)).begin_session()
    await run.log_train_episode(EpisodeRecord(1.0, 1, EpisodeStatus.TERMINATED))
    run.acquire()
    run.release()
    await run.aclose()
    assert run.holder() is not None, "whoever writes beside the session does not unlock it"
    run.end_session(settled=True)
    run.end_session(settled=True)
    assert run.holder() is None
    other = await TrainingRun.open(run.directory)
    other.begin_session()
    with pytest.raises(RunLocked, match="this very process"):
        run.begin_session()
    run.end_session(settled=True)
    assert other.is_acquired
    other.end_session(settled=True)
    run.begin_session()
    run.end_session(settled=True)
    assert run.holder() is None


async def test_a_session_that_was_given_up_leaves_its_run_locked(tmp_path: Path) -> None:
    path = (await TrainingRun.create("x", root=tmp_path)).directory
    run = TrainingRun.find(path)  # not from a thread, which would keep it
    run.begin_session()
    run.end_session(settled=False)
    with pytest.raises(
        RunLocked, match=rf"process {os.getpid()} .*abandoned while one of its threads may still"
    ):
        run.begin_session()
    run.end_session(settled=True)
    run.release()
    await run.aclose()
    del run
    gc.collect()
    with pytest.raises(RunLocked, match="this very process"):
        TrainingRun.find(path).begin_session()


def test_a_forked_child_has_no_part_in_its_parents_session(start: Start) -> None:
    other = start(SESSION)
    assert said(other) == "False"
    other.kill()
    assert said(other) == "True"


async def test_a_run_whose_metadata_cannot_be_read_is_not_left_locked(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    content = run.metadata_path.read_bytes()
    run.metadata_path.write_bytes(b"{")
    with pytest.raises(OSError, match="cannot be read"):
        run.acquire()
    assert run.holder() is None
    run.metadata_path.write_bytes(content)
    run.acquire()
    run.release()
