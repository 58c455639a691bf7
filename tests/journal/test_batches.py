"""Batches in a segment: each row comes back to the bit, and no row costs more than a single event."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, strategies as st

from stoker.errors import ConfigError
from stoker.journal import Journal, SegmentEncoder, SegmentHeader, SegmentReader, codec, segment_name
from stoker.journal.segments import frame
from stoker.types import EpisodeStatus, Experience, ExperienceBatch

ON, TERMINATED, TRUNCATED = EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED
HEADER = SegmentHeader(attempt=1, first_event=0, total_steps=0, agent_type="DQN", opt_interval=1)


def as_bytes(event: Any) -> bytes:
    """All that a transition holds, types too."""
    *values, status = (
        getattr(event, name) for name in (*(n for n in event.__struct_fields__ if n != "status"), "status")
    )
    return codec.encode([*values, str(status)])


def encoded(steps: list[Experience]) -> bytes:
    encoder = SegmentEncoder()
    return encoder.begin(HEADER) + encoder.encode_all(steps)


def write(directory: Path, data: bytes) -> Path:
    path = directory / segment_name(1, 0)
    path.write_bytes(data)
    return path


def events_in(path: Path) -> list[bytes]:
    reader = SegmentReader(path)
    found = [as_bytes(event) for event in reader.events()]
    assert reader.damage is None
    return found


def batch_of(steps: list[Experience]) -> ExperienceBatch:
    def column(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return {key: column([value[key] for value in values]) for key in values[0]}
        return np.array(values)

    extras = [step.policy_extras for step in steps]
    return ExperienceBatch(
        column([step.observation for step in steps]),
        column([step.action for step in steps]),
        np.array([step.reward for step in steps]),
        column([step.next_observation for step in steps]),
        np.array([step.status is TERMINATED for step in steps]),
        np.array([step.status is TRUNCATED for step in steps]),
        tuple(step.actor_id for step in steps),
        None if extras[0] is None else np.array(extras),
        None if steps[0].policy_version is None else np.array([step.policy_version for step in steps]),
    )


FORMS: dict[str, Any] = {
    "arrays": lambda k: np.full((2, 2), k, np.float32),
    "scalars": lambda k: np.array(k, np.int64)[()],
    "dicts": lambda k: {"x": np.full(3, k % 2, np.uint8), "y": {"z": np.full(1, k, np.float32)}},
    "empty": lambda k: np.zeros((0, k and 3), np.float32)[:, :0],
    "signed zeros": lambda k: np.array([(0.0, -0.0, np.nan)[k % 3]]),
}
"""Observations by number."""
ACTORS = [tuple(range(9)), tuple(range(10)), (8, 7, "b") * 3, (0, 0, 1) * 4, (1,) * 8, (1, "b"), (1,)]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, list[Experience]]]:
    """Batches and single events of the same actors, who go on, end, or jump between observations."""
    make = FORMS[draw(st.sampled_from(sorted(FORMS)))]
    now: dict[Any, Any] = {}
    history: list[tuple[str, list[Experience]]] = []
    for _ in range(draw(st.integers(1, 6))):
        versions: Any = draw(st.sampled_from([st.none(), st.just(2**40), st.integers(0, 2**62)]))
        steps: list[Experience] = []
        for actor_id in draw(
            st.sampled_from(
                [tuple(range(9)), tuple(range(10)), (8, 7, "b") * 3, (0, 0, 1) * 4, (1,) * 8, (1, "b")]
            )
        ):
            known = now.get(actor_id, 0) if draw(st.integers(0, 4)) else 1
            after = draw(st.integers(0, 3))
            status = draw(st.sampled_from([ON, ON, ON, TERMINATED, TRUNCATED]))
            version = draw(versions)
            steps.append(
                Experience(make(known), 1, 0.5, make(after), status, actor_id, policy_version=version)
            )
            now[actor_id] = after
        history.append((draw(st.sampled_from(["batch", "batch", "singles"])), steps))
    return history


def encoded_history(history: list[tuple[str, list[Experience]]]) -> bytes:
    encoder = SegmentEncoder()
    data = encoder.begin(HEADER)
    for how, steps in history:
        data += encoder.encode_batch(batch_of(steps)) if how == "batch" else encoder.encode_all(steps)
    return data


@given(histories())
def test_rows_come_back_as_they_were(tmp_path_factory: Any, history: Any) -> None:
    path = write(tmp_path_factory.mktemp("journal"), encoded_history(history))
    expected = [
        as_bytes(step)
        for how, steps in history
        for step in (batch_of(steps).experiences() if how == "batch" else steps)
    ]
    assert events_in(path) == expected


@pytest.mark.parametrize(
    ("ends", "versions"),
    [
        ({2: TRUNCATED}, None),
        ({2: TERMINATED}, None),
        ({0: TERMINATED, 6: TRUNCATED}, None),
        ({}, [7] * 7),
        ({}, [7, 7, 8, 7, 7, 7, 7]),
        ({}, [7, 8, 7, 8, 7, 8, 7]),
    ],
)
def test_what_few_batches_hold_comes_back(tmp_path: Path, ends: Any, versions: list[int] | None) -> None:
    here, there = np.zeros(2, np.float32), np.ones(2, np.float32)
    steps = [
        Experience(
            here, 1, 0.5, there, ends.get(k, ON), k, policy_version=None if versions is None else versions[k]
        )
        for k in range(7)
    ]
    path = write(tmp_path, encoded_history([("batch", steps)]))
    assert events_in(path) == [as_bytes(step) for step in batch_of(steps).experiences()]


def test_an_actor_with_several_rows_keeps_each_observation(tmp_path: Path) -> None:
    """Each row begins where the same row of the batch before ended, which is not where its actor stands."""
    ids = (1,) * 8

    def batch(first: int) -> ExperienceBatch:
        steps = [
            Experience(np.array([first + k]), 1, 0.5, np.array([first + 8 + k]), ON, 1) for k in range(8)
        ]
        return msgspec.structs.replace(batch_of(steps), actor_ids=ids)

    encoder = SegmentEncoder()
    data = encoder.begin(HEADER)
    batches = [batch(0), batch(8), batch(16)]
    path = write(tmp_path, data + b"".join(map(encoder.encode_batch, batches)))
    assert events_in(path) == [as_bytes(step) for each in batches for step in each.experiences()]


def rounds(
    n_rounds: int, ids: list[Any], size: int = 4, *, autoreset: bool = False, extras: Any = None
) -> list[list[Experience]]:
    """As from CartPoles, where an episode ends now and then; with ``autoreset`` its actor skips a round."""
    rng = np.random.default_rng(0)
    now = {actor_id: rng.normal(size=size).astype(np.float32) for actor_id in ids}
    resting: set[Any] = set()
    found: list[list[Experience]] = []
    for _ in range(n_rounds):
        steps: list[Experience] = []
        for actor_id in [actor_id for actor_id in ids if actor_id not in resting]:
            after = rng.normal(size=size).astype(np.float32)
            status = TERMINATED if rng.random() < 0.05 else ON
            steps.append(
                Experience(now[actor_id], int(rng.integers(2)), 1.0, after, status, actor_id, extras)
            )
            now[actor_id] = after
        resting = {step.actor_id for step in steps if step.status is not ON}
        for actor_id in resting:
            now[actor_id] = rng.normal(size=size).astype(np.float32)
        resting = resting if autoreset else set()
        found.append(steps)
    return found


@pytest.mark.parametrize("autoreset", [False, True])
@pytest.mark.parametrize(
    "ids", [list(range(64)), list(range(5)), [1, 2], [f"env-{k}" for k in range(8)]], ids=len
)
@pytest.mark.parametrize("size", [4, 3000])
@pytest.mark.parametrize("extras", [False, True])
def test_a_row_takes_no_more_bytes_than_a_single_event(
    ids: Any, size: int, autoreset: bool, extras: bool
) -> None:
    history = rounds(40, list(ids), size, autoreset=autoreset, extras=np.zeros(4) if extras else None)
    singles = len(encoded([step for steps in history for step in steps]))
    batches = len(encoded_history([("batch", steps) for steps in history]))
    assert batches <= singles


@pytest.mark.parametrize("n_rows", [1, 2, 8, 200])
def test_several_rows_of_one_actor_take_no_more_bytes(n_rows: int) -> None:
    steps = [step for [step] in rounds(200, [7], 500)]
    parts = [steps[start : start + n_rows] for start in range(0, 200, n_rows)]
    batches = len(encoded_history([("batch", part) for part in parts]))
    assert batches <= len(encoded(steps))


def test_an_observation_that_goes_on_is_stored_once_in_batches_cut_anywhere() -> None:
    size, ids = 10_000, list(range(20))
    history = [step for steps in rounds(6, ids, size // 4) for step in steps]
    n_ended = sum(step.status is not ON for step in history)
    cut = [history[:20], history[20:32], history[32:80], history[80:]]
    data = encoded_history([("batch", part) for part in cut])
    # Each actor's first observation, one for each episode that begins, and those that a cut made unknown:
    # of the second part none, of the third the 8 that were not in the second.
    assert len(data) < size * (len(history) + 20 + n_ended + 8) + 4000


def test_records_are_counted_by_rows_and_positions_inside_a_batch_are_found(tmp_path: Path) -> None:
    steps = [step for part in rounds(3, list(range(8))) for step in part]
    parts = [("batch", steps[:8]), ("singles", steps[8:11]), ("batch", steps[11:])]
    write(tmp_path, encoded_history(parts))
    journal = Journal(tmp_path, [(1, 0)])
    assert [number for number, _ in journal.read(0, 24)] == list(range(24))
    assert [as_bytes(event) for _, event in journal.read(5, 13)] == [
        as_bytes(step)
        for step in (*batch_of(steps).experiences()[5:8], *steps[8:11], *batch_of(steps).experiences()[11:13])
    ]
    assert journal.check(range(25)).steps_before == {n: n for n in range(25)}
    assert journal.leads_from(24) == 0
    assert journal.leads_from(25) is None


def test_each_cut_gives_a_prefix_of_whole_batches(tmp_path: Path) -> None:
    history = [("batch", steps) for steps in rounds(3, list(range(9)))]
    data = encoded_history(history)
    whole = events_in(write(tmp_path, data))
    lengths = set()
    for length in range(len(data) - 1, len(encoded([])), -7):
        found = events_in(write(tmp_path, data[:length]))
        assert found == whole[: len(found)]
        lengths.add(len(found))
    assert lengths == {0, 9, 18}


def test_a_batch_that_cannot_be_held_is_refused_by_its_column() -> None:
    encoder = SegmentEncoder()
    encoder.begin(HEADER)
    steps = rounds(1, list(range(9)))[0]
    good = batch_of(steps)
    bad = msgspec.structs.replace(good, actions=np.array([object()] * 9))
    with pytest.raises(ConfigError, match="actions is an array of dtype object.*journal=False"):
        encoder.encode_batch(bad)
    with pytest.raises(RuntimeError, match="begin a new one"):
        encoder.encode_batch(good)


def record_of(**columns: Any) -> list[Any]:
    """The values of a batch of two rows, some of which are replaced."""
    two, flags = np.ones((2, 2)), np.zeros(2, np.uint8)
    good = {"ids": [0, 1], "is_new": None, "observations": two, "actions": flags, "rewards": two[0]}
    good |= {"next_observations": two, "ends": flags, "policy_extras": two, "policy_versions": 3}
    return [5, 2, *{**good, **columns}.values()]


COLUMNS = ("actions", "rewards", "next_observations", "ends", "policy_extras")
WRONG: list[tuple[list[Any], str]] = [
    ([5, 0, *[None] * 9], "a batch of 0 rows"),
    ([5, True, *[None] * 9], "a batch of True rows"),
    ([5, "two", *[None] * 9], "a batch of 'two' rows"),
    ([5, 2, *[None] * 9], "NoneType|2 rows"),
    ([5, 2, [0, 1, 2], None, 0, [0, 1], [0, 1], 0, None, None, None], "2 rows"),
    ([5, 2, [0, 1], None, 0, [0, 1], [0], 0, None, None, None], "2 rows"),
    ([5, 2, 7, None, 0, [0, 1], [0, 1], 0, None, None, None], "TypeError"),
    (record_of(is_new=np.ones(1)), "TypeError"),
    (record_of(is_new=b"1", next_observations={}), "not known"),
    *((record_of(**{name: np.ones((3, 2))}), "2 rows that has others") for name in COLUMNS),
    *((record_of(**{name: 7}), "2 rows that has others") for name in COLUMNS),
    (record_of(policy_versions=np.ones(3, np.int64)), "2 rows that has others"),
    (record_of(observations=np.ones((1, 2))), "2 rows with other observations"),
    (record_of(observations={"x": 3}), "2 rows with other observations"),
]


def test_a_record_of_two_rows_is_two_events(tmp_path: Path) -> None:
    record = codec.pack([codec.form(value, "value") for value in record_of()])
    reader = SegmentReader(write(tmp_path, encoded([]) + frame(record)))
    assert len(list(reader.events())) == 2
    assert reader.damage is None


@pytest.mark.parametrize(("values", "problem"), WRONG, ids=range(len(WRONG)))
def test_records_that_make_no_sense_are_damage(tmp_path: Path, values: list[Any], problem: str) -> None:
    record = codec.pack([codec.form(value, "value") for value in values])
    path = write(tmp_path, encoded([]) + frame(record))
    reader = SegmentReader(path)
    assert list(reader.events()) == []
    assert reader.damage is not None
    assert re.search(problem, reader.damage), reader.damage
