from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from stoker.errors import InvalidExperience
from stoker.stats import EpisodeRecord, EvalReport, check_record, extra, length, total_reward
from stoker.types import EpisodeStatus

TERMINATED = EpisodeStatus.TERMINATED
ROW = b'{"total_reward":23.0,"length":23,"status":"Terminated","extras":{"epsilon":0.97}}'

finite = st.floats(allow_nan=False, allow_infinity=False)


def test_json_is_the_documented_row() -> None:
    record = EpisodeRecord(23.0, 23, TERMINATED, {"epsilon": 0.97})
    assert msgspec.json.encode(record) == ROW
    assert msgspec.json.decode(ROW, type=EpisodeRecord) == record


@given(
    finite,
    st.integers(0, 2**53),
    st.sampled_from([TERMINATED, EpisodeStatus.TRUNCATED]),
    st.dictionaries(st.text(st.characters(codec="utf-8")), finite),
)
def test_checked_record_survives_json(
    reward: float, length: int, status: EpisodeStatus, extras: dict[str, float]
) -> None:
    record = check_record(EpisodeRecord(reward, length, status, extras))
    assert msgspec.json.decode(msgspec.json.encode(record), type=EpisodeRecord) == record


@pytest.mark.parametrize(
    "row",
    [
        ROW.replace(b"length", b"lenght"),
        ROW[:-1] + b',"more":1}',
        ROW.replace(b"Terminated", b"Continued"),
        ROW.replace(b"23.0", b"null"),
    ],
)
def test_row_of_another_shape_is_refused(row: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(row, type=EpisodeRecord)


def test_extras_are_empty_by_default_and_not_shared() -> None:
    first, second = EpisodeRecord(1.0, 1, TERMINATED), EpisodeRecord(1.0, 1, TERMINATED)
    assert first.extras == {}
    assert first.extras is not second.extras


def test_with_extras_makes_a_new_record_and_the_later_wins() -> None:
    record = EpisodeRecord(1.0, 2, TERMINATED, {"a": 1.0})
    assert record.with_extras({"a": 4.0, "c": 5.0}).extras == {"a": 4.0, "c": 5.0}
    assert record == EpisodeRecord(1.0, 2, TERMINATED, {"a": 1.0})


def test_record_is_frozen() -> None:
    with pytest.raises(AttributeError):
        EpisodeRecord(1.0, 2, TERMINATED).length = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("reward", "length", "extra", "expected"),
    [
        (1.5, 3, 0.5, (1.5, 3, 0.5)),
        (2, 3, 1, (2.0, 3, 1.0)),
        (np.float64(1.5), np.int64(3), np.float32(0.5), (1.5, 3, 0.5)),
        (np.int32(2), np.uint8(3), np.int64(7), (2.0, 3, 7.0)),
        (-0.0, 0, 1e308, (0.0, 0, 1e308)),
    ],
)
def test_check_makes_numbers_plain(
    reward: float, length: int, extra: float, expected: tuple[float, int, float]
) -> None:
    given_record = EpisodeRecord(reward, length, EpisodeStatus.TRUNCATED, {"x": extra})
    record = check_record(given_record)
    assert (record.total_reward, record.length, record.extras["x"]) == expected
    assert [type(record.total_reward), type(record.length), type(record.extras["x"])] == [float, int, float]
    assert record.status is EpisodeStatus.TRUNCATED


def test_check_copies_the_extras() -> None:
    extras = {"a": 1.0}
    record = check_record(EpisodeRecord(1.0, 1, TERMINATED, extras))
    extras["a"] = float("nan")
    assert record.extras == {"a": 1.0}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"total_reward": float("nan")}, ["total_reward", "nan", "not finite"]),
        ({"total_reward": float("-inf")}, ["total_reward", "-inf"]),
        ({"total_reward": np.float32("inf")}, ["total_reward", "inf"]),
        ({"total_reward": "12"}, ["total_reward", "'12'", "str"]),
        ({"total_reward": None}, ["total_reward", "None"]),
        ({"total_reward": True}, ["total_reward", "True", "bool"]),
        ({"total_reward": np.True_}, ["total_reward", "bool"]),
        ({"total_reward": np.ones(2)}, ["total_reward", "ndarray"]),
        ({"total_reward": torch.tensor(1.0)}, ["total_reward", "Tensor", ".item()"]),
        ({"total_reward": 1j}, ["total_reward", "complex"]),
        ({"total_reward": 10**400}, ["total_reward", "too large"]),
        ({"length": -1}, ["length", "-1", "negative"]),
        ({"length": np.int64(-4)}, ["length", "-4", "negative"]),
        ({"length": 3.0}, ["length", "3.0", "float"]),
        ({"length": True}, ["length", "True", "bool"]),
        ({"length": None}, ["length", "None"]),
        ({"status": "terminated"}, ["'terminated'", "EpisodeStatus.TERMINATED", "EpisodeStatus.TRUNCATED"]),
        ({"status": None}, ["None", "EpisodeStatus.TERMINATED"]),
        ({"status": EpisodeStatus.CONTINUING}, ["an ended episode is Terminated or Truncated"]),
        ({"extras": {"loss": float("nan")}}, ["extras['loss']", "nan"]),
        ({"extras": {"ok": 1.0, "loss": "0.5"}}, ["extras['loss']", "'0.5'"]),
        ({"extras": {"flag": False}}, ["extras['flag']", "False"]),
        ({"extras": {3: 1.0}}, ["extras: key=3", "int"]),
        ({"extras": {"\ud800": 1.0}}, ["\\ud800", "Unicode"]),
        ({"extras": None}, ["extras", "None"]),
        ({"extras": [("a", 1.0)]}, ["extras", "dict"]),
    ],
)
def test_check_names_what_it_refuses(fields: dict[str, object], words: list[str]) -> None:
    record = EpisodeRecord(**{"total_reward": 1.0, "length": 1, "status": TERMINATED, "extras": {}} | fields)
    with pytest.raises(InvalidExperience) as refusal:
        check_record(record)
    for word in words:
        assert word in str(refusal.value)


def test_sources_read_one_field() -> None:
    record = EpisodeRecord(7.5, 3, EpisodeStatus.TERMINATED, {"loss": 0.25})
    assert total_reward(record) == 7.5
    assert length(record) == 3
    assert extra("loss")(record) == 0.25
    assert extra("absent")(record) is None


@pytest.mark.parametrize(
    ("report", "printed"),
    [
        (
            EvalReport(100_000, 20, {"episode_reward": 487.25, "episode_length": 487.0, "epsilon": 0.05}),
            "=== Eval @ step 100000 (20 episodes) ===\nepisode_length: 487.000\nepisode_reward: 487.250\n"
            "epsilon: 0.050",
        ),
        (EvalReport(0, 0, {}), "=== Eval @ step 0 (0 episodes) ==="),
        (
            EvalReport(1, 1, {"b": math.nan, "a": -0.00049}),
            "=== Eval @ step 1 (1 episodes) ===\na: -0.000\nb: nan",
        ),
    ],
)
def test_a_report_prints_its_stats_sorted(report: EvalReport, printed: str) -> None:
    assert str(report) == printed


def test_a_report_survives_json() -> None:
    report = EvalReport(5, 2, {"a": 1.0})
    row = msgspec.json.encode(report)
    assert row == b'{"total_steps":5,"n_episodes":2,"stats":{"a":1.0}}'
    assert msgspec.json.decode(row, type=EvalReport) == report
