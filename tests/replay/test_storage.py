from __future__ import annotations

import gc
import io
import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from obstacles import files_of_at_most
from stoker.errors import ConfigError
from stoker.replay import PrioritizedReplay, UniformReplay
from stoker.replay.storage import Storage
from stoker.types import EpisodeStatus, Experience

KINDS = [UniformReplay, PrioritizedReplay]
ROW_BYTES = 32  # an action, a reward, a mask, and two observations of two float32
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def transition(number: int) -> Experience:
    observation = np.array([number, -number], np.float32)
    return Experience(observation, number, number / 2, observation + 1, EpisodeStatus.CONTINUING)


def unnamed_mappings() -> set[str]:
    """What this process has mapped that has no name (any more)."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if line.endswith("(deleted)")}


@every_kind
def test_a_mapped_replay_is_the_same_as_one_in_memory(kind: Any, tmp_path: Path) -> None:
    plain, mapped = kind(8, (2,), seed=3), kind(8, (2,), seed=3, memory_map=tmp_path)
    for number in range(30):
        for replay in (plain, mapped):
            replay.add(transition(number))
        for ours, theirs in zip(plain.sample(1), mapped.sample(1), strict=True):
            assert torch.equal(ours, theirs)
    file = io.BytesIO()
    torch.save(mapped.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    for name, value in plain.state_dict().items():
        assert torch.equal(state[name], value) if isinstance(value, torch.Tensor) else state[name] == value
    again = kind(8, (2,), memory_map=os.fspath(tmp_path))
    again.load_state_dict(state)
    for ours, theirs in zip(plain.sample(8), again.sample(8), strict=True):
        assert torch.equal(ours, theirs)


def test_a_nested_replay_may_be_mapped(tmp_path: Path) -> None:
    box = gymnasium.spaces.Box(0, 255, (5, 5), np.uint8)
    replay = UniformReplay.for_spaces(
        gymnasium.spaces.Dict({"image": box}), gymnasium.spaces.Discrete(3), 4, memory_map=tmp_path
    )
    image = np.full((5, 5), 7, np.uint8)
    replay.add(Experience({"image": image}, 1, 0.5, {"image": image + 1}, EpisodeStatus.CONTINUING))
    batch = replay.sample(1)
    assert batch.observations["image"].tolist() == [[[7] * 5] * 5]
    assert batch.next_observations["image"].tolist() == [[[8] * 5] * 5]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks where Linux lists mappings")
def test_the_file_has_no_name_and_goes_with_the_replay(tmp_path: Path) -> None:
    gc.collect()  # so that no file of an earlier test is closed meanwhile
    n_open, before = len(list(Path("/proc/self/fd").iterdir())), unnamed_mappings()
    replay = UniformReplay(10_000, (2,), memory_map=tmp_path)
    replay.add(transition(1))
    assert list(tmp_path.iterdir()) == [], "nothing to be left behind"
    (mapped,) = unnamed_mappings() - before
    assert mapped.startswith(os.fspath(tmp_path))
    rows = replay.state_dict()["actions"]
    del replay
    gc.collect()
    assert rows.tolist() == [1], "a state goes on being readable"
    del rows
    gc.collect()
    assert unnamed_mappings() == before
    assert len(list(Path("/proc/self/fd").iterdir())) == n_open


@every_kind
def test_a_disk_without_room_is_refused_with_what_is_needed_and_what_is_free(
    kind: Any, tmp_path: Path
) -> None:
    capacity = 10**14
    free = r"[\d,]+ are free"
    with pytest.raises(ConfigError, match=f"{tmp_path} is too small: 3,200,000,000,000,000 bytes .* {free}"):
        kind(capacity, (2,), memory_map=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_filled_meanwhile_is_found_out_at_once(tmp_path: Path) -> None:
    """All blocks are reserved before the first transition: there is no room for half of them."""
    free_before = shutil.disk_usage(tmp_path).free
    assert free_before > 2_000 * ROW_BYTES
    with (
        files_of_at_most(1_000 * ROW_BYTES),
        pytest.raises(
            ConfigError, match=r"cannot be used \(File too large\): 64,000 bytes are needed for 2,000"
        ),
    ):
        UniformReplay(2_000, (2,), memory_map=tmp_path)
    with files_of_at_most(1_000 * ROW_BYTES):
        replay = UniformReplay(1_000, (2,), memory_map=tmp_path)
    replay.extend([transition(number) for number in range(1_000)])
    assert len(replay.sample(1_000).actions) == 1_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/map_files").exists(), reason="looks where Linux lists mappings")
def test_all_blocks_are_taken_at_once(tmp_path: Path) -> None:
    """Not a file of holes, whose blocks the disk may not have when they are first written."""
    before = {link.name for link in Path("/proc/self/map_files").iterdir()}
    replay = UniformReplay(40_000, (2,), memory_map=tmp_path)
    new = [link for link in Path("/proc/self/map_files").iterdir() if link.name not in before]
    try:
        taken = [link.stat().st_blocks * 512 for link in new if link.stat().st_size == 40_000 * ROW_BYTES]
    except PermissionError:
        pytest.skip("who looks at the files behind mappings must be root")
    assert taken
    assert min(taken) >= 40_000 * ROW_BYTES
    assert len(replay) == 0


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_what_is_no_directory_is_refused(kind: str, tmp_path: Path) -> None:
    place = tmp_path / kind
    if kind == "file":
        place.write_text("")
    with pytest.raises(ConfigError, match=rf"memory_map {place} is not a directory: .*\(320 bytes"):
        UniformReplay(10, (2,), memory_map=place)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_directory_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match=r"cannot be used \(Permission denied\): 320 bytes"):
        UniformReplay(10, (2,), memory_map=tmp_path)


def test_a_directory_where_files_cannot_be_made_is_refused() -> None:
    place = "/proc/self"
    if not Path(place).is_dir():
        pytest.skip("a place for files that the system makes")
    with pytest.raises(ConfigError, match="memory_map /proc/self (cannot be used|is too small)"):
        UniformReplay(10, (2,), memory_map=place)


def test_a_map_on_a_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="memory_map is for replays on the CPU, and this one is on meta"):
        UniformReplay(10, (2,), device="meta", memory_map=tmp_path)


MIB = 1 << 20
N_FLOATS = 1 << 14  # of an observation, so that a row takes 128 KiB


def test_rows_that_were_staged_for_many_large_transitions_are_not_kept() -> None:
    replay = UniformReplay(64, (N_FLOATS,))
    observation = np.zeros(N_FLOATS, np.float32)
    experience = Experience(observation, 0, 0.0, observation, EpisodeStatus.CONTINUING)
    tracemalloc.start()
    try:
        replay.extend([experience] * 64)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 5 * MIB


def test_a_device_is_loaded_in_pieces() -> None:
    saved, replay = UniformReplay(96, (N_FLOATS,)), UniformReplay(80, (N_FLOATS,))
    rewards = np.arange(90, dtype=np.float32)
    observations = np.repeat(rewards[:, None], N_FLOATS, axis=1)
    saved.extend_columns(observations, np.zeros(90, np.int64), rewards, observations + 1, np.ones(90))
    # as on another device, which here is the CPU too
    storage = Storage(replay._spec, replay._storage._rows, is_host=False)
    replay._storage = storage
    columns = [column.numpy() for column in saved._storage.held(90)]
    tracemalloc.start()
    try:
        storage.put_columns(7, columns)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8 * MIB
    in_order = np.roll(storage.held(80)[2].numpy(), -17)
    assert in_order.tolist() == rewards[10:].tolist()
    for held, number in zip(storage.held(80)[3].numpy(), storage.held(80)[2], strict=True):
        assert (held == float(number) + 1).all()
