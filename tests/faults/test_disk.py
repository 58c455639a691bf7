"""A disk that fills up in the middle of training: the error is typed, and with room again the run goes on.

STOKER_FAULTS_FULL_DISKS sets how often each file system is filled.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from breaking import Breaker, amount, check, mounted, no_mounts
from gymnasium.spaces import Box
from worker import Order

from stoker.data import DatasetInfo, Episode, describe, open_dataset, write_dataset
from stoker.errors import WriteFailed
from stoker.types import EpisodeStatus

pytestmark = pytest.mark.skipif(bool(no_mounts()), reason=no_mounts())

MEGABYTES = {"ext4": 24, "xfs": 300, "tmpfs": 24}


def fill(path: Path, room: int) -> None:
    """Take up what is free but for ``room`` bytes."""
    block = bytes(1 << 12)
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(block)
        except OSError:
            pass
        file.truncate(max(0, file.tell() - room))


def fill_up(directory: Path, kind: str, n_times: int, seed: int) -> str:
    """Let workers run against a full disk, each time with another rest of it; make room and go on."""
    rng = random.Random(seed)
    confirmed = 0
    told: dict[str, int] = {}
    with mounted(kind, MEGABYTES[kind], directory) as place, Breaker(directory) as breaker:
        for k in range(n_times):
            root = place / f"runs_{k}"
            # By turns the rows fill the disk, and the checkpoints of either agent.
            saving = {"save_every": 1, "checkpoint_freq": 200} if k % 3 else {"checkpoint_freq": 0}
            order = Order(root=str(root), agent=("fake", "dqn")[k % 2], seed=seed + k, **saving)
            first = breaker.start(order)
            first.listen_until(lambda said: said.flushed)
            fill(place / "ballast", 1 << rng.randrange(12, 19))
            assert first.end(60) == 1, f"the disk is full, and it ended well\n{first.log()}"
            assert first.said.error in ("SessionFailed", "WriteFailed"), first.said
            assert "No space left on device" in first.said.text, first.said.text
            assert "\n" not in first.said.text
            path = first.said.text.partition("cannot write ")[2].partition(":")[0]
            told[Path(path).suffix] = told.get(Path(path).suffix, 0) + 1
            found = check(root, [first.said])
            (place / "ballast").unlink()
            second = breaker.start(msgspec.structs.replace(order, cycles=3))
            assert second.end(60) == 0, second.log()
            assert second.said.from_steps == found.steps
            check(root, [first.said, second.said])
            confirmed += sum(first.said.episodes) + first.said.evals
    kinds = ", ".join(f"{number} at a {suffix[1:]} file" for suffix, number in sorted(told.items()))
    return (
        f"{n_times} times a full {kind}: {n_times} typed errors ({kinds}), "
        f"0 of {confirmed} confirmed rows lost, 0 torn files, {n_times} resumed"
    )


@pytest.mark.parametrize("kind", ["minari", "parquet", "npz"])
def test_a_data_set_is_not_written_to_a_full_disk(
    tmp_path: Path, kind: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    rng, n = np.random.default_rng(0), 100
    episode = Episode(
        observations=rng.standard_normal((n + 1, 40)),
        actions=rng.standard_normal((n, 1)),
        rewards=rng.standard_normal(n),
        status=EpisodeStatus.TRUNCATED,
        seed=1,
    )
    box = Box(-np.inf, np.inf, (40,), np.float64), Box(-np.inf, np.inf, (1,), np.float64)
    info = DatasetInfo(source="made", format="npz", observation_space=box[0], action_space=box[1])
    with mounted("tmpfs", 1, tmp_path) as place:
        write_dataset([episode] * 2, info, place / f"small.{kind}", kind)
        whole = write_dataset([episode] * 10, info, tmp_path / f"whole.{kind}", kind).bytes
        for room in (0, 1 << 12, whole // 2, whole - 4096):
            fill(place / "ballast", room)
            for episodes in ([episode] * 10, open_dataset(tmp_path / f"whole.{kind}").episodes()):
                with pytest.raises(
                    WriteFailed, match=r"cannot write \S+/new[.]\w+: .*No space left on device; free"
                ):
                    write_dataset(episodes, info, place / f"new.{kind}", kind)
                assert sorted(each.name for each in place.iterdir()) == ["ballast", f"small.{kind}"]
            assert describe(open_dataset(place / f"small.{kind}")).n_steps == 2 * n
            (place / "ballast").unlink()
        write_dataset([episode] * 2, info, place / f"new.{kind}", kind)
    assert capfd.readouterr() == ("", ""), "the libraries of formats report by themselves"


@pytest.mark.timeout(300)  # many attempts, each a process
@pytest.mark.parametrize("kind", ["tmpfs"])
def test_a_full_disk(tmp_path: Path, kind: str) -> None:
    print("\n" + fill_up(tmp_path, kind, 2, seed=0))


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs"])
def test_full_disks(tmp_path: Path, kind: str) -> None:
    print("\n" + fill_up(tmp_path, kind, amount("FULL_DISKS", 50), seed=1))
