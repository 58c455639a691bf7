"""The disk: whole files under final names, torn tails, refusals."""

from __future__ import annotations

import errno
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


def test_link_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    files.link_atomically(tmp_path / "a", tmp_path / "latest")
    files.link_atomically(tmp_path / "b", tmp_path / "latest")
    assert (tmp_path / "latest").read_bytes() == b"b"
    assert (tmp_path / "latest").samefile(tmp_path / "b"), "a second name, not a second copy"
    assert (tmp_path / "a").read_bytes() == b"a"


@pytest.mark.parametrize(
    ("content", "kept", "torn"),
    [
        (b"", b"", b""),
        (b"one\n", b"one\n", b""),
        (b"one\ntw", b"one\n", b"tw"),
        (b"half", b"", b"half"),
        (b"one\n\x00\x00\x00", b"one\n", b"\x00\x00\x00"),
        (b"x" * 3_000_000 + b"\n" + b"y" * 2_500_000, b"x" * 3_000_000 + b"\n", b"y" * 2_500_000),
    ],
)
def test_torn_tails_are_cut_and_kept_aside(tmp_path: Path, content: bytes, kept: bytes, torn: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert files.cut_torn_tail(path) == len(torn)
    assert path.read_bytes() == kept
    side = tmp_path / "rows.jsonl.torn"
    assert (side.read_bytes() if side.exists() else b"") == (torn + b"\n" if torn else b"")


def test_no_file_has_no_torn_tail(tmp_path: Path) -> None:
    assert files.cut_torn_tail(tmp_path / "none") == 0


def test_exclusive_directories_are_made_once(tmp_path: Path) -> None:
    assert files.make_directory(tmp_path / "a" / "b", exclusive=True)
    assert not files.make_directory(tmp_path / "a" / "b", exclusive=True)
    assert files.make_directory(tmp_path / "a" / "b")


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


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".latest.pt.123.tmp", "latest.pt", ".hidden", "x.tmp"):
        (tmp_path / name).write_text("")
    files.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "latest.pt", "x.tmp"]


@pytest.mark.anyio
async def test_append_file_appends_behind_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a\n")
    file = await files.AppendFile.open(path)
    await file.append(b"b\n")
    await file.append(b"c\n")
    await file.sync()
    await file.aclose()
    assert path.read_bytes() == b"a\nb\nc\n"


@pytest.mark.anyio
async def test_append_to_a_full_device_is_a_typed_error() -> None:
    file = await files.AppendFile.open(Path("/dev/full"))
    try:
        with pytest.raises(WriteFailed, match=r"/dev/full: No space left") as caught:
            await file.append(b"row\n")
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.ENOSPC
        assert isinstance(caught.value, OSError), "catchable as the OSError it is"
    finally:
        await file.aclose()
