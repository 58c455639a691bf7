"""The journal of a run: which events count over several attempts, and what is missing or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from stoker.errors import JournalBroken
from stoker.journal import (
    EpisodeStarted,
    Journal,
    JournalEvent,
    SegmentEncoder,
    SegmentHeader,
    segment_name,
)
from stoker.types import EpisodeStatus, Experience

Starts = list[tuple[int, int]]
Files = list[tuple[int, int, int]]
"""Attempt, first event, number of events."""


def event(attempt: int, number: int) -> JournalEvent:
    """One that says who wrote it and where; every third is no experience."""
    if number % 3 == 2:
        return EpisodeStarted(attempt, number)
    return Experience(number, attempt, 0.0, number + 1, EpisodeStatus.CONTINUING)


def steps_before(number: int) -> int:
    return number - number // 3


def segment_bytes(attempt: int, first: int, count: int) -> bytes:
    encoder = SegmentEncoder()
    header = SegmentHeader(
        attempt=attempt, first_event=first, total_steps=steps_before(first), agent_type="DQN", opt_interval=1
    )
    return encoder.begin(header) + encoder.encode_all(event(attempt, first + i) for i in range(count))


def journal(directory: Path, files: Files, starts: Starts) -> Journal:
    for attempt, first, count in files:
        (directory / segment_name(attempt, first)).write_bytes(segment_bytes(attempt, first, count))
    return Journal(directory, starts)


def writer_of(found: JournalEvent) -> tuple[int, int]:
    """The attempt and the number that ``event`` put in."""
    if isinstance(found, Experience):
        return found.action, found.observation
    assert isinstance(found, EpisodeStarted)
    assert isinstance(found.actor_id, int)
    assert found.seed is not None
    return found.actor_id, found.seed


def attempts_of(journal: Journal, first: int, last: int) -> list[int]:
    """Who wrote each event; the numbers are as asked for."""
    found = list(journal.read(first, last))
    assert [number for number, _ in found] == list(range(first, last))
    assert [writer_of(event)[1] for _, event in found] == list(range(first, last))
    return [writer_of(event)[0] for _, event in found]


def problems_of(journal: Journal) -> list[tuple[str, str]]:
    return [(path.name, problem) for path, problem in journal.check().problems]


@pytest.mark.parametrize(
    ("files", "starts", "writers"),
    [
        ([(1, 0, 6)], [(1, 0)], "111111"),
        ([(1, 0, 3), (1, 3, 3)], [(1, 0)], "111111"),
        # A resume at 4 abandons 4 and 5 of the first attempt.
        ([(1, 0, 6), (2, 4, 4)], [(1, 0), (2, 4)], "11112222"),
        # The abandoned future may go further than the present.
        ([(1, 0, 9), (2, 4, 2)], [(1, 0), (2, 4)], "111122"),
        # Whole segments of it are abandoned.
        ([(1, 0, 3), (1, 3, 3), (1, 6, 3), (2, 4, 1)], [(1, 0), (2, 4)], "11112"),
        # A third attempt goes back behind the second one.
        ([(1, 0, 6), (2, 4, 4), (3, 2, 3)], [(1, 0), (2, 4), (3, 2)], "11333"),
        # ... or on from where the second one was.
        ([(1, 0, 6), (2, 4, 4), (3, 6, 1)], [(1, 0), (2, 4), (3, 6)], "1111223"),
        # The second one did nothing: no file, or one that holds nothing.
        ([(1, 0, 6), (3, 4, 2)], [(1, 0), (2, 4), (3, 4)], "111133"),
        ([(1, 0, 6), (2, 4, 0), (3, 4, 2)], [(1, 0), (2, 4), (3, 4)], "111133"),
        # Resumed and nothing done yet.
        ([(1, 0, 6)], [(1, 0), (2, 4)], "1111"),
        # From the start again.
        ([(1, 0, 6), (2, 0, 3)], [(1, 0), (2, 0)], "222"),
        # Files of an attempt that the run does not know of.
        ([(1, 0, 3), (7, 1, 9)], [(1, 0)], "111"),
        ([], [(1, 0)], ""),
    ],
)
def test_the_events_that_count(tmp_path: Path, files: Files, starts: Starts, writers: str) -> None:
    expected = [int(writer) for writer in writers]
    found = journal(tmp_path, files, starts)
    end = len(expected)
    assert found.n_events() == end
    assert found.leads_from(found.n_events()) == (0 if expected else None)
    for first in range(end + 1):
        for last in range(first, end + 1):
            assert attempts_of(found, first, last) == expected[first:last]
    with pytest.raises(JournalBroken, match=f"{end}"):
        list(found.read(0, end + 1))
    report = found.check(range(end + 2))
    assert report.torn_bytes == 0
    if expected:
        assert report.steps_before == {n: steps_before(n) for n in range(end + 1)}
    assert len(report.problems) == sum(attempt == 7 for attempt, _, _ in files)


@given(st.data())
def test_the_events_that_count_are_those_of_the_last_who_came_by(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    model: list[int] = []
    starts: Starts = []
    files: Files = []
    for attempt in range(1, data.draw(st.integers(1, 4)) + 1):
        start = data.draw(st.integers(0, len(model)))
        starts.append((attempt, start))
        del model[start:]
        for count in data.draw(st.lists(st.integers(1, 4), max_size=3)):
            files.append((attempt, len(model), count))
            model += [attempt] * count
    found = journal(directory, files, starts)
    assert found.n_events() == len(model)
    assert attempts_of(found, 0, len(model)) == model
    report = found.check(range(len(model) + 2))
    assert report.problems == []
    if model:
        assert list(report.steps_before) == list(range(len(model) + 1))
    # What is doomed is not missed, and nothing else could go.
    needed = data.draw(st.integers(0, len(model)))
    for path in found.doomed(needed):
        path.unlink()
    assert attempts_of(found, needed, len(model)) == model[needed:]
    assert found.doomed(needed) == []
    assert found.check().problems == []


@pytest.mark.parametrize(
    ("files", "starts", "leads"),
    [
        # What leads to events 0, 1, 2, ...; "." where nothing does.
        ([(1, 0, 6)], [(1, 0)], ".000000."),
        ([(1, 0, 3), (1, 3, 3)], [(1, 0)], ".000000."),
        ([(1, 0, 6), (2, 4, 3)], [(1, 0), (2, 4)], ".0000000."),
        # The beginning was pruned.
        ([(1, 2, 2), (1, 4, 2)], [(1, 0)], "...2222."),
        # Attempt 2 had no journal, and went on from 3 to 5; then one that has one again.
        ([(1, 0, 4)], [(1, 0), (2, 3), (3, 5)], ".000..."),
        ([(1, 0, 4), (3, 5, 3)], [(1, 0), (2, 3), (3, 5)], ".000..555."),
        ([(1, 0, 4), (3, 5, 2), (3, 7, 2)], [(1, 0), (2, 3), (3, 5)], ".000..5555."),
        ([(1, 0, 4), (3, 5, 2), (4, 7, 1)], [(1, 0), (2, 3), (3, 5), (4, 7)], ".000..555."),
        # It went back behind the hole.
        ([(1, 0, 4), (3, 5, 2), (4, 2, 2)], [(1, 0), (2, 3), (3, 5), (4, 2)], ".0000."),
        # The last segment of attempt 1 does not reach where attempt 2 begins.
        ([(1, 0, 2), (1, 2, 1), (2, 5, 2)], [(1, 0), (2, 5)], ".000..55."),
        # It does, before what was abandoned.
        ([(1, 0, 3), (1, 3, 3), (2, 2, 2)], [(1, 0), (2, 2)], ".0000."),
        # It says that it was followed, but its successor holds nothing.
        ([(1, 0, 3), (1, 3, 0), (2, 3, 2)], [(1, 0), (2, 3)], ".00000."),
        ([(1, 0, 3), (1, 3, 0), (2, 4, 2)], [(1, 0), (2, 4)], ".000.44."),
        # From a checkpoint without a history.
        ([(3, 4, 2)], [(1, 0), (2, 2), (3, 4)], ".....44."),
        ([], [(1, 0), (2, 3)], "....."),
    ],
)
def test_from_where_events_lead_gaplessly_to_one(
    tmp_path: Path, files: Files, starts: Starts, leads: str
) -> None:
    found = journal(tmp_path, files, starts)
    expected = [None if lead == "." else int(lead) for lead in leads]
    assert [found.leads_from(event) for event in range(len(leads))] == expected
    for event, first in enumerate(expected):
        if first is not None:
            attempts_of(found, first, event)


def test_a_segment_that_cannot_be_read_leads_nowhere(tmp_path: Path) -> None:
    found = journal(tmp_path, [(1, 0, 3), (1, 3, 3), (1, 6, 3)], [(1, 0)])
    path = tmp_path / segment_name(1, 3)
    data = bytearray(path.read_bytes())
    data[15] ^= 1  # in its header
    path.write_bytes(data)
    assert [found.leads_from(event) for event in (2, 3, 4, 6, 7, 9)] == [0, 0, None, None, 6, 6]
    (tmp_path / segment_name(1, 9)).write_bytes(b"")
    assert [found.leads_from(event) for event in (9, 10)] == [6, None]
    (tmp_path / segment_name(1, 6)).unlink()
    assert [found.leads_from(event) for event in (3, 6, 9)] == [0, None, None]
    assert Journal(tmp_path / "none", [(1, 0)]).leads_from(5) is None


def test_the_parts_that_hold_a_stretch(tmp_path: Path) -> None:
    # Attempt 2 left what it had from 7 on, attempt 1 what it had from 4 on.
    files = [(1, 0, 3), (1, 3, 3), (2, 4, 5), (3, 7, 4)]
    found = journal(tmp_path, files, [(1, 0), (2, 4), (3, 7)])
    whole = {name: (tmp_path / segment_name(*name), None) for name in ((1, 0), (1, 3), (2, 4), (3, 7))}
    assert found.parts(0, 7) == [whole[1, 0], whole[1, 3], whole[2, 4]]
    assert found.parts(3, 4) == [whole[1, 3]]
    for last in range(8, 11):
        path, size = found.parts(5, last)[1]
        assert path == tmp_path / segment_name(3, 7)
        assert size is not None
        assert path.read_bytes()[:size] == segment_bytes(3, 7, last - 7)
    assert found.parts(5, 99) == [whole[2, 4], whole[3, 7]], "so many there are not"
    assert found.parts(5, 5) == []


def test_headers_are_those_of_segments_that_count(tmp_path: Path) -> None:
    files = [(1, 0, 3), (1, 3, 3), (1, 6, 3), (2, 4, 1)]
    found = journal(tmp_path, files, [(1, 0), (2, 4)])
    (tmp_path / segment_name(2, 5)).write_bytes(b"")
    headers = [(header.attempt, header.first_event) for header in found.headers()]
    assert headers == [(1, 0), (1, 3), (2, 4)]


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    found = journal(tmp_path, [(1, 0, 3)], [(1, 0)])
    for name in ("0001-000000000003.journal.torn", "notes.txt", ".0001-000000000003.journal.1.2.tmp"):
        (tmp_path / name).write_bytes(b"x")
    assert [segment.path.name for segment in found.segments()] == [segment_name(1, 0)]
    assert Journal(tmp_path / "none", [(1, 0)]).segments() == []


# What may be removed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needed", "doomed"),
    [
        (0, []),
        (2, []),
        (3, [(1, 0)]),
        # (1, 6) lies in the future that attempt 2 abandoned by going back to 5.
        (5, [(1, 0), (1, 3)]),
        (7, [(1, 0), (1, 3), (1, 6)]),
        (8, [(1, 0), (1, 3), (1, 6), (2, 5)]),
        (99, [(1, 0), (1, 3), (1, 6), (2, 5)]),
    ],
)
def test_what_may_be_removed(tmp_path: Path, needed: int, doomed: list[tuple[int, int]]) -> None:
    files = [(1, 0, 3), (1, 3, 3), (1, 6, 3), (2, 5, 3), (2, 8, 2), (9, 0, 1)]
    found = journal(tmp_path, files, [(1, 0), (2, 5)])
    assert found.doomed(needed) == [tmp_path / segment_name(*name) for name in doomed]


# What is missing or damaged -----------------------------------------------------------------------

FILES: Files = [(1, 0, 4), (1, 4, 4), (1, 8, 4)]


def test_a_segment_that_is_gone_is_missed_by_those_who_need_it(tmp_path: Path) -> None:
    found = journal(tmp_path, FILES, [(1, 0)])
    (tmp_path / segment_name(1, 4)).unlink()
    assert attempts_of(found, 0, 4) == [1] * 4
    assert attempts_of(found, 8, 12) == [1] * 4
    with pytest.raises(JournalBroken, match=r"events 4 to 5 cannot be read"):
        list(found.read(2, 6))
    assert problems_of(found) == [(segment_name(1, 0), "ends before event 4: those up to 7 are missing")]


def test_a_beginning_that_was_pruned_is_missed_by_those_who_need_it(tmp_path: Path) -> None:
    found = journal(tmp_path, FILES[1:], [(1, 0)])
    assert found.leads_from(found.n_events()) == 4
    assert attempts_of(found, 4, 12) == [1] * 8
    with pytest.raises(JournalBroken, match=r"events 0 to 3 are missing"):
        list(found.read(0, 6))
    report = found.check([3, 4, 7, 12, 13])
    assert report.problems == []
    assert report.steps_before == {n: steps_before(n) for n in (4, 7, 12)}


def test_a_gap_between_attempts_is_found(tmp_path: Path) -> None:
    found = journal(tmp_path, [(1, 0, 4), (2, 5, 2)], [(1, 0), (2, 3)])
    assert found.leads_from(found.n_events()) == 5
    with pytest.raises(JournalBroken, match=r"events 3 to 4 are missing"):
        list(found.read(0, 6))
    assert problems_of(found) == [(segment_name(2, 5), "begins at event 5: those from 3 are missing")]


def test_a_torn_tail_is_no_damage_until_it_is_needed(tmp_path: Path) -> None:
    found = journal(tmp_path, FILES, [(1, 0)])
    last = tmp_path / segment_name(1, 8)
    last.write_bytes(last.read_bytes()[:-1])
    assert found.n_events() == 11
    report = found.check()
    assert report.problems == []
    assert report.torn_bytes > 0
    assert attempts_of(found, 0, 11) == [1] * 11
    with pytest.raises(JournalBroken, match=r"000000000008.journal: it ends at byte \d+: events 11 to 11"):
        list(found.read(0, 12))
    resumed = Journal(tmp_path, [(1, 0), (2, 12)])
    assert problems_of(resumed) == [(segment_name(1, 8), "ends before event 11: those up to 11 are missing")]
    assert Journal(tmp_path, [(1, 0), (2, 10)]).check().problems == []


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, segment_bytes(1, 12, 0)[:-1]])
def test_a_segment_that_was_just_begun_holds_nothing(tmp_path: Path, content: bytes) -> None:
    found = journal(tmp_path, FILES, [(1, 0)])
    (tmp_path / segment_name(1, 12)).write_bytes(content)
    assert found.n_events() == 12
    assert found.leads_from(found.n_events()) == 0
    assert attempts_of(found, 0, 12) == [1] * 12
    report = found.check([12, 13])
    assert (report.problems, report.torn_bytes) == ([], len(content))
    assert report.steps_before == {12: steps_before(12)}
    with pytest.raises(JournalBroken, match=r"000000000012.journal: it ends at byte 0"):
        list(found.read(0, 13))


def test_damage_is_reported_with_its_place_and_spares_the_other_segments(tmp_path: Path) -> None:
    found = journal(tmp_path, FILES, [(1, 0)])
    path = tmp_path / segment_name(1, 4)
    data = bytearray(path.read_bytes())
    at = len(segment_bytes(1, 4, 1)) + 12  # in event 5
    data[at] ^= 16
    path.write_bytes(bytes(data))
    assert attempts_of(found, 0, 5) == [1] * 5
    assert attempts_of(found, 8, 12) == [1] * 4
    given: list[int] = []
    with pytest.raises(JournalBroken, match=rf"000000000004.journal: bytes {at - 12} to \d+ are damaged"):
        given += (number for number, _ in found.read(0, 12))
    report = found.check([0, 5, 6, 12])
    [(damaged, problem)] = report.problems
    assert damaged == path
    assert problem.startswith(f"is damaged: bytes {at - 12} to ")
    assert report.steps_before == {n: steps_before(n) for n in (0, 5, 12)}


def test_contradictions_are_reported(tmp_path: Path) -> None:
    found = journal(tmp_path, [(1, 0, 5), (1, 4, 4)], [(1, 0)])
    [(name, problem)] = problems_of(found)
    assert (name, problem.partition(",")[0]) == (segment_name(1, 0), "continues to event 4")
    encoder = SegmentEncoder()
    wrong = SegmentHeader(attempt=1, first_event=8, total_steps=99, agent_type="DQN", opt_interval=1)
    (tmp_path / segment_name(1, 0)).write_bytes(segment_bytes(1, 0, 4))
    (tmp_path / segment_name(1, 8)).write_bytes(encoder.begin(wrong))
    [(name, problem)] = problems_of(found)
    assert (name, problem.partition(",")[0]) == (segment_name(1, 8), "says that 99 steps came before it")
