"""Checkpoints: staged copies, safe files, typed errors, nothing torn under a final name."""

from __future__ import annotations

import enum
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict, namedtuple
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from stoker.errors import CheckpointCorrupt, CheckpointNotFound, InvalidAgentState, WriteFailed
from stoker.writer import files, load_checkpoint, publish_checkpoint, stage


def test_a_staged_state_is_a_copy() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    inner = {"list": [1, [2]], "w": weight}
    state = {"agent": inner, "same": weight}
    staged = stage(state)
    with torch.no_grad():
        weight.fill_(7.0)
    inner["list"][1].append(3)
    inner["more"] = 1
    assert staged["agent"]["list"] == [1, [2]]
    assert "more" not in staged["agent"]
    assert staged["agent"]["w"].tolist() == staged["same"].tolist() == [1.0, 1.0, 1.0]
    assert type(staged["agent"]["w"]) is torch.Tensor
    assert not staged["agent"]["w"].requires_grad


@pytest.mark.parametrize(
    ("view", "n_bytes"),
    [
        (lambda: torch.zeros(1_000_000)[:2], 8),
        (lambda: torch.zeros(1000, 1000)[:, 3], 4000),
        (lambda: torch.ones(1).expand(100), 400),
        (lambda: torch.zeros(10, 20).T, 800),
        (lambda: torch.zeros(1_000_000)[:0], 0),
        (lambda: torch.tensor(3.0), 4),
    ],
)
def test_a_view_does_not_drag_its_storage(view: Any, n_bytes: int) -> None:
    original = view()
    staged = stage(original)
    assert staged.untyped_storage().nbytes() == n_bytes
    assert torch.equal(staged, original)
    assert staged.is_contiguous()


def test_shared_memory_is_not_aliased(tmp_path: Path) -> None:
    shared = torch.zeros(4).share_memory_()
    array = np.zeros(4, np.float32)
    staged = stage({"shared": shared, "numpy": torch.from_numpy(array), "half": shared[:2]})
    shared.fill_(1.0)
    array[:] = 1.0
    assert all(float(tensor.sum()) == 0.0 for tensor in staged.values())
    assert not any(tensor.is_shared() for tensor in staged.values())
    publish_checkpoint(staged, tmp_path / "x.pt")
    assert load_checkpoint(tmp_path / "x.pt")["half"].tolist() == [0.0, 0.0]


Point = namedtuple("Point", "x y")  # noqa: PYI024 - the plain kind is what states hold


def test_containers_become_plain_ones() -> None:
    staged = stage({
        "ordered": OrderedDict(a=1), "proxy": MappingProxyType({"b": 2}), "point": Point(1, 2.5),
        "size": torch.Size([2, 3]), "plain": [None, True, 1, 2.0, "s", b"b"], ("key", 1): "tuple key",
    })  # fmt: skip
    assert staged["ordered"] == {"a": 1}
    assert type(staged["ordered"]) is type(staged["proxy"]) is dict
    assert (type(staged["point"]), staged["point"]) == (tuple, (1, 2.5))
    assert (type(staged["size"]), staged["size"]) == (tuple, (2, 3))
    assert staged["plain"] == [None, True, 1, 2.0, "s", b"b"]
    assert staged["key", 1] == "tuple key"


class Level(enum.IntEnum):
    HIGH = 1


@pytest.mark.parametrize(
    ("leaf", "kind"),
    [
        (np.zeros(2), "numpy.ndarray"),
        (np.float64(0.5), "numpy.float64"),
        (np.int64(1), "numpy.int64"),
        (threading.Lock(), "_thread.lock"),
        ({1, 2}, "builtins.set"),
        (Level.HIGH, "Level"),
        (1j, "builtins.complex"),
        (torch.float32, "torch.dtype"),
        (object(), "builtins.object"),
        (len, "builtin_function"),
    ],
)
def test_what_would_not_load_safely_is_refused_by_its_path(leaf: Any, kind: str) -> None:
    for state, where in [
        ({"optimizer": {"groups": [0, leaf]}}, r"agent\['optimizer'\]\['groups'\]\[1\]"),
        ({"x": (leaf,)}, r"agent\['x'\]\[0\]"),
        (leaf, "agent"),
    ]:
        with pytest.raises(InvalidAgentState, match=rf"^{where} is a .*{kind}"):
            stage(state, "agent")


def test_a_key_that_would_not_load_safely_is_refused() -> None:
    with pytest.raises(InvalidAgentState, match=r"agent \(key\) is a numpy.int64"):
        stage({np.int64(3): 1}, "agent")


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

    threads = [threading.Thread(target=publish, args=(k,)) for k in range(4)]
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

    reader = threading.Thread(target=read)
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


def test_a_missing_checkpoint_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match=r"step_5\.pt"):
        load_checkpoint(tmp_path / "step_5.pt")


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
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointCorrupt, match="Is a directory"):
        load_checkpoint(tmp_path / "x.pt")
    with pytest.raises(CheckpointCorrupt, match="holds a list, not a dict"):
        load_checkpoint(tmp_path / "list.pt")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "it-ran"),))

    torch.save({"agent": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointCorrupt, match=r"evil\.pt"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "it-ran").exists()


def test_truncated_anywhere_it_is_a_typed_error(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    publish_checkpoint(stage(checkpoint()), path)
    whole = path.read_bytes()
    rng = random.Random(0)
    for size in [0, 1, 10, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(25))]:
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointCorrupt):
            load_checkpoint(path)


def test_damaged_anywhere_it_loads_or_is_a_typed_error(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    publish_checkpoint(stage(checkpoint(50)), path)
    whole = path.read_bytes()
    rng = random.Random(1)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 20)):
            damaged[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)
        except CheckpointCorrupt:
            refused += 1
    assert refused > 100


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
        files.remove(directory / f"step_{k - 3}.pt")
        print(os.getpid(), flush=True)
"""


def test_a_killed_publisher_leaves_nothing_torn_under_a_final_name(tmp_path: Path) -> None:
    rng = random.Random(2)
    k = 0
    with subprocess.Popen(
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
