"""Segments: events come back as they were; a cut gives a prefix, and no flipped bit goes unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from stoker.errors import ConfigError, JournalBroken, RunBroken
from stoker.journal import (
    DatasetGiven,
    EpisodeEnded,
    EpisodeStarted,
    JournalEvent,
    Optimized,
    SegmentEncoder,
    SegmentHeader,
    SegmentReader,
    StreamEnded,
    StreamMoved,
    codec,
    segment_name,
)
from stoker.journal.header import VERSION
from stoker.journal.segments import MAGIC, frame, parse_segment_name
from stoker.lru import MAX_ACTORS
from stoker.stats import EpisodeRecord
from stoker.types import EpisodeStatus, Experience

CONTINUING, TERMINATED = EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED
HEADER = SegmentHeader(attempt=1, first_event=0, total_steps=0, agent_type="DQN", opt_interval=1)


def as_bytes(event: Any) -> bytes:
    """All that an event holds, types too, so that events can be compared."""
    return codec.encode(_plain(event))


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return [type(value).__name__, *(_plain(getattr(value, name)) for name in value.__struct_fields__)]
    return value.value if isinstance(value, EpisodeStatus) else value


def encoded(events: list[JournalEvent], header: SegmentHeader = HEADER) -> bytes:
    encoder = SegmentEncoder()
    return encoder.begin(header) + encoder.encode_all(events)


def write(directory: Path, data: bytes, attempt: int = 1, first_event: int = 0) -> Path:
    path = directory / segment_name(attempt, first_event)
    path.write_bytes(data)
    return path


def read(path: Path) -> Iterator[JournalEvent]:
    """The events up to the end or a torn tail; damage is an error."""
    reader = SegmentReader(path)
    yield from reader.events()
    if reader.damage is not None:
        raise JournalBroken(path, reader.damage)


def read_header(path: Path) -> SegmentHeader | None:
    return SegmentReader(path).read_header()


def events_in(path: Path) -> list[bytes]:
    return [as_bytes(event) for event in read(path)]


@st.composite
def histories(draw: st.DrawFn) -> list[JournalEvent]:
    """What a session may consume: interleaved actors that go on from, repeat or jump between observations."""
    observations = [
        *(np.full(2, i, np.float32) for i in range(3)),
        np.full(2, 0, np.float32),
        np.zeros((2, 1), np.float32),
        np.zeros(2, np.int32),
        0,
        False,
        (np.zeros(2),),
        {"a": 1.0},
        None,
    ]
    actors: Any = st.sampled_from([0, 1, "0", "other"])
    counts = st.none() | st.integers(0, 2**63 - 1)
    seen: dict[Any, Any] = {}
    events: list[JournalEvent] = []
    for _ in range(draw(st.integers(0, 12))):
        actor = draw(actors)
        match draw(st.integers(0, 14)):
            case 12:
                seen[actor] = draw(st.sampled_from(observations))
                events.append(EpisodeStarted(actor, None, draw(st.integers(0, 9)), seen[actor]))
            case 13:
                moved = draw(st.integers(0, 9)), draw(st.sampled_from(observations)), 1.5, 3
                score = draw(st.none() | st.just(EpisodeRecord(1.5, 3, EpisodeStatus.TRUNCATED, {"a": 0.5})))
                events.append(StreamMoved(actor, *moved, score))
            case 14:
                events.append(StreamEnded(actor))
            case 10:
                events.append(Optimized(draw(st.integers(1, 2**40))))
            case 11:
                events.append(DatasetGiven(draw(st.integers(1, 9)), "ab" * 32))
            case 0:
                events.append(EpisodeStarted(actor, draw(st.none() | st.integers(0, 9))))
            case 1:
                extras = {"epsilon": 0.5} if draw(st.booleans()) else {}
                events.append(EpisodeEnded(EpisodeRecord(1.0, 3, TERMINATED, extras), actor))
            case _:
                goes_on = actor in seen and draw(st.integers(0, 3)) > 0
                observation = seen[actor] if goes_on else draw(st.sampled_from(observations))
                following = draw(st.sampled_from(observations))
                seen[actor] = following
                events.append(
                    Experience(
                        observation,
                        draw(st.sampled_from([0, np.int64(1), np.zeros(1)])),
                        draw(st.floats(allow_nan=False)),
                        following,
                        draw(st.sampled_from(EpisodeStatus)),
                        actor,
                        draw(st.sampled_from([None, (0.5, 3), {"log_prob": np.float32(-1)}])),
                        draw(counts),
                        draw(counts),
                    )
                )
    return events


@given(histories())
def test_events_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, history: list[JournalEvent]
) -> None:
    path = tmp_path_factory.mktemp("journal") / segment_name(1, 0)
    path.write_bytes(encoded(history))
    assert events_in(path) == [as_bytes(event) for event in history]


@pytest.mark.parametrize(
    "between",
    [
        StreamMoved(0, 5, np.zeros(2), 1.0, 1),
        StreamEnded(0),
        EpisodeStarted(0, 3),
        EpisodeStarted(0, 3, 5, np.zeros(2)),
        EpisodeEnded(EpisodeRecord(1.0, 3, TERMINATED, {}), 0),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_observation_from_before_another_event_of_its_actor_comes_back(
    tmp_path: Path, between: JournalEvent
) -> None:
    here, there = np.ones(2), np.full(2, 2.0)
    events = [
        Experience(here, 0, 0.0, there, CONTINUING),
        between,
        Experience(there, 0, 0.0, here, CONTINUING),
    ]
    assert events_in(write(tmp_path, encoded(events))) == [as_bytes(event) for event in events]


def test_a_scalar_and_an_array_without_axes_stay_apart(tmp_path: Path) -> None:
    scalar, array = np.float32(1), np.array(1, np.float32)
    events: list[JournalEvent] = [
        Experience(scalar, 0, 0.0, scalar, CONTINUING),
        Experience(array, 0, 0.0, array, CONTINUING),
        Experience(scalar, 0, 0.0, scalar, CONTINUING),
    ]
    assert events_in(write(tmp_path, encoded(events))) == [as_bytes(event) for event in events]


def test_events_may_be_encoded_one_by_one_or_together() -> None:
    events = episode(0, 5) + episode("b", 3)
    encoder = SegmentEncoder()
    data = encoder.begin(HEADER)
    one_by_one = [encoder.encode_all([event]) for event in events]
    assert data + b"".join(one_by_one) == encoded(events)


def episode(actor: Any, steps: int, offset: float = 0.0) -> list[JournalEvent]:
    observations = [np.array([offset, i, 0.5], np.float32) for i in range(steps + 1)]
    transitions: list[JournalEvent] = [
        Experience(before, 1, 1.0, after, TERMINATED if i == steps - 1 else CONTINUING, actor)
        for i, (before, after) in enumerate(pairwise(observations))
    ]
    return [
        EpisodeStarted(actor, 7),
        *transitions,
        EpisodeEnded(EpisodeRecord(float(steps), steps, TERMINATED), actor),
    ]


def test_an_observation_that_goes_on_is_stored_once() -> None:
    size = 10_000
    observations = [np.full(size, i, np.uint8) for i in range(5)]
    same = [Experience(observations[i], 0, 0.0, observations[i + 1], CONTINUING) for i in range(4)]
    equal = [Experience(observations[i].copy(), 0, 0.0, observations[i + 1], CONTINUING) for i in range(4)]
    for events in (same, equal):
        assert 5 * size < len(encoded(list(events))) < 5 * size + 1000


def test_an_array_that_is_written_to_again_is_no_mistake(tmp_path: Path) -> None:
    buffer = np.zeros(3)
    encoder = SegmentEncoder()
    data = encoder.begin(HEADER)
    expected: list[bytes] = []
    for step in range(4):
        event = Experience(buffer, 0, 0.0, buffer, CONTINUING)
        buffer += step
        expected.append(as_bytes(event))
        data += encoder.encode_all([event])
    assert events_in(write(tmp_path, data)) == expected


def test_the_reader_gives_an_observation_that_goes_on_as_one_object(tmp_path: Path) -> None:
    events = list(read(write(tmp_path, encoded(episode(0, 3)))))
    first, second = events[1], events[2]
    assert isinstance(first, Experience)
    assert isinstance(second, Experience)
    assert second.observation is first.next_observation


def test_the_first_observation_of_a_numbered_episode_is_stored_once(tmp_path: Path) -> None:
    first, after = np.zeros(1000), np.ones(1)
    events: list[JournalEvent] = [
        EpisodeStarted("a", None, 1, first),
        Experience(first.copy(), 0, 1.0, after, CONTINUING, "a", seq=2),
    ]
    data = encoded(events)
    assert len(data) < 1.5 * first.nbytes
    started, moved = read(write(tmp_path, data))
    assert isinstance(started, EpisodeStarted)
    assert isinstance(moved, Experience)
    assert moved.observation is started.observation
    assert as_bytes(moved) == as_bytes(events[1])


def test_events_of_more_actors_than_are_remembered_come_back(tmp_path: Path) -> None:
    encoder = SegmentEncoder()
    data = [encoder.begin(HEADER)]
    observations = [np.full(1, float(i)) for i in range(3)]
    events: list[JournalEvent] = []
    for before, after in pairwise(observations):
        for actor in range(MAX_ACTORS + 50):  # actor 0 is active all the time, actor 1 is forgotten
            others = [Experience(after, 0, 0.0, after, CONTINUING, 0)] if actor % 1_000 == 999 else []
            events += [Experience(before, 0, 0.0, after, CONTINUING, actor), *others]
    data += [encoder.encode_all([event]) for event in events]
    assert encoder._recent is not None
    assert len(encoder._recent) == MAX_ACTORS
    assert events_in(write(tmp_path, b"".join(data))) == [as_bytes(event) for event in events]
    for actor in range(MAX_ACTORS + 50):
        encoder.encode_all([EpisodeStarted(actor)])
    assert not encoder._recent


FAR = [2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**200, -(2**63), -(2**63) - 1, -(2**200)]


@pytest.mark.parametrize("number", FAR)
def test_integers_of_any_size_come_back_wherever_they_are(tmp_path: Path, number: int) -> None:
    other = number + 1  # their low 64 bits must not be taken for each other's
    observation, after = np.zeros(2), np.ones(2)
    events: list[JournalEvent] = [
        EpisodeStarted(number, number),
        EpisodeStarted(other),
        Experience(observation, number, number, after, CONTINUING, number, {number: [number]}),
        Experience(number, 0, 0.0, other, CONTINUING, other),
        Experience(after, 0, 0.0, observation, TERMINATED, number),
        Experience(other, 0, 0.0, number, TERMINATED, other),
        EpisodeEnded(EpisodeRecord(1.0, number, TERMINATED, {"seed": number}), number),
    ]
    path = write(tmp_path, encoded(events))
    assert events_in(path) == [as_bytes(event) for event in events]
    again = [event for event in read(path) if isinstance(event, Experience)]
    assert again[2].observation is again[0].next_observation, "stored once, for this very actor"


@pytest.mark.skipif(not Path("/proc/thread-self/io").exists(), reason="nobody counts what is read")
def test_a_header_is_read_without_what_follows(tmp_path: Path) -> None:
    def n_read() -> int:
        return int(Path("/proc/thread-self/io").read_text().split()[1])

    events: list[JournalEvent] = [Experience(np.zeros(500_000), 0, 0.0, 0, CONTINUING)] * 2
    small = write(tmp_path, encoded(events))
    large_header = SegmentHeader(
        attempt=1,
        first_event=9,
        total_steps=9,
        agent_type="DQN",
        opt_interval=1,
        rebuild=np.arange(60_000, dtype=np.uint8),
    )
    large = write(tmp_path, encoded(events, large_header), 1, 9)
    for path, most in ((small, 200_000), (large, 400_000)):
        before = n_read()
        header = read_header(path)
        assert n_read() - before < most
        assert header is not None
    assert as_bytes(header) == as_bytes(large_header)


def test_records_are_counted_and_measured_without_the_rest(tmp_path: Path) -> None:
    for cut in range(len(WHOLE) + 1):
        reader = SegmentReader(write(tmp_path, WHOLE[:cut]))
        assert [reader.whole_bytes for _ in reader.records()] == [end for end in ENDS[1:] if end <= cut]


def test_a_header_comes_back_with_its_rebuild_point(tmp_path: Path) -> None:
    rebuild = {"sums": torch.ones(2), "counts": np.arange(3), "n": 2**100, "pairs": [(1, 2.0)]}
    header = SegmentHeader(
        attempt=2, first_event=70, total_steps=60, agent_type="DQN", opt_interval=4, rebuild=rebuild
    )
    again = read_header(write(tmp_path, encoded([], header), 2, 70))
    assert again is not None
    assert as_bytes(again) == as_bytes(header)


def test_a_new_segment_needs_no_other_one(tmp_path: Path) -> None:
    events = episode(0, 6)
    encoder = SegmentEncoder()
    encoder.begin(HEADER)
    encoder.encode_all(events[:4])
    header = SegmentHeader(attempt=1, first_event=4, total_steps=3, agent_type="DQN", opt_interval=1)
    data = encoder.begin(header) + encoder.encode_all(events[4:])
    assert events_in(write(tmp_path, data, 1, 4)) == [as_bytes(event) for event in events[4:]]


@pytest.mark.parametrize(
    ("event", "where"),
    [
        (Experience(object(), 0, 0.0, 0, CONTINUING), "observation is a builtins.object"),
        (Experience(0, 0, 0.0, {"a": {1}}, CONTINUING), r"next_observation\['a'\] is a builtins.set"),
        (Experience(0, 0, 0.0, 0, CONTINUING, 0, [{1}]), r"policy_extras\[0\] is a builtins.set"),
    ],
)
def test_an_event_that_cannot_be_held_is_refused_and_ends_the_segment(
    event: JournalEvent, where: str
) -> None:
    encoder = SegmentEncoder()
    with pytest.raises(RuntimeError, match="begin"):
        encoder.encode_all([EpisodeStarted(0)])
    encoder.begin(HEADER)
    with pytest.raises(ConfigError, match=where):
        encoder.encode_all([*episode(0, 3), event])
    with pytest.raises(RuntimeError, match="begin"):
        encoder.encode_all([EpisodeStarted(0)])
    encoder.begin(HEADER)
    assert encoder.encode_all([EpisodeStarted(0)])


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("0001-000000000000.journal", (1, 0)),
        ("0012-000000345678.journal", (12, 345678)),
        ("12345-1234567890123.journal", (12345, 1234567890123)),
        ("00001-000000000000.journal", None),
        ("0001-000000000000.journal.torn", None),
        (".0001-000000000000.journal.1.tmp", None),
        ("0001-0.journal", None),
        ("\u0660\u0660\u0660\u0661-000000000000.journal", None),
    ],
)
def test_names_say_attempt_and_first_event(name: str, parsed: tuple[int, int] | None) -> None:
    assert parse_segment_name(name) == parsed
    if parsed is not None:
        assert segment_name(*parsed) == name


# Damage -------------------------------------------------------------------------------------------

EVENTS = episode(0, 3)
WHOLE = encoded(EVENTS)
EXPECTED = [as_bytes(event) for event in EVENTS]
ENDS = [len(encoded(EVENTS[:n])) for n in range(len(EVENTS) + 1)]
"""Where the header ends, then each event."""


@pytest.mark.parametrize("filler", [b"", b"\0" * 50, b"\0" * 3_000_000])
def test_each_cut_gives_a_prefix_whatever_fills_the_rest(tmp_path: Path, filler: bytes) -> None:
    step = 1 if len(filler) < 100 else 40
    for cut in range(0, len(WHOLE) + 1, step):
        path = write(tmp_path, WHOLE[:cut] + filler)
        # A record that lacks only zeros is whole again.
        n_whole = sum(end <= cut or (bool(filler) and not any(WHOLE[cut:end])) for end in ENDS[1:])
        assert events_in(path) == EXPECTED[:n_whole]
        assert (read_header(path) is None) == (cut < ENDS[0])


def test_each_cut_is_measured_and_not_damage(tmp_path: Path) -> None:
    for cut in range(len(WHOLE) + 1):
        reader = SegmentReader(write(tmp_path, WHOLE[:cut]))
        assert len(list(reader.events())) == sum(end <= cut for end in ENDS[1:])
        kept = max([end for end in ENDS if end <= cut], default=0)
        assert (reader.whole_bytes, reader.torn_bytes, reader.damage) == (kept, cut - kept, None)


@pytest.mark.parametrize(
    "tail", [b"\0" * 100, MAGIC + b"\0" * 50, MAGIC * 20, frame(b"abc")[:-1], frame(b"abc"), b"\xff" * 64]
)
def test_a_tail_without_a_record_is_torn(tmp_path: Path, tail: bytes) -> None:
    reader = SegmentReader(write(tmp_path, WHOLE + b"\xf5" + tail))
    assert [as_bytes(event) for event in reader.events()] == EXPECTED
    assert (reader.torn_bytes, reader.damage) == (1 + len(tail), None)


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    last = ENDS[-2]
    for bit in range(8 * len(WHOLE)):
        data = bytearray(WHOLE)
        data[bit // 8] ^= 1 << bit % 8
        path = write(tmp_path, bytes(data))
        n_before = sum(end <= bit // 8 for end in ENDS[1:])
        found: list[bytes] = []
        if bit // 8 >= last:  # nothing follows: it cannot be told from a torn tail
            assert events_in(path) == EXPECTED[:-1]
            continue
        with pytest.raises(JournalBroken, match="damaged, records follow"):
            for event in read(path):
                found.append(as_bytes(event))
        assert found == EXPECTED[:n_before]


def test_damage_is_named_by_its_bytes(tmp_path: Path) -> None:
    data = bytearray(WHOLE)
    data[ENDS[1] + 12] ^= 1
    with pytest.raises(JournalBroken, match=f"bytes {ENDS[1]} to {ENDS[2] - 1} are damaged"):
        list(read(write(tmp_path, bytes(data))))


def test_long_records_are_read(tmp_path: Path) -> None:
    big = np.arange(900_000, dtype=np.int32)
    events: list[JournalEvent] = [
        Experience(big + i, 0, 0.0, big - i, CONTINUING, i, {"i": i}) for i in range(3)
    ]
    data = encoded(events)
    assert events_in(write(tmp_path, data)) == [as_bytes(event) for event in events]
    assert len(events_in(write(tmp_path, data[:-1]))) == 2


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (encoded([])[: ENDS[0]] + encoded([])[: ENDS[0]], "a header among the events"),
        (WHOLE[ENDS[0] :], "first record is not a header"),
        (encoded([], msgspec.structs.replace(HEADER, first_event=5)), "the file was renamed"),
        (encoded([], msgspec.structs.replace(HEADER, attempt=5)), "the file was renamed"),
        (WHOLE[: ENDS[0]] + WHOLE[ENDS[2] :], "cannot be read"),
        (WHOLE + frame(b"\x90"), "no record"),
        (WHOLE + frame(b"not msgpack"), "cannot be read"),
    ],
)
def test_records_that_make_no_sense_are_named(tmp_path: Path, data: bytes, problem: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(JournalBroken, match=problem) as caught:
        list(read(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("version", [1, VERSION - 1, VERSION + 1])
def test_a_segment_of_another_format_is_refused(tmp_path: Path, version: int) -> None:
    path = write(tmp_path, encoded(EVENTS, msgspec.structs.replace(HEADER, version=version)))
    for open_it in (lambda: list(read(path)), lambda: read_header(path)):
        with pytest.raises(RunBroken, match=f"journal format {version}, and this stoker reads") as caught:
            open_it()
        assert str(path) in str(caught.value)


def test_a_header_keeps_the_settings_of_its_attempt(tmp_path: Path) -> None:
    settings = {"learning_rate": 0.1 + 0.2, "hidden_sizes": [64, 64], "tau": None, "network": "mlp"}
    header = msgspec.structs.replace(HEADER, agent=settings, max_opts=9, torch_threads=3)
    again = read_header(write(tmp_path, encoded([], header)))
    assert again is not None
    assert as_bytes(again) == as_bytes(header)
    with pytest.raises(ConfigError, match=r"agent\['device'\] is a builtins.object"):
        encoded([], msgspec.structs.replace(HEADER, agent={"device": object()}))


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalBroken, match="0001-000000000000.journal: cannot be read"):
        list(read(tmp_path / segment_name(1, 0)))
