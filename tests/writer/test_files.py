"""The disk: whole files under final names, torn tails, refusals."""

from __future__ import annotations

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stoker.errors import WriteFailed
from stoker.writer import files


def test_a_failed_write_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_atomically(path, lambda file: file.write(b"old"))

    def torn(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        files.write_atomically(path, torn)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_a_large_piece_is_written_as_a_whole(tmp_path: Path) -> None:
    piece = bytes(range(256)) * 12_000
    files.write_atomically(tmp_path / "x", lambda file: file.write(piece))
    assert (tmp_path / "x").read_bytes() == piece


def test_link_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    files.link_atomically(tmp_path / "a", tmp_path / "latest")
    files.link_atomically(tmp_path / "b", tmp_path / "latest")
    assert (tmp_path / "latest").read_bytes() == b"b"
    assert (tmp_path / "latest").samefile(tmp_path / "b"), "a second name, not a second copy"
    assert (tmp_path / "a").read_bytes() == b"a"


def test_a_link_to_what_has_the_name_already_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    for _ in range(2):
        files.link_atomically(tmp_path / "a", tmp_path / "latest")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "latest"]


def test_where_no_link_can_be_had_the_second_name_is_that_of_a_copy(tmp_path: Path) -> None:
    """On another file system, as on one without hard links."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=memory) as elsewhere:
        source = Path(elsewhere) / "a"
        source.write_bytes(b"a" * 3_000_000)
        (tmp_path / "latest").write_bytes(b"b")
        files.link_atomically(source, tmp_path / "latest")
    assert (tmp_path / "latest").read_bytes() == b"a" * 3_000_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["latest"]


@pytest.mark.parametrize(
    ("content", "offset", "n_cut"),
    [
        (b"", 0, 0),
        (b"one", 3, 0),
        (b"one", 9, 0),
        (b"one", 0, 3),
        (b"onetwo", 3, 3),
        (b"x" * 5_000_000, 7, 4_999_993),
    ],
)
def test_what_is_cut_is_kept_aside(tmp_path: Path, content: bytes, offset: int, n_cut: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    assert files.cut_at(path, offset) == n_cut
    assert path.read_bytes() == content[:offset]
    side = tmp_path / "log.torn"
    assert (side.read_bytes() if side.exists() else b"") == content[offset:]


def test_what_is_cut_comes_behind_what_was_cut_before(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for tail in (b"first", b"second"):
        path.write_bytes(b"x" + tail)
        files.cut_at(path, 1, separator=b"\n")
    assert (tmp_path / "log.torn").read_bytes() == b"first\nsecond\n"


@pytest.mark.parametrize(
    ("most_bytes", "start", "tail"),
    [(3, 7, b"789"), (10, 0, b"0123456789"), (99, 0, b"0123456789"), (0, 10, b"")],
)
def test_the_tail_of_a_file_and_where_it_begins(
    tmp_path: Path, most_bytes: int, start: int, tail: bytes
) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    assert files.read_tail(tmp_path / "x", most_bytes) == (start, tail)
    assert files.read_tail(tmp_path / "none", most_bytes) == (0, b"")


def test_exclusive_directories_are_made_once(tmp_path: Path) -> None:
    assert files.make_directory(tmp_path / "a" / "b", exclusive=True)
    assert not files.make_directory(tmp_path / "a" / "b", exclusive=True)
    assert files.make_directory(tmp_path / "a" / "b")


def test_of_several_callers_at_once_one_makes_an_exclusive_directory(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / f"{number}" / "runs" / "x"
        barrier = threading.Barrier(8)

        def make(path: Path = path, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait(20)
            return files.make_directory(path, exclusive=True)

        with ThreadPoolExecutor(8) as threads:
            made = [threads.submit(make) for _ in range(8)]
        assert sorted(one.result() for one in made) == [False] * 7 + [True]


def test_a_file_in_the_way_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a directory")
    with pytest.raises(WriteFailed, match="runs"):
        files.make_directory(tmp_path / "runs" / "x")


def test_move_aside_never_overwrites(tmp_path: Path) -> None:
    for content in ("1", "2", "3"):
        (tmp_path / "x.pt").write_text(content)
        files.move_aside(tmp_path / "x.pt", ".broken")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "x.pt.broken": "1",
        "x.pt.broken2": "2",
        "x.pt.broken3": "3",
    }


def test_a_file_that_cannot_be_removed_keeps_no_other_from_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("")
    with pytest.raises(WriteFailed, match="/a: "):
        files.remove_all(tmp_path / name for name in ("a", "gone", "b"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".latest.pt.123.tmp", "latest.pt", ".hidden", "x.tmp"):
        (tmp_path / name).write_text("")
    files.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "latest.pt", "x.tmp"]
