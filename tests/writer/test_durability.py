"""What was confirmed survives a power cut, and a final name never holds half a file.

The calls are recorded, and the disk is judged as a cut at any of them would leave it (``power_cuts``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from writing_parts import NEVER_S, flush, running

from power_cuts import Disk, PowerCuts
from stoker.replies import Reply
from stoker.writer import AppendLog, RowLog, files, publish_checkpoint

OLD, NEW = b"old" * 100, b"new" * 1000


@pytest.fixture
def cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PowerCuts]:
    (tmp_path / "there").write_bytes(OLD)
    cuts = PowerCuts(tmp_path, monkeypatch)
    yield cuts
    cuts.close()


def test_a_published_file_is_the_old_one_or_the_new_one_and_then_the_new_one(cuts: PowerCuts) -> None:
    path = cuts.root / "there"
    found: list[bytes | None] = []
    cuts.at_each = lambda disk: found.append(disk.read(path))
    files.write_atomically(path, lambda file: file.write(NEW))
    assert {*found} == {OLD, NEW}
    assert cuts.sure().read(path) == NEW


def test_a_file_in_directories_that_were_made_for_it_stays(cuts: PowerCuts) -> None:
    path = cuts.root / "a" / "b" / "c"
    files.make_directory(path.parent)
    files.write_atomically(path, lambda file: file.write(NEW))
    assert cuts.sure().read(path) == NEW


def test_a_second_name_is_the_old_file_or_the_new_one_and_then_the_new_one(cuts: PowerCuts) -> None:
    source, path = cuts.root / "step_2.pt", cuts.root / "there"
    files.write_atomically(source, lambda file: file.write(NEW))
    found: list[bytes | None] = []
    cuts.at_each = lambda disk: found.append(disk.read(path))
    files.link_atomically(source, path)
    assert {*found} == {OLD, NEW}
    assert cuts.sure().read(path) == NEW


def test_what_is_moved_aside_stays_aside(cuts: PowerCuts) -> None:
    path = cuts.root / "there"
    aside = files.move_aside(path, ".abandoned")
    assert (cuts.sure().read(path), cuts.sure().read(aside)) == (None, OLD)


def test_what_is_cut_off_is_in_the_file_or_beside_it_and_then_beside_it(cuts: PowerCuts) -> None:
    path, aside = cuts.root / "there", cuts.root / "there.torn"
    n_cuts = 0

    def nothing_is_lost(disk: Disk) -> None:
        nonlocal n_cuts
        n_cuts += 1
        assert disk.read(path) == OLD or (disk.read(path) == OLD[:10] and disk.read(aside) == OLD[10:])

    cuts.at_each = nothing_is_lost
    files.cut_at(path, 10)
    assert n_cuts
    assert (cuts.sure().read(path), cuts.sure().read(aside)) == (OLD[:10], OLD[10:])


def test_a_published_directory_is_whole(cuts: PowerCuts) -> None:
    directory = cuts.root / "exports" / "policy"
    files.publish_directory(directory, {"a": OLD, "b": NEW})
    found: list[tuple[bytes | None, bytes | None]] = []
    cuts.at_each = lambda disk: found.append((disk.read(directory / "a"), disk.read(directory / "b")))
    assert (cuts.sure().read(directory / "a"), cuts.sure().read(directory / "b")) == (OLD, NEW)
    files.publish_directory(directory, {"a": NEW, "b": OLD})
    assert {*found} <= {(OLD, NEW), (None, None), (NEW, OLD)}, "for a moment it may be under another name"
    assert (cuts.sure().read(directory / "a"), cuts.sure().read(directory / "b")) == (NEW, OLD)


@pytest.mark.parametrize("name", ["one", "one/part"])
def test_what_was_staged_is_whole_under_its_final_name(cuts: PowerCuts, name: str) -> None:
    path = cuts.root / "exports" / "policy.onnx"
    found: list[bytes | None] = []
    cuts.at_each = lambda disk: found.append(disk.read(path / "part" if "/" in name else path))
    with files.staged(path) as beside:
        if "/" in name:
            beside.mkdir()
        (beside / "part" if "/" in name else beside).write_bytes(NEW)
    assert {*found} == {None, NEW}
    assert cuts.sure().read(path / "part" if "/" in name else path) == NEW


def test_a_log_whose_sync_has_returned_stays(cuts: PowerCuts) -> None:
    log = AppendLog(cuts.root / "log")
    log.write(OLD)
    log.sync()
    assert cuts.sure().read(log.path) == OLD
    log.write(NEW)
    log.close()
    assert cuts.sure().read(log.path) == OLD + NEW


@pytest.mark.anyio
async def test_a_job_begins_when_a_cut_takes_nothing_of_what_was_handed_in_before(cuts: PowerCuts) -> None:
    rows, journal = RowLog(cuts.root / "rows.jsonl"), AppendLog(cuts.root / "journal")
    metadata = cuts.root / "metadata.json"
    seen: list[tuple[int, bytes | None, object]] = []

    def job() -> None:
        disk = cuts.sure()
        value = disk.read(metadata)
        lines = (disk.read(rows.path) or b"").splitlines()
        seen.append((len(lines), disk.read(journal.path), json.loads(value) if value else None))

    async with running(sync_interval_s=NEVER_S, replace_interval_s=NEVER_S) as writer:
        for number in range(3):
            await writer.append_data(journal, b"x")
            await writer.append_rows(rows, [{"k": number}])
            await writer.replace(metadata, number)
            done: Reply[None] = Reply()
            await writer.submit(job, done)
            await done.wait()
    assert seen == [(number + 1, b"x" * (number + 1), number) for number in range(3)]


@pytest.mark.anyio
async def test_a_flush_is_answered_when_a_cut_takes_no_row(cuts: PowerCuts) -> None:
    rows = RowLog(cuts.root / "rows.jsonl")
    async with running(sync_interval_s=NEVER_S) as writer:
        for number in range(3):
            await writer.append_rows(rows, [{"k": number}])
            await flush(writer)
            assert len((cuts.sure().read(rows.path) or b"").splitlines()) == number + 1


def test_a_checkpoint_is_whole_or_not_there(cuts: PowerCuts) -> None:
    path = cuts.root / "step_1.pt"
    found: list[bytes | None] = []
    cuts.at_each = lambda disk: found.append(disk.read(path))
    publish_checkpoint({"a": 1}, path)
    assert {*found} == {None, path.read_bytes()}
    assert cuts.sure().read(path) == path.read_bytes()
