"""The gate of records: what passes, as what, and what is refused in which words."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
import torch

from stoker.errors import ConfigError
from stoker.recorders import Histogram, Image, checked_record, finite_values, row_value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(0.5, 0.5, id="float"),
        pytest.param(3, 3, id="int"),
        pytest.param(True, True, id="bool"),
        pytest.param(-(1 << 63), -(1 << 63), id="smallest-int"),
        pytest.param(1 << 63, float(1 << 63), id="large-int"),
        pytest.param(np.float64(0.5), 0.5, id="numpy-float64"),
        pytest.param(np.float32(0.5), 0.5, id="numpy-float32"),
        pytest.param(np.int64(7), 7, id="numpy-int"),
        pytest.param(np.ones(1, bool)[0], True, id="numpy-bool"),
        pytest.param(np.array(2.5), 2.5, id="numpy-0d"),
        pytest.param(np.longdouble(2.5), 2.5, id="numpy-longdouble"),
        pytest.param(torch.tensor(1.5), 1.5, id="tensor-0d"),
        pytest.param(torch.tensor(1.5, requires_grad=True), 1.5, id="tensor-with-gradient"),
        pytest.param(torch.tensor(1.5, dtype=torch.bfloat16), 1.5, id="bfloat16"),
        pytest.param(math.inf, math.inf, id="infinity"),
        pytest.param("hello", "hello", id="text"),
    ],
)
def test_scalars_become_plain(value: Any, expected: object) -> None:
    found = checked_record({"a": value})["a"]
    assert found == expected
    assert type(found) is type(expected)


def test_nan_passes() -> None:
    found = checked_record({"a": np.float32("nan")})["a"]
    assert type(found) is float
    assert math.isnan(found)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(np.arange(3), id="1d"),
        pytest.param(np.ones((2, 3), np.float32), id="2d"),
        pytest.param(torch.ones(2, 3, 4), id="3d-tensor"),
        pytest.param([1.0, 2.0], id="list"),
        pytest.param(np.zeros(0), id="empty"),
    ],
)
def test_arrays_are_copied(value: Any) -> None:
    found = checked_record({"a": value})["a"]
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, np.asarray(value))
    assert not np.shares_memory(found, np.asarray(value))


def test_later_changes_by_the_caller_do_not_reach_a_record() -> None:
    pixels, values = np.zeros((2, 2), np.uint8), np.zeros(3)
    image, histogram = Image(pixels), Histogram(values)
    pixels += 1
    values += 1
    assert not image.pixels.any()
    assert not histogram.values.any()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="none"),
        pytest.param(1j, id="complex"),
        pytest.param(torch.tensor(1j), id="complex-tensor"),
        pytest.param(torch.eye(2).to_sparse(), id="sparse-tensor"),
        pytest.param(b"bytes", id="bytes"),
        pytest.param({"a": 1}, id="mapping"),
        pytest.param([1, [2]], id="ragged"),
        pytest.param(["a"], id="texts"),
        pytest.param(object(), id="object"),
        pytest.param(np.ones((1, 1, 1, 1)), id="4d"),
        pytest.param(np.datetime64("2026-01-01"), id="numpy-time"),
        pytest.param(10**400, id="huge-int"),
        pytest.param(datetime(2026, 1, 1), id="naive-time"),  # noqa: DTZ001
    ],
)
def test_other_values_are_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigError, match="train/strange"):
        checked_record({"fine": 1.0, "train/strange": value})


def test_names_that_every_sink_takes_pass() -> None:
    for key in ["a", "train/loss", "Rollout/ep_rew-mean.1", "größe/θ", "a/b/c", ".5"]:
        assert checked_record({key: 1}) == {key: 1}


def test_other_names_are_refused_with_their_value() -> None:
    for key in [
        "",
        "/a",
        "a/",
        "a//b",
        "a b",
        "a:b",
        "a\n",
        ".",
        "..",
        "a/../b",
        "./a",
        "x" * 251,
        3,
        None,
        "50%",
    ]:
        with pytest.raises(ConfigError) as caught:
            checked_record({key: 12.75})
        assert repr(key) in str(caught.value)
        assert "12.75" in str(caught.value)


def test_a_record_is_a_mapping() -> None:
    with pytest.raises(ConfigError, match="not a record"):
        checked_record([("a", 1)])  # type: ignore[arg-type]


def test_images_have_a_channel_axis() -> None:
    for shape, expected in [
        ((4, 5), (4, 5, 1)),
        ((4, 5, 1), (4, 5, 1)),
        ((4, 5, 3), (4, 5, 3)),
        ((4, 5, 4), (4, 5, 4)),
    ]:
        assert Image(torch.zeros(shape, dtype=torch.uint8)).pixels.shape == expected


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(np.zeros((4, 5), np.float32), id="float"),
        pytest.param(np.zeros((3, 4, 5), np.uint8), id="channels-first"),
        pytest.param(np.zeros(5, np.uint8), id="1d"),
        pytest.param(np.zeros((0, 5), np.uint8), id="empty"),
        pytest.param("cat.png", id="path"),
    ],
)
def test_other_images_are_refused(pixels: Any) -> None:
    with pytest.raises(ConfigError, match="uint8 pixels"):
        Image(pixels)


def test_histograms_take_any_shape_and_give_their_finite_values() -> None:
    histogram = Histogram([[1, 2], [3, math.nan]])
    assert histogram.values.shape == (4,)
    assert finite_values(histogram).tolist() == [1, 2, 3]
    assert len(finite_values(Histogram([]))) == 0
    assert finite_values(np.array([[1, math.inf]])).tolist() == [1]
    with pytest.raises(ConfigError, match="numbers"):
        Histogram(["a"])


def test_what_a_row_holds_of_a_value() -> None:
    for value, expected in [
        (0.5, 0.5),
        (3, 3),
        (True, True),
        ("text", "text"),
        (math.nan, None),
        (-math.inf, None),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1))), "2026-01-02T02:04:05Z"),
        (np.ones(2), None),
        (Histogram([1]), None),
        (Image(np.zeros((1, 1), np.uint8)), None),
    ]:
        assert row_value(value) == expected
