"""Files that are broken, or made to mislead: each is refused by name, and none raises anything else."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import polars as pl
import pytest
from given_episodes import episodes, info
from PIL import Image

from stoker.data import open_dataset, write_dataset
from stoker.errors import ConfigError, InvalidDataset, StokerError
from stoker.types import EpisodeStatus

COLUMNS = {
    "observations": np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2),
    "actions": np.array([0, 1, 0, 1, 1, 0]),
    "rewards": np.arange(6.0),
}
ENDS = {"terminals": np.arange(6) == 2, "timeouts": np.arange(6) == 5}


def npz(path: Path, **columns: Any) -> Path:
    np.savez(path / "a.npz", **columns)
    return path / "a.npz"


def replaced(columns: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {name: value for name, value in (columns | given).items() if value is not None}


def member(path: Path, name: str, content: bytes) -> Path:
    """An npz whose member has other content than numpy would write."""
    source = npz(path, **COLUMNS, **ENDS)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path / "b.npz", "w") as new:
        for each in old.namelist():
            new.writestr(each, content if each == name else old.read(each), zipfile.ZIP_DEFLATED)
    return path / "b.npz"


def npy(shape: tuple[int, ...], data: bytes) -> bytes:
    file = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def minari(path: Path, change: Callable[[h5py.File], None] = lambda _: None, **metadata: Any) -> Path:
    target = path / "set"
    write_dataset(episodes("pendulum"), info("pendulum"), target, "minari")
    (path / "other.h5").write_bytes((target / "data/main_data.hdf5").read_bytes())
    with h5py.File(target / "data/main_data.hdf5", "r+") as file:
        change(file)
    about = target / "data/metadata.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | metadata))
    return target


def put(place: str, make: Callable[[h5py.File], Any]) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[place]
        made = make(file)
        if made is not None:
            file[place] = made

    return change


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((5,), "f8")
    layout[:] = h5py.VirtualSource("../../other.h5", "episode_0/rewards", (5,))
    file.create_virtual_dataset("episode_0/rewards", layout)


def in_other_file(file: h5py.File) -> None:
    file.create_dataset("episode_0/rewards", (5,), "f8", external=[("../../other.h5", 0, 40)])


def endless(file: h5py.File) -> None:
    file.create_dataset("episode_0/rewards", (1 << 40,), "f8", chunks=(1 << 10,))


def d4rl(path: Path, change: Callable[[h5py.File], None] = lambda _: None, **columns: Any) -> Path:
    with h5py.File(path / "a.hdf5", "w") as file:
        for name, value in columns.items():
            file[name] = value
        change(file)
    return path / "a.hdf5"


def link(file: h5py.File) -> None:
    file["rewards"] = h5py.ExternalLink("b.hdf5", "rewards")


def parquet(path: Path, **columns: Any) -> Path:
    pl.DataFrame(columns).write_parquet(path / "a.parquet")
    return path / "a.parquet"


def two_parquets(path: Path) -> Path:
    first = parquet(path, **LISTS)
    first.rename(path / "b.parquet")
    parquet(path, **replaced(LISTS, extra=[1, 2]))
    return path


def ours(path: Path, kind: Any, **given: Any) -> Path:
    """A data set with some values of its second episode replaced."""
    recorded = episodes("pendulum", (5, 4, 8))
    recorded[1] = msgspec.structs.replace(recorded[1], **given)
    write_dataset(recorded, info("pendulum"), path / f"a.{kind}", kind)
    return path / f"a.{kind}"


def file_of(path: Path, name: str, content: bytes) -> Path:
    (path / name).write_bytes(content)
    return path / name


OUTSIDE = {"actions": np.array([[0], [1], [2.5], [9]], np.float32)}
NAN = {"observations": np.array([[0, 0, 0]] * 4 + [[0, np.nan, 0]], np.float32)}
LISTS = {
    "observation": [[0.0], [1.0]],
    "action": [0, 1],
    "reward": [0.5, 1.0],
    "terminated": [False, True],
    "truncated": [False, False],
}
OBJECTS = np.array([{}, 1, 2, 3, 4, 5], object)
TEXTS = h5py.string_dtype()

HOSTILE: dict[str, tuple[Callable[[Path], Path | str], str]] = {
    "no file": (lambda p: p / "a.npz", "no such file or directory"),
    "not a data set": (
        lambda p: file_of(p, "a.csv", b"1,2"),
        "no data set: give a directory in Minari's layout",
    ),
    "npz: no ends": (lambda p: npz(p, **COLUMNS), "no column says where episodes end"),
    "npz: one flag": (
        lambda p: npz(p, **COLUMNS, terminals=ENDS["terminals"]),
        r"'terminals' says .* say what the ends are \(--ends terminal, or --ends timeout\)",
    ),
    "npz: lengths": (
        lambda p: npz(p, **replaced(COLUMNS | ENDS, actions=np.zeros(5))),
        "different lengths: observations 6, actions 5",
    ),
    "npz: objects": (
        lambda p: npz(p, **COLUMNS, **ENDS, infos=OBJECTS),
        r"infos.npy holds object, .* pickled",
    ),
    "npz: texts": (lambda p: npz(p, **replaced(COLUMNS | ENDS, actions=["a"] * 6)), "holds <U1"),
    "npz: no rewards": (lambda p: npz(p, **replaced(COLUMNS | ENDS, rewards=None)), "no column rewards"),
    "npz: rewards of two axes": (
        lambda p: npz(p, **replaced(COLUMNS | ENDS, rewards=np.zeros((6, 1)))),
        r"column rewards holds float64\[1\]",
    ),
    "npz: Fortran": (
        lambda p: npz(p, **replaced(COLUMNS | ENDS, observations=np.zeros((2, 6)).T)),
        "in Fortran order",
    ),
    "npz: two dtypes": (
        lambda p: npz(p, **COLUMNS, **ENDS, next_observations=np.zeros((6, 2))),
        "observations and next_observations are of different shapes or dtypes",
    ),
    "npz: bomb": (lambda p: member(p, "rewards.npy", npy((6,), bytes(8 << 20))), "says it has 48 bytes"),
    "npz: claim": (lambda p: member(p, "rewards.npy", npy((1 << 50,), bytes(48))), "says it has 9,007,"),
    "npz: negative": (lambda p: member(p, "rewards.npy", npy((-6,), bytes(48))), r"has the shape \(-6,\)"),
    "npz: rubbish": (lambda p: file_of(p, "a.npz", b"PK" + bytes(99)), "BadZipFile"),
    "npz: empty": (lambda p: file_of(p, "a.npz", b""), "BadZipFile"),
    "npz: nan": (
        lambda p: ours(p, "npz", **NAN),
        r"episode 1, step 4: observations=\[ ?0\. nan +0\.\] is outside",
    ),
    "minari: outside": (
        lambda p: ours(p, "minari", **OUTSIDE),
        r"episode 1, step 2: actions=\[2\.5\] is outside",
    ),
    "parquet: reward": (
        lambda p: ours(p, "parquet", rewards=np.array([0, np.inf, 0, 0])),
        "episode 1, step 1: reward=inf is not finite",
    ),
    "minari: external link": (
        lambda p: minari(p, put("episode_1", lambda _: h5py.ExternalLink("../../other.h5", "episode_1"))),
        "'episode_1' is a link to another place or file",
    ),
    "minari: soft link": (
        lambda p: minari(p, put("episode_1/rewards", lambda _: h5py.SoftLink("/episode_0/rewards"))),
        "'rewards' is a link to another place",
    ),
    "minari: virtual": (lambda p: minari(p, put("episode_0/rewards", virtual)), "bytes in other files"),
    "minari: other file": (
        lambda p: minari(p, put("episode_0/rewards", in_other_file)),
        "bytes in other files",
    ),
    "minari: endless": (
        lambda p: minari(p, put("episode_0/rewards", endless)),
        "episode 0: 'rewards' claims 8,796,093,022,208 bytes",
    ),
    "minari: texts": (
        lambda p: minari(p, put("episode_0/rewards", lambda _: np.array(["a"] * 5, TEXTS))),
        "'rewards' holds object, no numbers",
    ),
    "minari: lengths": (
        lambda p: minari(p, put("episode_2/actions", lambda _: np.zeros((7, 1), np.float32))),
        r"episode 2: actions is \(7, 1\) for 8 rewards .* give an array \(8, 1\)",
    ),
    "minari: other flags": (
        lambda p: minari(p, put("episode_2/truncations", lambda _: np.zeros(7, np.bool_))),
        r"episode 2: it has \(8,\) terminations and \(7,\) truncations",
    ),
    "minari: early end": (
        lambda p: minari(p, put("episode_2/truncations", lambda _: np.arange(8) == 3)),
        "episode 2, step 3: it ends in the middle of its 8 steps",
    ),
    "minari: a group": (
        lambda p: minari(p, put("episode_0/actions", lambda f: f.create_group("episode_0/x"))),
        "no array 'actions'",
    ),
    "minari: float actions": (
        lambda p: minari(p, put("episode_0/actions", lambda _: np.zeros((5, 1), np.complex64))),
        "'actions' holds complex64",
    ),
    "minari: gone": (lambda p: minari(p, put("episode_1", lambda _: None)), "counts 3 episodes, .* has 2"),
    "minari: JPEG of another size": (
        lambda p: photographs(p, 64),
        r"image 0 of observations is 64 x 64, not \(36",
    ),
    "minari: no JPEG": (lambda p: photographs(p, None), "UnidentifiedImageError"),
    "minari: no metadata": (
        lambda p: no_metadata(minari(p)),
        "metadata.json is missing, as before Minari 0.5",
    ),
    "minari: arrow": (lambda p: minari(p, data_format="arrow"), "its data_format is 'arrow'"),
    "minari: space": (lambda p: minari(p, action_space='{"type": "Text"}'), "'Text' are not read"),
    "minari: bounds": (
        lambda p: minari(p, action_space='{"type":"Box","dtype":"f4","shape":[1000000000],"low":0,"high":1}'),
        "has bounds of",
    ),
    "d4rl: no timeouts": (lambda p: d4rl(p, **COLUMNS, terminals=ENDS["terminals"]), "--ends terminal"),
    "d4rl: lengths": (lambda p: d4rl(p, **replaced(COLUMNS | ENDS, rewards=np.zeros(7))), "rewards 7"),
    "d4rl: link": (lambda p: d4rl(p, link, **replaced(COLUMNS | ENDS, rewards=None)), "'rewards' is a link"),
    "d4rl: a scalar": (lambda p: d4rl(p, **replaced(COLUMNS | ENDS, rewards=1.0)), "'rewards' is a single"),
    "d4rl: another": (lambda p: d4rl(p, x=np.zeros(3)), "none of D4RL's arrays, but x"),
    "d4rl: rubbish": (lambda p: file_of(p, "a.h5", b"\x89HDF\r\n\x1a\n" + bytes(99)), "cannot be read"),
    "parquet: rubbish": (lambda p: file_of(p, "a.parquet", b"PAR1" + bytes(99)), "cannot be read"),
    "parquet: ragged": (
        lambda p: parquet(p, **replaced(LISTS, observation=[[0.0], [1.0, 2.0]])),
        "lists of different lengths",
    ),
    "parquet: gaps": (lambda p: parquet(p, **replaced(LISTS, reward=[0.5, None])), "reward has 1 gaps"),
    "parquet: no ends": (
        lambda p: parquet(p, **replaced(LISTS, terminated=None, truncated=None)),
        "no column says where episodes end, it has observation, action, reward",
    ),
    "parquet: two kinds": (two_parquets, "has other columns than"),
}


def photographs(path: Path, size: int | None) -> Path:
    """Images as JPEG, of another size than their space says."""
    write_dataset(episodes("images", (2,)), info("images"), path / "set", "minari")
    file = io.BytesIO(bytes(99))
    if size is not None:
        Image.new("RGB", (size, size)).save(file, "JPEG")
    content = np.frombuffer(file.getvalue(), np.uint8)
    with h5py.File(path / "set/data/main_data.hdf5", "r+") as main:
        del main["episode_0/observations"]
        main["episode_0/observations"] = np.stack([content] * 3)
    about = path / "set/data/metadata.json"
    about.write_text(about.read_text().replace('"jpeg_encoding": false', '"jpeg_encoding": true'))
    return path / "set"


def no_metadata(path: Path) -> Path:
    (path / "data/metadata.json").unlink()
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_by_name(tmp_path: Path, name: str) -> None:
    make, message = HOSTILE[name]
    source = make(tmp_path)
    with pytest.raises(InvalidDataset, match=message) as caught, open_dataset(source) as dataset:
        list(dataset.episodes())
    assert str(caught.value).startswith(str(source))


def test_values_are_read_as_they_are_if_asked(tmp_path: Path) -> None:
    with open_dataset(ours(tmp_path, "npz", **OUTSIDE), check=False) as dataset:
        assert [*dataset.episodes()][1].actions.tolist() == OUTSIDE["actions"].tolist()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rewards": np.zeros(3)}, r"episode 1: observations is \(5, 3\) for 3 rewards"),
        (
            {"observations": np.zeros((5, 3))},
            "episode 1: observations has float64, in episodes before it had",
        ),
        ({"actions": np.zeros((4, 1), np.complex64)}, "episode 1: actions has complex64 for the space"),
        ({"actions": {"left": 1}}, "episode 1: actions is dict"),
        ({"rewards": np.zeros(4, np.float32)}, r"rewards are float32\[4\]: give float64"),
        ({"policy_versions": np.zeros(3, np.int64)}, r"policy_versions are int64\[3\] for 4"),
        ({"seed": -1}, "episode 1: seed=-1: files hold seeds from 0"),
        ({"status": "Terminated"}, "status='Terminated'"),
    ],
)
def test_episodes_that_do_not_fit_are_not_written(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidDataset, match=message):
        ours(tmp_path, "npz", **given)
    assert [*tmp_path.iterdir()] == []


def test_other_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="format='csv': give minari, parquet, npz"):
        write_dataset([], info("pendulum"), tmp_path / "a", "csv")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidDataset, match="there is no episode to write"):
        write_dataset([], info("pendulum"), tmp_path / "a.npz", "npz")
    with pytest.raises(InvalidDataset, match=r"ends='timeout': its columns terminals and timeouts tell"):
        open_dataset(npz(tmp_path, **COLUMNS, **ENDS), ends="timeout")
    with pytest.raises(ConfigError, match="ends='done': give terminal or timeout"):
        open_dataset(tmp_path / "a.npz", ends="done")  # pyright: ignore[reportArgumentType]


KINDS = ["npz", "minari", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_raise_nothing_else(tmp_path: Path, kind: Any) -> None:
    source = tmp_path / f"a.{kind}"
    rng = np.random.default_rng(5)
    write_dataset(episodes("nested"), info("nested"), source, kind)
    file = source / "data/main_data.hdf5" if kind == "minari" else source
    whole = file.read_bytes()
    for _ in range(40):
        bad = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.2 else whole)
        for at in rng.integers(len(bad), size=int(rng.integers(1, 4))) if bad else ():
            bad[at] = int(rng.integers(256))
        file.write_bytes(bad)
        try:
            with open_dataset(source) as dataset:
                list(dataset.episodes())
        except StokerError as error:
            assert type(error) is InvalidDataset  # noqa: PT017


def test_a_d4rl_file_is_cut_as_its_own_package_cuts_it(tmp_path: Path) -> None:
    source = d4rl(tmp_path, **COLUMNS, **ENDS)
    with open_dataset(source) as dataset:
        first, second = dataset.episodes()
    assert (first.status, second.status) == (EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED)
    assert (first.rewards.tolist(), second.rewards.tolist()) == ([0, 1, 2], [3, 4])  # not the timed-out step
    assert second.observations.tolist() == COLUMNS["observations"][3:].tolist()
    assert first.observations[-1].tolist() == first.observations[-2].tolist()
    assert (dataset.n_dropped, dataset.info.n_steps, dataset.info.spaces_are_inferred) == (1, None, True)
    assert str(dataset.info.action_space) == "Discrete(2)"
    shutil.copy(source, tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "b.hdf5", "r+") as file:
        file["next_observations"] = np.roll(COLUMNS["observations"], -1, 0)
        file["infos/qpos"] = np.zeros(2)
    with open_dataset(tmp_path / "b.hdf5") as dataset:
        lengths = [len(each) for each in dataset.episodes()]
    assert (lengths, dataset.n_dropped) == ([3, 3], 0)


@pytest.mark.parametrize(("ends", "status"), [("terminal", "TERMINATED"), ("timeout", "TRUNCATED")])
def test_ends_say_what_the_only_marks_mean(tmp_path: Path, ends: Any, status: str) -> None:
    after = {"next_observations": np.roll(COLUMNS["observations"], -1, 0)}
    by_flag = npz(tmp_path, **COLUMNS, **after, done=np.arange(6) == 3)
    with open_dataset(by_flag, ends=ends) as dataset:
        found = [(len(each), each.status.name) for each in dataset.episodes()]
    assert found == [(4, status), (2, "CONTINUING")]
    by_number = npz(tmp_path, **COLUMNS, **after, episode=np.array([4, 4, 9, 9, 9, 9]))
    with open_dataset(by_number, ends=ends) as dataset:
        found = [(len(each), each.status.name) for each in dataset.episodes()]
    assert found == [(2, status), (4, status)]


def test_shuffled_transitions_are_episodes_that_broke_off(tmp_path: Path) -> None:
    after = np.array([[8, 8], *COLUMNS["observations"][2:4], [7, 7], [6, 6], [5, 5]], np.float32)
    with open_dataset(npz(tmp_path, **COLUMNS, **ENDS, next_observations=after)) as dataset:
        found = [(each.rewards.tolist(), each.status.name) for each in dataset.episodes()]
    assert found == [
        *(([0.0], "CONTINUING"), ([1.0, 2.0], "TERMINATED"), ([3.0], "CONTINUING")),
        *(([4.0], "CONTINUING"), ([5.0], "TRUNCATED")),
    ]
