"""Episodes come back from files as they went in, to the bit; other packages read those files."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import minari
import msgspec
import numpy as np
import polars as pl
import pytest
from given_episodes import SPACES, episodes, fields, info
from hypothesis import given, strategies as st

from obstacles import files_of_at_most
from stoker.data import open_dataset, write_dataset
from stoker.data.cutting import Cutter, Rows
from stoker.errors import ConfigError, InvalidDataset, WriteFailed
from stoker.nested import difference
from stoker.types import EpisodeStatus

FORMATS = ["npz", "minari", "parquet"]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", SPACES)
def test_episodes_come_back_to_the_bit(tmp_path: Path, name: str, kind: Any) -> None:
    recorded = episodes(name)
    path = tmp_path / "data" / f"all.{kind}"
    seen: list[int] = []
    about = info(name, env_id="Some-v0", ref_max_score=9.5)
    written = write_dataset(iter(recorded), about, path, kind, watch=seen.append)
    assert (written.path, written.n_episodes, written.n_steps, seen) == (path, 3, 14, [14])
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    with open_dataset(path) as dataset:
        for _ in range(2):
            assert difference(fields([*dataset.episodes()]), fields(recorded)) is None
        found = dataset.info
    assert (found.observation_space, found.action_space) == SPACES[name]
    assert (found.env_id, found.n_episodes, found.n_steps, found.ref_max_score) == ("Some-v0", 3, 14, 9.5)
    assert (found.format, found.spaces_are_inferred, found.source) == (kind, False, str(path))
    with pytest.raises(ConfigError, match=r"all.\w+ exists: remove it"):
        write_dataset(recorded, about, path, kind)


def test_minari_reads_what_is_written_in_its_form(tmp_path: Path) -> None:
    for name in SPACES:
        recorded = episodes(name)
        path = tmp_path / name
        about = info(name, env_id="Pendulum-v1", ref_min_score=-1.5, ref_max_score=2.0)
        write_dataset(recorded, about, path, "minari")
        theirs = minari.MinariDataset(path / "data")
        assert (theirs.total_episodes, theirs.total_steps, theirs.id) == (3, 14, f"{name}-v0")
        assert (theirs.observation_space, theirs.action_space) == SPACES[name]
        assert theirs.env_spec is not None
        assert theirs.env_spec.id == "Pendulum-v1"
        assert theirs.storage.metadata["ref_min_score"] == -1.5
        for ours, its in zip(recorded, theirs.iterate_episodes(), strict=True):
            for part in ("observations", "actions", "rewards"):
                assert difference(getattr(ours, part), getattr(its, part)) is None
            ends = [its.terminations[-1], its.truncations[-1]]
            assert ends == [ours.status.is_terminal, ours.status.is_truncated]
            assert its.terminations.sum() + its.truncations.sum() == sum(ends)
            if ours.policy_versions is not None:
                assert difference(its.infos["policy_version"], ours.policy_versions) is None
        seeds = [each.get("seed") for each in theirs.storage.get_episode_metadata(range(3))]
        assert seeds == [each.seed for each in recorded]


@pytest.mark.parametrize("jpeg", [False, True])
def test_what_minari_writes_is_read(tmp_path: Path, jpeg: bool) -> None:
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    for name in ("images", "nested"):
        recorded = [each for each in episodes(name) if each.status.is_done]
        spaces = dict(zip(("observation_space", "action_space"), SPACES[name], strict=True))
        (tmp_path / name).mkdir()
        storage = MinariStorage.new(tmp_path / name / "data", **spaces, jpeg_encoding=jpeg)
        for each in recorded:
            ends = np.zeros((2, len(each)), np.bool_)
            ends[:, -1] = each.status.is_terminal, each.status.is_truncated
            arrays = {"observations": each.observations, "actions": each.actions, "rewards": each.rewards}
            flags = {"terminations": ends[0], "truncations": ends[1], "infos": {"x": np.ones(len(each))}}
            storage.update_episodes([EpisodeBuffer(seed=each.seed, **arrays, **flags)])
        with open_dataset(f"minari:{tmp_path / name}") as dataset:
            found = [*dataset.episodes()]
        expected = [{**each, "actor_id": 0, "policy_versions": None} for each in fields(recorded)]
        theirs = [*storage.get_episodes(range(len(recorded)))]
        for at, each in enumerate(expected):
            each["observations"] = theirs[at]["observations"]  # of JPEG, what its pixels have become
        assert difference(fields(found), expected) is None


def test_parquet_is_plain_for_other_readers(tmp_path: Path) -> None:
    recorded = episodes("pendulum")
    write_dataset(recorded, info("pendulum"), tmp_path / "a.parquet", "parquet")
    frame = pl.read_parquet(tmp_path / "a.parquet")
    assert frame.columns[:5] == ["observations", "next_observations", "actions", "rewards", "terminated"]
    assert frame["episodes"].to_list() == [0] * 5 + [1] + [2] * 8
    rows = np.concatenate([each.observations[:-1] for each in recorded])
    assert difference(frame["observations"].to_numpy(), rows) is None
    frame.select("observations", "actions", "rewards", "terminated", "truncated").write_parquet(
        tmp_path / "b.parquet"
    )
    with open_dataset(tmp_path / "b.parquet") as dataset:
        lengths = [len(each) for each in dataset.episodes()]
    assert (lengths, dataset.n_dropped, dataset.info.spaces_are_inferred) == ([5, 7], 2, True)


def test_an_npz_is_plain_columns(tmp_path: Path) -> None:
    recorded = [each for each in episodes("pendulum") if each.seed is None]
    write_dataset(recorded, info("pendulum"), tmp_path / "a.npz", "npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as columns:
        assert sorted(columns) == [
            *("actions", "episodes", "metadata.json", "next_observations", "observations"),
            *("policy_versions", "rewards", "terminated", "truncated"),
        ]
        assert json.loads(columns["metadata.json"])["actors"] == [3]
        assert columns["next_observations"].shape == (1, 3)


@pytest.mark.parametrize(("name", "kind"), [("a", "npz"), ("a.npz", "parquet")])
def test_a_name_that_would_not_be_read_again_is_refused(tmp_path: Path, name: str, kind: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: name it a.{kind}, or it would not be read again"):
        write_dataset(episodes("pendulum"), info("pendulum"), tmp_path / name, kind)
    assert [*tmp_path.iterdir()] == []


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield episodes("pendulum")[0]
        raise ZeroDivisionError

    for kind in FORMATS:
        with pytest.raises(ZeroDivisionError):
            write_dataset(broken(), info("pendulum"), tmp_path / f"a.{kind}", kind)  # pyright: ignore
        assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("kind", ["npz", "minari"])
def test_only_a_part_of_a_data_set_is_in_memory(tmp_path: Path, kind: Any) -> None:
    """30 MB of images (npz: twice as many), of which an episode has 1 MB, and a block of a column 4 MB."""
    rng, n = np.random.default_rng(0), 280
    recorded = episodes("images", (n,))[0]
    images = rng.integers(0, 256, recorded.observations.shape, np.uint8)
    episode = msgspec.structs.replace(recorded, observations=images)
    tracemalloc.start()
    try:
        write_dataset((episode for _ in range(30)), info("images"), tmp_path / f"a.{kind}", kind)
        with open_dataset(tmp_path / f"a.{kind}") as dataset:
            assert sum(len(each) for each in dataset.episodes()) == 30 * n
        assert tracemalloc.get_traced_memory()[1] < {"npz": 30e6, "minari": 10e6}[kind]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("part", range(8))
def test_a_refused_write_of_hdf5_is_an_error_and_nothing_else(
    tmp_path: Path, part: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """While arrays are written, or at the end, when the library writes what it held back."""
    recorded = episodes("pendulum", (5, 1, 8) * 20)
    whole = write_dataset(recorded, info("pendulum"), tmp_path / "whole", "minari").bytes
    with (
        files_of_at_most(whole * (part + 1) // 9),
        pytest.raises(WriteFailed, match="cannot write .*: File too"),
    ):
        write_dataset(recorded, info("pendulum"), tmp_path / "new", "minari")
    assert [each.name for each in tmp_path.iterdir()] == ["whole"]
    gc.collect()
    assert capfd.readouterr() == ("", "")


def test_episodes_before_a_damaged_one_are_read(tmp_path: Path) -> None:
    write_dataset(episodes("pendulum"), info("pendulum"), tmp_path / "a", "minari")
    with h5py.File(tmp_path / "a/data/main_data.hdf5", "r+") as file:
        del file["episode_2/rewards"]
    with open_dataset(tmp_path / "a") as dataset:
        found = dataset.episodes()
        assert [len(next(found)), len(next(found))] == [5, 1]
        with pytest.raises(InvalidDataset, match="episode 2: it has no array 'rewards'"):
            next(found)


STEP = st.tuples(st.sampled_from([None, *EpisodeStatus]), st.booleans())


@given(st.lists(st.lists(STEP, min_size=1, max_size=4), max_size=6))
def test_cutting_gives_each_transition_once_and_joins_none_that_do_not_follow(
    blocks: list[list[tuple[EpisodeStatus | None, bool]]],
) -> None:
    """A step has a status, None: it goes on; and whether the next row continues it."""
    rows: list[Rows] = []
    expected: list[list[int]] = [[]]
    number = 0
    for block in blocks:
        before, after, ends = [], [], []
        for status, follows in block:
            before.append(number)
            expected[-1].append(number)
            ends.append((status is EpisodeStatus.TERMINATED, status is EpisodeStatus.TRUNCATED))
            is_over = status in (EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED) or not follows
            number += 1 if follows else 2
            after.append(before[-1] + 1)
            if is_over:
                expected.append([])
        columns = [np.array(each, np.float32)[:, None] for each in (before, after)]
        flags = np.array(ends, np.bool_).T
        rows.append(Rows([columns[0]], [columns[0]], np.array(before, np.float64), [columns[1]], *flags))
    spaces = SPACES["pendulum"]
    found = [*Cutter(*spaces, [0]).episodes(rows)]
    assert [each.rewards.astype(int).tolist() for each in found] == [each for each in expected if each]
    for each in found:
        assert each.observations[1:, 0].tolist() == (each.rewards + 1).tolist()


def test_an_episode_as_transitions_and_as_columns() -> None:
    episode = episodes("pendulum", (4,))[0]
    steps, columns = [*episode.experiences()], episode.batch().experiences()
    assert difference([*map(parts, steps)], [*map(parts, columns)]) is None
    assert (len(episode), episode.total_reward) == (4, episode.rewards.sum())
    assert [step.status.is_done for step in steps] == [False, False, False, True]
    nested = episodes("nested", (2,))[0]
    step = next(nested.experiences())
    assert step.observation["pair"][0] == nested.observations["pair"][0][0]
    with pytest.raises(ConfigError, match=r"Tuple space: use experiences\(\)"):
        nested.batch()


def parts(step: Any) -> dict[str, Any]:
    return {name: getattr(step, name) for name in step.__struct_fields__ if name != "status"}
