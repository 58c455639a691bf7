"""Row files as columns: each byte read once, damage named and skipped, whatever happens to the file."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import pytest
from hypothesis import given, strategies as st

from stoker.runs.rows import MetricsRow, TrainEpisodeRow
from stoker.runs.tables import RowTable
from stoker.types import EpisodeStatus
from stoker.writer import decode_rows, encode_rows
from stoker.writer.reading import PIECE_BYTES

BEGAN = datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def episode(number: int, **extras: float) -> TrainEpisodeRow:
    return TrainEpisodeRow(
        total_reward=number / 4, length=number, status=EpisodeStatus.TERMINATED, extras=extras,
        total_steps=10 * number, episode=number, actor_id=number % 2 or "zero",
        time=BEGAN + timedelta(seconds=number),
    )  # fmt: skip


def record(step: int, **metrics: float | str) -> MetricsRow:
    return MetricsRow(total_steps=step, opt_steps=step, metrics=metrics, time=BEGAN)


def numbers_of(table: RowTable[Any]) -> list[int]:
    return table.column("episode").tolist()


def write(path: Path, data: bytes) -> RowTable[TrainEpisodeRow]:
    path.write_bytes(data)
    return RowTable(path, TrainEpisodeRow)


def test_columns_and_their_types(tmp_path: Path) -> None:
    table = write(tmp_path / "rows", encode_rows([episode(1, a=1.0), episode(2), episode(3, b=2.0, a=5.0)]))
    assert table.refresh()
    assert not table.refresh(), "nothing is new"
    assert table.names == (
        "total_reward", "length", "total_steps", "episode", "time", "attempt", "extras.a", "extras.b",
    )  # fmt: skip
    assert table.value_names == ("status", "actor_id")
    assert table.column("total_reward").tolist() == [0.25, 0.5, 0.75]
    assert table.column("length").dtype == np.int64
    assert table.column("time").tolist() == [(BEGAN + timedelta(seconds=k)).timestamp() for k in (1, 2, 3)]
    assert table.column("actor_id").tolist() == [1, "zero", 1]
    codes, values = table.codes("actor_id")
    assert (codes.tolist(), values) == ([0, 1, 0], [1, "zero"])
    np.testing.assert_array_equal(table.column("extras.a"), [1.0, math.nan, 5.0])
    np.testing.assert_array_equal(table.column("extras.b"), [math.nan, math.nan, 2.0])
    assert table.as_columns(slice(1, 2))["time"].tolist() == [BEGAN + timedelta(seconds=2)]
    assert (table.share_read, table.problems) == (1.0, ())
    with pytest.raises(KeyError):
        table.column("extras.c")


@given(st.lists(st.integers(0, 2000), max_size=6))
def test_however_a_file_grows_its_columns_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("growing") / "rows.jsonl"
    metrics: list[dict[str, Any]] = [
        {"x": 1.5},
        {"y": 2.0},
        {},
        {"y": 0.5, "x": 1.0},
        {"z": "b"},
        {"x": 3.0},
    ]
    rows = [record(k, **found) for k, found in enumerate(metrics)]
    whole = encode_rows(rows)
    growing = RowTable(path, MetricsRow)
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        growing.refresh()
    path.write_bytes(whole)
    growing.refresh()
    at_once = RowTable(path, MetricsRow)
    at_once.refresh()
    for name in (*at_once.names, *at_once.value_names):
        np.testing.assert_array_equal(growing.column(name), at_once.column(name))
    assert growing.column("metrics.z").tolist() == [None] * 4 + ["b", None]
    assert (growing.names, growing.value_names) == (at_once.names, at_once.value_names)
    assert growing.generation == 0


def test_numbers_stay_in_a_metric_that_becomes_a_text(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(encode_rows([record(1, x=1.5), record(2)]))
    table = RowTable(path, MetricsRow)
    table.refresh()
    assert "metrics.x" in table.names
    path.write_bytes(
        encode_rows([record(1, x=1.5), record(2), record(3, x="off"), record(4), record(5, x=2.0)])
    )
    table.refresh()
    assert table.column("metrics.x").tolist() == [1.5, None, "off", None, 2.0]
    assert "metrics.x" not in table.names


def test_what_was_taken_from_a_table_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    table = write(path, encode_rows(map(episode, range(5))))
    table.refresh()
    before = table.column("episode")
    path.write_bytes(encode_rows(map(episode, range(100, 200))))
    table.refresh()
    assert before.tolist() == [0, 1, 2, 3, 4]
    assert (table.n_rows, table.generation, numbers_of(table)[0]) == (100, 1, 100)


def test_damaged_foreign_and_long_lines_are_named_and_skipped(tmp_path: Path) -> None:
    lines = [encode_rows([episode(k)]) for k in range(8)]
    too_long = encode_rows([{"text": "x" * (10 << 20)}])
    lines[1] = lines[1].replace(b"length", b"height")  # the checksum is wrong
    lines[2] = encode_rows([{"another": "program"}])
    lines[4] = too_long
    lines[5] = b"\xff\x00\n"
    deep = b'{"deep":' + b"[" * 100_000 + b"]" * 100_000
    lines[6] = b'%b,"crc":"%08x"}\n' % (deep, crc32(deep))
    table = write(tmp_path / "rows", b"".join(lines))
    table.refresh()
    assert numbers_of(table) == [0, 3, 7]
    damaged, long, foreign, nested = table.problems
    assert damaged.startswith("lines 2, 6 are not rows (its checksum")
    assert long.startswith("line 5 is not a row (it is longer than 8 MiB)")
    assert foreign.startswith("line 3 is not a row (Object missing required field")
    assert nested.startswith("line 7 is not a row (maximum recursion depth exceeded")
    with (tmp_path / "rows").open("ab") as file:
        file.write(b"garbage\n" + encode_rows([episode(8)]))
    table.refresh()
    assert numbers_of(table) == [0, 3, 7, 8]
    assert table.problems[0].startswith("lines 2, 6, 9 are not rows")


def test_a_torn_tail_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    whole = encode_rows(map(episode, range(3)))
    table = write(path, whole[:-9])
    table.refresh()
    assert (numbers_of(table), table.problems, table.share_read) == ([0, 1], (), 1.0)
    path.write_bytes(whole)
    assert table.refresh()
    assert numbers_of(table) == [0, 1, 2]


def test_a_large_file_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    row = encode_rows([{**msgspec.to_builtins(episode(1)), "padding": "x" * 100_000}])
    n = 3 * PIECE_BYTES // len(row)
    table = write(path, row * n)
    shares: list[float] = []
    while not shares or shares[-1] < 1.0:
        assert table.refresh(most_bytes=PIECE_BYTES // 2)
        shares.append(table.share_read)
    assert shares == sorted(shares)
    assert len(shares) >= 6
    assert table.n_rows == n
    tail = RowTable(path, TrainEpisodeRow)
    tail.read_tail(10)
    assert tail.n_rows == 10
    assert 0 < tail.share_read < 1


def test_a_tail_follows_its_file(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(encode_rows(map(episode, range(100))) + b"{torn")
    tail = RowTable(path, TrainEpisodeRow)
    tail.read_tail(5)
    assert numbers_of(tail) == [95, 96, 97, 98, 99]
    assert not tail.refresh()
    path.write_bytes(encode_rows(map(episode, range(102))))
    assert tail.refresh()
    assert numbers_of(tail) == [95, 96, 97, 98, 99, 100, 101]
    assert (tail.generation, tail.problems) == (0, ())
    for n in range(110, 300, 10):
        path.write_bytes(encode_rows(map(episode, range(n))))
        tail.refresh()
        assert numbers_of(tail)[-5:] == list(range(n - 5, n))
        assert tail.n_rows < 100
    assert tail.generation > 0, "old rows were forgotten"
    path.write_bytes(encode_rows(map(episode, range(50, 53))))
    assert tail.refresh()
    assert numbers_of(tail) == [50, 51, 52]
    path.write_bytes(b"#" + encode_rows([episode(7)]) + encode_rows([episode(8)]))
    tail.refresh()
    assert numbers_of(tail) == [8]
    path.write_bytes(
        b"#" + encode_rows([episode(7)]) + encode_rows([episode(8)]) + b"#\n" + encode_rows([episode(9)])
    )
    tail.refresh()
    assert (numbers_of(tail), tail.problems) == ([8, 9], ("some of the last lines are not rows",))
    path.unlink()
    tail.refresh()
    assert (tail.n_rows, tail.problems, tail.share_read) == (0, (), 1.0)


def test_a_file_that_comes_goes_or_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    table = RowTable(path, TrainEpisodeRow)
    table.refresh()
    assert (table.n_rows, table.share_read, table.problems) == (0, 1.0, ())
    path.write_bytes(encode_rows([episode(1)]))
    assert table.refresh()
    path.unlink()
    assert table.refresh()
    assert (table.n_rows, table.generation) == (0, 1)
    path.mkdir()
    assert table.refresh()
    assert "cannot be read" in table.problems[0]
    path.rmdir()
    path.write_bytes(b'{"step": 1}\n')
    table.refresh()
    assert "move that file away" in table.problems[0]
    path.write_bytes(encode_rows([episode(2)]))
    table.refresh()
    assert (numbers_of(table), table.problems) == ([2], ())


def test_what_is_beyond_the_bounds_of_a_table_is_left_out_by_name(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    long = "x" * (9 << 20)
    many = {f"m{k}": 1.0 for k in range(1002)}
    path.write_bytes(encode_rows([record(1, **many), record(2, text=long), record(3)]))
    table = RowTable(path, MetricsRow)
    table.refresh()
    assert [name for name in table.names if "." in name] == [f"metrics.m{k}" for k in range(1000)]
    names, line = sorted(table.problems, reverse=True)
    assert names == "rows have more than 1,000 names; metrics.m1000 and others are left out"
    assert line.startswith("line 2 is not a row (it is longer than 8 MiB)")
    whole = RowTable(path, MetricsRow, is_bounded=False)
    whole.refresh()
    assert whole.column("metrics.text").tolist() == [None, long, None]
    assert (len(whole.names), whole.problems) == (1006, ())
    assert [row.total_steps for row in decode_rows(path, MetricsRow)] == [1, 2, 3]


@given(st.data())
def test_whatever_is_damaged_the_whole_rows_are_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A line is kept exactly if its checksum is right; others before the last whole one are named."""
    path = tmp_path_factory.mktemp("damaged") / "rows.jsonl"
    content = bytearray(encode_rows(map(episode, range(6))))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(content)))
        piece = data.draw(
            st.sampled_from([b"", b"\n", b"#", b"\n\n", b"{}\n", b"\x00" * 9, bytes(content[-400:])])
        )
        content[at : at + data.draw(st.integers(0, 250))] = piece
    *lines, torn = bytes(content).split(b"\n")
    whole = [line[-18:] == b',"crc":"%08x"}' % crc32(line[:-18]) for line in lines]
    table = write(path, bytes(content))
    table.refresh()
    kept = [msgspec.json.decode(line)["episode"] for line, is_row in zip(lines, whole, strict=True) if is_row]
    assert numbers_of(table) == kept
    end = len(whole) - whole[::-1].index(True) if True in whole else 0
    damaged = [
        n for n, (line, ok) in enumerate(zip(lines[:end], whole, strict=False), 1) if line.strip() and not ok
    ]
    assert bool(table.problems) == bool(damaged) or not kept
    for number in damaged:
        assert str(number) in table.problems[0]
    path.write_bytes(bytes(content[: len(content) - len(torn)]) + encode_rows([episode(77)]))
    table.refresh()
    assert numbers_of(table) == [*kept, 77]
