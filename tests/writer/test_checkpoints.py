"""Checkpoints: safe files, a checksum over every byte, typed errors, nothing torn under a final name."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, strategies as st

import launching
from obstacles import few_files_left
from stoker.errors import CheckpointCorrupt, CheckpointNotFound, RunBroken, WriteFailed
from stoker.writer import files, load_checkpoint, publish_checkpoint, stage, verify_checkpoint


def checkpoint(n: int = 1000) -> dict[str, Any]:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(n))])
    optimizer.param_groups[0]["params"][0].sum().backward()
    optimizer.step()
    return {
        "weights": torch.arange(n, dtype=torch.float32),
        "optimizer": optimizer.state_dict(),
        "generator": torch.Generator().manual_seed(3).get_state(),
        "counters": {"steps": 5, "rate": 0.5, "name": "x", "none": None, "flags": [True, (1, 2)]},
    }


def test_what_is_published_loads_with_weights_only(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    publish_checkpoint(stage(checkpoint()), path)
    for state in (torch.load(path, weights_only=True), load_checkpoint(path)):
        assert state["weights"].tolist() == list(range(1000))
        assert state["counters"] == {
            "steps": 5,
            "rate": 0.5,
            "name": "x",
            "none": None,
            "flags": [True, (1, 2)],
        }
        assert torch.equal(state["generator"], torch.Generator().manual_seed(3).get_state())
        assert float(state["optimizer"]["state"][0]["step"]) == 1.0
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pt"]


def test_publishing_replaces_and_a_refusal_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    publish_checkpoint({"k": 1}, path)
    publish_checkpoint({"k": 2}, path)
    assert load_checkpoint(path) == {"k": 2}
    with pytest.raises(WriteFailed, match="missing") as caught:
        publish_checkpoint({"k": 3}, tmp_path / "missing" / "x.pt")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert load_checkpoint(path) == {"k": 2}


def test_two_publishers_of_one_path_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    errors: list[BaseException] = []

    def publish(k: int) -> None:
        try:
            for _ in range(10):
                publish_checkpoint({"k": k, "x": torch.full((5000,), k)}, path)
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(daemon=True, target=publish, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    state = load_checkpoint(path)
    assert bool((state["x"] == state["k"]).all())
    assert [entry.name for entry in tmp_path.iterdir()] == ["latest.pt"]


def test_whoever_reads_meanwhile_finds_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    publish_checkpoint({"k": 0, "x": torch.zeros(500_000)}, path)
    done = threading.Event()
    seen: list[int] = []
    problems: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                state = load_checkpoint(path)
                assert bool((state["x"] == state["k"]).all())
                seen.append(state["k"])
        except BaseException as problem:  # noqa: BLE001 - shown below
            problems.append(problem)

    reader = threading.Thread(daemon=True, target=read)
    reader.start()
    deadline = time.monotonic() + 20
    k = 0
    while len(set(seen)) < 25 and not problems and time.monotonic() < deadline:
        k += 1
        publish_checkpoint({"k": k, "x": torch.full((500_000,), float(k))}, path)
    done.set()
    reader.join()
    assert problems == []
    assert len(set(seen)) >= 25
    assert seen == sorted(seen)


@pytest.mark.parametrize("look", [load_checkpoint, verify_checkpoint])
def test_a_missing_checkpoint_is_a_typed_error(tmp_path: Path, look: Callable[[Path], Any]) -> None:
    with pytest.raises(CheckpointNotFound, match=r"step_5\.pt"):
        look(tmp_path / "step_5.pt")


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x00" * 5000, b"\n" * 10]
)
def test_what_is_no_checkpoint_is_a_typed_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointCorrupt, match=r"x\.pt: not a whole checkpoint"):
        load_checkpoint(path)


@given(st.binary(max_size=40))
@example(b"torn")
def test_garbage_of_any_kind_is_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("garbage") / "x.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointCorrupt):
        load_checkpoint(path)


def test_a_directory_or_another_object_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x.pt").mkdir()
    publish_checkpoint([1, 2], tmp_path / "list.pt")  # type: ignore[arg-type]
    with pytest.raises(CheckpointCorrupt, match="it is not a file"):
        load_checkpoint(tmp_path / "x.pt")
    with pytest.raises(CheckpointCorrupt, match="holds a list, not a dict"):
        load_checkpoint(tmp_path / "list.pt")


@pytest.mark.parametrize("look", [load_checkpoint, verify_checkpoint])
def test_where_no_file_can_be_opened_a_whole_checkpoint_is_not_damaged(
    tmp_path: Path, look: Callable[[Path], Any]
) -> None:
    """A resume sets damaged ones aside."""
    publish_checkpoint({"a": 1}, tmp_path / "x.pt")
    with few_files_left(0), pytest.raises(RunBroken, match=r"x\.pt: cannot be read: Too many open files"):
        look(tmp_path / "x.pt")


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path

import torch
from stoker.writer import load_checkpoint, publish_checkpoint

path = Path(sys.argv[1])
publish_checkpoint({"a": torch.zeros(12_000_000)}, path)
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 20_000_000, resource.RLIM_INFINITY))
try:
    load_checkpoint(path)
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only there a process can be kept from memory")
def test_where_memory_is_short_a_whole_checkpoint_is_not_damaged(tmp_path: Path) -> None:
    """In a process of its own: what other tests have left would make room."""
    path = tmp_path / "x.pt"
    words = [sys.executable, "-c", SHORT_OF_MEMORY, str(path)]
    done = launching.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}: ")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "it-ran"),))

    publish_checkpoint({"agent": Evil()}, tmp_path / "evil.pt")  # its checksum is right
    with pytest.raises(CheckpointCorrupt, match=r"evil\.pt.*Unpickl"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "it-ran").exists()


def test_what_torch_alone_has_written_is_refused_since_nothing_vouches_for_it(tmp_path: Path) -> None:
    torch.save({"k": 1}, tmp_path / "plain.pt")
    for look in (load_checkpoint, verify_checkpoint):
        with pytest.raises(CheckpointCorrupt, match="does not end with a checksum"):
            look(tmp_path / "plain.pt")


def test_the_file_is_a_zip_with_the_checksum_as_its_comment(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    publish_checkpoint(stage(checkpoint()), path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        mark, kind, digest = archive.comment.split()
    assert (mark, kind) == (b"stoker", b"sha256")
    assert hashlib.sha256(path.read_bytes()[:-64]).hexdigest().encode() == digest
    verify_checkpoint(path)
    assert torch.load(path, weights_only=True, mmap=True)["counters"]["steps"] == 5


@pytest.mark.parametrize("sizes", [[1], [0], [3, 0, 70_000], [2_500_000], [1] * 50])
def test_states_of_all_sizes_come_back_bit_for_bit(tmp_path: Path, sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(len(sizes))
    state = {f"w{i}": torch.randn(size, generator=generator) for i, size in enumerate(sizes)}
    publish_checkpoint(state, tmp_path / "x.pt")
    verify_checkpoint(tmp_path / "x.pt")
    loaded = load_checkpoint(tmp_path / "x.pt")
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def refused(path: Path) -> bool:
    """Whether loading and verifying both say that the file is damaged."""
    answers: list[bool] = []
    for look in (load_checkpoint, verify_checkpoint):
        try:
            look(path)
        except CheckpointCorrupt:
            answers.append(True)
        else:
            answers.append(False)
    assert answers[0] is answers[1]
    return answers[0]


def test_truncated_or_grown_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    publish_checkpoint(stage(checkpoint()), path)
    whole = path.read_bytes()
    rng = random.Random(0)
    for size in [0, 1, 10, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(25))]:
        path.write_bytes(whole[:size])
        assert refused(path), size
        path.write_bytes(whole[:size] + b"\0" * (len(whole) - size))  # as after a power cut
        assert refused(path), size
    for more in (b"\0", b"x" * 64, whole):
        path.write_bytes(whole + more)
        assert refused(path)
    path.write_bytes(whole)
    assert not refused(path)


def test_every_single_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    publish_checkpoint({"k": 1, "w": torch.ones(3)}, path)
    whole = path.read_bytes()
    rng = random.Random(1)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointCorrupt):
            verify_checkpoint(path)
        if at % 16 == 0:
            assert refused(path), at


PUBLISHER = """
import os, sys
from pathlib import Path
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from stoker.writer import files, publish_checkpoint
directory = Path(sys.argv[1])
torch.set_num_threads(1)
for line in sys.stdin:
    if pid := os.fork():  # one import of torch for all kills
        os.waitpid(pid, 0)
        print("killed", flush=True)
        continue
    k = int(line)
    while True:
        k += 1
        publish_checkpoint({"k": k, "x": torch.full((500_000,), k)}, directory / f"step_{k}.pt")
        files.link_atomically(directory / f"step_{k}.pt", directory / "latest.pt")
        files.remove_all([directory / f"step_{k - 3}.pt"])
        print(os.getpid(), flush=True)
"""


def test_a_killed_publisher_leaves_nothing_torn_under_a_final_name(tmp_path: Path) -> None:
    rng = random.Random(2)
    k = 0
    with launching.Popen(
        [sys.executable, "-c", PUBLISHER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as publisher:
        assert publisher.stdin is not None
        assert publisher.stdout is not None
        for _ in range(12):
            publisher.stdin.write(f"{k}\n")
            publisher.stdin.flush()
            pid = int(publisher.stdout.readline())  # it has published
            time.sleep(rng.uniform(0.0, 0.03))  # a random moment; nothing is waited for
            os.kill(pid, signal.SIGKILL)
            while publisher.stdout.readline() != "killed\n":
                pass
            for path in tmp_path.glob("*.pt"):
                state = load_checkpoint(path)
                assert bool((state["x"] == state["k"]).all()), path
                k = max(k, state["k"])
        publisher.stdin.close()
    assert k >= 12
    assert any(tmp_path.glob(".*.tmp")), "some were killed in the middle"
    files.remove_leftovers(tmp_path)
    assert not any(tmp_path.glob(".*.tmp"))


def test_a_full_disk_is_told_as_such_and_not_in_torchs_words(tmp_path: Path) -> None:
    """A real small file system, where root may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        publish_checkpoint({"small": torch.zeros(10)}, disk / "best.pt")
        with pytest.raises(WriteFailed, match=r"best\.pt: No space left on device") as caught:
            publish_checkpoint({"large": torch.zeros(100_000)}, disk / "best.pt")
        assert isinstance(caught.value.__cause__, OSError)
        assert load_checkpoint(disk / "best.pt")["small"].shape == (10,), "what was there still is"
        assert [path.name for path in disk.iterdir()] == ["best.pt"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
