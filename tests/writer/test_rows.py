"""Rows: appended whole, cut back to whole ones, damage named."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, strategies as st

from stoker.errors import RunBroken, WriteFailed
from stoker.writer import (
    RowLog,
    RowReader,
    cut_rows,
    decode_rows,
    encode_rows,
    files,
)
from stoker.writer.logs import commit


class Empty(msgspec.Struct):
    pass


class Row(msgspec.Struct):
    k: int
    text: str = ""


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.anyio
async def test_rows_are_appended_in_order_and_parse_line_by_line(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl")
    await log.append_rows([Row(0), Row(1, "a\nb \u2028 ü")])
    assert log.unsynced_bytes == log.path.stat().st_size
    await commit({log: b""})
    assert log.unsynced_bytes == 0
    await log.append_rows([Row(2)])
    await log.aclose()
    await log.append_rows([Row(3)])  # it opens again
    await log.aclose()
    assert [row["k"] for row in lines(log.path)] == [0, 1, 2, 3]
    assert decode_rows(log.path, Row)[1].text == "a\nb \u2028 ü"


@pytest.mark.anyio
async def test_batches_of_several_tasks_stay_whole(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl")

    async def write(writer: int) -> None:
        for batch in range(5):
            await log.append_rows([Row(1000 * writer + 10 * batch + k) for k in range(4)])

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


def damaged(data: bytes, number: int, change: Callable[[bytes], bytes]) -> bytes:
    """The data with one of its lines, counted from 1, changed."""
    several = data.split(b"\n")
    several[number - 1] = change(several[number - 1])
    return b"\n".join(several)


ROWS = [Row(0), Row(1, "one"), Row(2, "two"), Row(3)]
WHOLE = encode_rows(ROWS)
LINES = WHOLE.splitlines(keepends=True)


def test_a_line_is_plain_json_with_the_checksum_of_what_is_before_it() -> None:
    for row, line in zip(ROWS, LINES, strict=True):
        assert json.loads(line) == {"k": row.k, "text": row.text, "crc": line[-11:-3].decode()}
        body, _, end = line.rpartition(b',"crc":"')
        assert end == b'%08x"}\n' % zlib.crc32(body)


@pytest.mark.parametrize("row", [1, "x", None, [1], {}, Empty()])
def test_what_has_no_field_is_no_row(row: Any) -> None:
    with pytest.raises(TypeError, match="is not a row"):
        encode_rows([row])


@pytest.mark.anyio
async def test_a_large_batch_lets_others_have_their_turns_and_is_one_piece(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl")
    turns: list[int] = []

    async def count() -> None:
        while True:
            turns.append(len(log.path.read_bytes()) if log.path.exists() else 0)
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await checkpoint()
        before = len(turns)
        await log.append_rows([Row(k, "x" * 1000) for k in range(2000)])
        tasks.cancel_scope.cancel()
    await log.aclose()
    assert len(turns) - before >= 7, "2,000 rows are eight times 256"
    assert [row.k for row in decode_rows(log.path, Row)] == list(range(2000))


def look(path: Path) -> tuple[int, int]:
    """How many rows are whole, and how many bytes follow behind them."""
    reader = RowReader(path, Row)
    return len(reader.read_new()), reader.torn_bytes


TAILS = [
    LINES[3][:1], LINES[3][:10], LINES[3][:-2], LINES[3][:-1],  # torn anywhere, at last before the newline
    b"\x00" * 4096, b"\x00" * 100_000, b"\n\x00\x00", b"\x00\n\x00\n",
    LINES[3][:7] + b"\x00" * 512, LINES[3][:7] + b"\x00" * 512 + b"\n",
    b"{", b"\xff", b"garbage\n", b'{"k":3,"text":""}\n', LINES[3].replace(b"3", b"4", 1),
    b"x" * 70_000, b"x\n" * 70_000,
]  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize("tail", TAILS, ids=[f"{tail[:16]!r}-{len(tail)}" for tail in TAILS])
async def test_a_torn_tail_is_set_aside_when_the_log_is_opened_again(
    tmp_path: Path, tail: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(LINES[:3]) + tail)
    assert decode_rows(path, Row) == ROWS[:3], "reading passes it over"
    assert look(path) == (3, len(tail))
    log = RowLog(path)
    await log.append_rows([Row(9)])
    await log.aclose()
    assert [row.k for row in decode_rows(path, Row)] == [0, 1, 2, 9]
    assert path.read_bytes().startswith(b"".join(LINES[:3]))
    assert (tmp_path / "rows.jsonl.torn").read_bytes() == tail + b"\n", "kept, aside"
    assert f"{len(tail)} bytes of a torn last row" in caplog.text


@pytest.mark.anyio
async def test_where_the_first_row_is_torn_nothing_is_left_and_it_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for tail in (LINES[0][:9], b"\x00" * 20_000):
        path.write_bytes(tail)
        assert decode_rows(path, Row) == []
        log = RowLog(path)
        await log.append_rows([Row(7)])
        await log.aclose()
        assert decode_rows(path, Row) == [Row(7)]


@pytest.mark.anyio
async def test_a_whole_log_is_not_touched_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(WHOLE)
    log = RowLog(path)
    await log.append_rows([Row(4, "x" * 100_000)])  # longer than what is looked at first
    await log.aclose()
    again = RowLog(path)
    await again.append_rows([Row(5)])
    await again.aclose()
    assert path.read_bytes().startswith(WHOLE)
    assert [row.k for row in decode_rows(path, Row)] == [0, 1, 2, 3, 4, 5]
    assert list(files.files_in(tmp_path)) == ["rows.jsonl"], "nothing was set aside"


@given(st.lists(st.integers(0, 10**6), max_size=20), st.integers(min_value=0), st.integers(0, 3))
def test_wherever_a_crash_cuts_whole_rows_are_left(
    tmp_path_factory: pytest.TempPathFactory, ks: list[int], at: int, n_nulls: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "rows.jsonl"
    whole = encode_rows([Row(k) for k in ks])
    kept = whole[: at % (len(whole) + 1)]
    path.write_bytes(kept + b"\x00" * (n_nulls * 512))
    before = [row.k for row in decode_rows(path, Row)]
    assert before == ks[: kept.count(b"\n")]
    assert look(path) == (len(before), len(kept) - kept.rfind(b"\n") - 1 + n_nulls * 512)
    anyio.run(append_one, path)
    assert [row.k for row in decode_rows(path, Row)] == [*before, -1]
    assert look(path) == (len(before) + 1, 0)


async def append_one(path: Path) -> None:
    log = RowLog(path)
    await log.append_rows([Row(-1)])
    await log.aclose()


DAMAGES: list[tuple[int, Callable[[bytes], bytes]]] = [
    (1, lambda line: line.replace(b"0", b"5", 1)),
    (2, lambda line: line.replace(b"one", b"two")),
    (2, lambda line: line[:-1]),
    (3, lambda line: b"\x00" * len(line)),
    (3, lambda line: line[: line.rindex(b",")] + b"}"),
    (3, lambda line: line.upper()),
    (1, lambda line: line + b" "),
    (2, lambda _: b"garbage"),
    (2, lambda line: line.replace(b"one", b"\xff\xfe")),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("number", "change"), DAMAGES)
async def test_damage_with_whole_rows_behind_it_is_reported_with_its_line_and_never_cut(
    tmp_path: Path, number: int, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "rows.jsonl"
    content = damaged(WHOLE, number, change)
    path.write_bytes(content)
    problem = f"line {number} is not a row (its checksum is missing or does not match); remove that line"
    with pytest.raises(RunBroken) as caught:
        decode_rows(path, Row)
    assert str(caught.value) == f"{path}: {problem}"
    await append_one(path)
    assert path.read_bytes() == content + encode_rows([Row(-1)])


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    path = tmp_path_factory.mktemp("flip") / "rows.jsonl"
    content = bytearray(WHOLE)
    content[at] ^= 1 << bit
    path.write_bytes(content)
    try:
        n_rows, torn_bytes = look(path)
    except RunBroken:
        return
    assert torn_bytes
    assert n_rows < len(ROWS)


def test_a_row_of_another_kind_is_told_from_damage(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(encode_rows([Row(0), {"k": "two"}, Row(2)]))
    with pytest.raises(RunBroken, match=r"rows\.jsonl: line 2 is not a row \(Expected `int`"):
        decode_rows(path, Row)


@pytest.mark.anyio
async def test_a_log_without_any_checksum_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"k":0}\n{"k":1}\n')
    with pytest.raises(RunBroken, match=r"rows\.jsonl: line 1 is not a row .*move that file away"):
        decode_rows(path, Row)
    log = RowLog(path)
    with pytest.raises(RunBroken, match="line 1"):
        await log.append_rows([Row(2)])
    assert path.read_bytes() == b'{"k":0}\n{"k":1}\n'


def test_much_damage_is_told_in_few_words(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"x\n" * 50 + WHOLE)
    named = ", ".join(map(str, range(1, 21)))
    with pytest.raises(RunBroken, match=rf"lines {named} and 30 more are not rows .*; remove those lines"):
        decode_rows(path, Row)
    path.write_bytes(b"x\n" + LINES[0] + b"x\n" + LINES[1])
    with pytest.raises(RunBroken, match=r"lines 1, 3 are not rows"):
        decode_rows(path, Row)


def test_what_cannot_be_read_is_a_problem_too(tmp_path: Path) -> None:
    found = f"{tmp_path.name}: cannot be read: Is a directory; a directory stands in its place: move it away"
    with pytest.raises(RunBroken, match=found):
        decode_rows(tmp_path, Row)


def test_blank_lines_are_no_damage(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\n" + LINES[1] + b"\n\n" + LINES[2])
    assert [row.k for row in decode_rows(tmp_path / "rows.jsonl", Row)] == [1, 2]
    assert look(tmp_path / "rows.jsonl") == (2, 0)


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert decode_rows(tmp_path / "none.jsonl", Row) == []
    assert look(tmp_path / "none.jsonl") == (0, 0)
    assert cut_rows(tmp_path / "none.jsonl", tmp_path / "cut.jsonl", lambda _: True, Row) == 0
    assert not (tmp_path / "cut.jsonl").exists()


def test_rows_are_copied_as_they_are(tmp_path: Path) -> None:
    source, target = tmp_path / "rows.jsonl", tmp_path / "cut.jsonl"
    source.write_bytes(LINES[0] + encode_rows([{"k": 1, "more": [1, 2]}]) + LINES[2] + b'{"torn')
    assert cut_rows(source, target, lambda row: row.k < 2, Row) == 2
    assert target.read_bytes() == LINES[0] + encode_rows([{"k": 1, "more": [1, 2]}])
    assert cut_rows(source, target, lambda _: False, Row) == 0
    assert target.read_bytes() == b""
    source.write_bytes(damaged(WHOLE, 2, bytes.upper))
    with pytest.raises(RunBroken, match="line 2"):
        cut_rows(source, target, lambda _: True, Row)
    assert target.read_bytes() == b""


@pytest.mark.anyio
async def test_a_log_whose_rows_cannot_be_made_durable_says_so_and_is_closed_all_the_same() -> None:
    log = RowLog(Path("/dev/null"))  # takes every byte and refuses to sync
    await log.append_rows([Row(0)])
    with pytest.raises(WriteFailed, match="/dev/null: Invalid argument"):
        await log.aclose()
    await log.aclose()
    with pytest.raises(WriteFailed, match="/dev/null: Invalid argument"):
        await log.append_rows([Row(1)])


def ks_of(reader: RowReader[Row]) -> list[int]:
    return [row.k for row in reader.read_new()]


@given(st.lists(st.integers(0, 200), max_size=8))
def test_a_reader_gives_each_row_of_a_growing_file_once(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("growing") / "rows.jsonl"
    whole = encode_rows([Row(k) for k in range(6)])
    reader = RowReader(path, Row)
    found = ks_of(reader)
    for cut in [*sorted(min(cut, len(whole)) for cut in cuts), len(whole)]:
        path.write_bytes(whole[:cut])
        found += ks_of(reader)
        assert found == list(range(whole[:cut].count(b"\n")))
        assert not reader.has_restarted
    assert ks_of(reader) == []


@pytest.mark.anyio
async def test_a_reader_stays_in_its_place_when_a_torn_tail_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(LINES[:2]) + LINES[2][:-4])
    reader = RowReader(path, Row)
    assert ks_of(reader) == [0, 1]
    await append_one(path)
    assert (ks_of(reader), reader.has_restarted) == ([-1], False)


def test_a_reader_starts_again_in_a_file_that_was_replaced_cut_back_or_removed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(WHOLE)
    reader = RowReader(path, Row)
    assert (ks_of(reader), reader.has_restarted) == ([0, 1, 2, 3], False)
    path.write_bytes(b"".join(LINES[:2]))
    assert (ks_of(reader), reader.has_restarted) == ([0, 1], True)
    path.write_bytes(encode_rows([Row(k) for k in range(50, 60)]))
    assert (ks_of(reader), reader.has_restarted) == (list(range(50, 60)), True)
    assert (ks_of(reader), reader.has_restarted) == ([], False)
    path.unlink()
    assert (ks_of(reader), reader.has_restarted) == ([], True)
    path.write_bytes(LINES[1])
    assert (ks_of(reader), reader.has_restarted) == ([1], False)


def test_a_reader_names_a_damaged_line_by_its_number_and_stays_before_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LINES[0])
    reader = RowReader(path, Row)
    assert ks_of(reader) == [0]
    path.write_bytes(LINES[0] + b"garbage\n" + LINES[2])
    for _ in range(2):
        with pytest.raises(RunBroken, match=r"rows\.jsonl: line 2 is not a row"):
            reader.read_new()
    path.write_bytes(b"garbage\n" + LINES[1])
    with pytest.raises(RunBroken, match="line 1"):
        reader.read_new()
    path.write_bytes(LINES[1] + LINES[2])
    assert (ks_of(reader), reader.has_restarted) == ([1, 2], True)
