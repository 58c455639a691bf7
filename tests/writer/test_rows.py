"""Rows: appended whole, cut back to whole ones, damage named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.errors import RunBroken, WriteFailed
from stoker.writer import RowLog, decode_rows, files


class Row(msgspec.Struct):
    k: int
    text: str = ""


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.anyio
async def test_rows_are_appended_in_order_and_parse_line_by_line(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl")
    await log.append([Row(0), Row(1, "a\nb \u2028 ü")])
    assert log.unsynced
    await log.sync()
    assert not log.unsynced
    await log.append([Row(2)])
    await log.aclose()
    await log.append([Row(3)])  # it opens again
    await log.aclose()
    assert [row["k"] for row in lines(log.path)] == [0, 1, 2, 3]
    assert decode_rows(log.path, Row)[1].text == "a\nb \u2028 ü"


@pytest.mark.anyio
async def test_batches_of_several_tasks_stay_whole(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl")

    async def write(writer: int) -> None:
        for batch in range(5):
            await log.append([Row(1000 * writer + 10 * batch + k) for k in range(4)])

    async with anyio.create_task_group() as tasks:
        for writer in range(8):
            tasks.start_soon(write, writer)
    await log.aclose()
    ks = [row.k for row in decode_rows(log.path, Row)]
    assert len(ks) == len(set(ks)) == 160
    for at in range(0, len(ks), 4):
        assert ks[at : at + 4] == list(range(ks[at], ks[at] + 4)), "a batch is one piece"
    for writer in range(8):
        mine = [k for k in ks if k // 1000 == writer]
        assert mine == sorted(mine), "batches of one task keep their order"


class Taking:
    """A raw file that takes a limited number of bytes per call and notes the calls."""

    def __init__(self, at_most: int) -> None:
        self.at_most = at_most
        self.pieces: list[bytes] = []

    def fileno(self) -> int:
        raise AssertionError("not needed")

    async def write(self, data: bytes, /) -> int:
        self.pieces.append(data[: self.at_most])
        return len(self.pieces[-1])


@pytest.mark.anyio
@pytest.mark.parametrize(("at_most", "calls"), [(100, 1), (4, 3), (1, 10)])
async def test_a_batch_is_one_write_unless_the_system_takes_a_part(
    tmp_path: Path, at_most: int, calls: int
) -> None:
    raw = Taking(at_most)
    file = files.AppendFile(tmp_path / "x", raw, lambda: None, 0)
    await file.append(b"0123456789")
    assert b"".join(raw.pieces) == b"0123456789"
    assert len(raw.pieces) == calls


@pytest.mark.anyio
@pytest.mark.parametrize("tail", [b'{"k":2,"te', b"\x00" * 4096, b'{"k":2}', b"{", b"\xff"])
async def test_a_torn_tail_is_cut_when_the_log_is_opened_again(
    tmp_path: Path, tail: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"k":0}\n{"k":1}\n' + tail)
    assert [row.k for row in decode_rows(path, Row)] == [0, 1], "reading passes it over"
    log = RowLog(path)
    await log.append([Row(9)])
    await log.aclose()
    assert [row["k"] for row in lines(path)] == [0, 1, 9]
    assert (tmp_path / "rows.jsonl.torn").read_bytes() == tail + b"\n", "kept, aside"
    assert f"{len(tail)} bytes of a torn last row" in caplog.text


@given(st.lists(st.integers(0, 10**6), max_size=20), st.integers(min_value=0))
def test_wherever_a_kill_cuts_whole_rows_are_left(
    tmp_path_factory: pytest.TempPathFactory, ks: list[int], at: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "rows.jsonl"
    whole = msgspec.json.Encoder().encode_lines([Row(k) for k in ks])
    path.write_bytes(whole[: at % (len(whole) + 1)])
    before = [row.k for row in decode_rows(path, Row)]
    assert before == ks[: len(before)]
    files.cut_torn_tail(path)
    assert [row["k"] for row in lines(path)] == before


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'{"k":0}\n{"k":\n{"k":2}\n', 2),
        (b'garbage\n{"k":2}\n', 1),
        (b'{"k":0}\n{"k":1}\n{"k":"two"}\n', 3),
        (b'{"k":0}\n\x00\x00\x00\n{"k":2}\n', 2),
        (b'{"k":0,"text":"a\rb"}\n', 1),
        (b'{"k":0,"text":"a\\r"}\n{"k":0\r}\n{}\n', 3),
        (b'{"k":0}\n\n{"k":1}\n{"k":null}\n', 4),
        (b'{"k":0}\n{"k":1,"text":"\xff\xfe"}\n{"k":2}\n', 2),
        (b'{"k":0}\n[1]\n', 2),
    ],
)
def test_damage_before_the_tail_is_reported_with_its_line(tmp_path: Path, content: bytes, line: int) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(RunBroken, match=rf"rows\.jsonl: line {line} is not a row"):
        decode_rows(path, Row)


def test_blank_lines_are_no_damage(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'\n{"k":1}\n\n{"k":2}\n')
    assert [row.k for row in decode_rows(tmp_path / "rows.jsonl", Row)] == [1, 2]


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert decode_rows(tmp_path / "none.jsonl", Row) == []


@pytest.mark.anyio
async def test_a_log_whose_rows_cannot_be_made_durable_says_so_and_is_closed_all_the_same() -> None:
    log = RowLog(Path("/dev/null"))  # takes every byte and refuses to sync
    await log.append([Row(0)])
    with pytest.raises(WriteFailed, match="/dev/null: Invalid argument"):
        await log.aclose()
    await log.aclose()
