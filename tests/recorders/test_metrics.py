"""The buffer: what a flush says of what was stored, and that names do not depend on how much that is."""

from __future__ import annotations

import math
import statistics
import threading
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from stoker.errors import ConfigError
from stoker.recorders import Histogram, Image, Metrics
from stoker.recorders.metrics import STATISTICS

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(values=NUMBERS)
def test_scalars_become_their_mean_and_the_chosen_statistics(values: list[float]) -> None:
    metrics = Metrics(statistics=STATISTICS)
    for value in values:
        metrics.store({"loss": value})
    record = metrics.flush()
    assert record["loss"] == pytest.approx(statistics.fmean(values), rel=1e-9, abs=1e-6)
    assert record["loss_min"] == min(values)
    assert record["loss_max"] == max(values)
    assert record["loss_median"] == pytest.approx(statistics.median(values))


@pytest.mark.parametrize("wanted", [(), ("min",), ("max", "median"), STATISTICS], ids=", ".join)
@pytest.mark.parametrize("n_values", [1, 2, 3000])
def test_names_do_not_depend_on_the_count(n_values: int, wanted: tuple[str, ...]) -> None:
    metrics = Metrics(statistics=wanted)
    for _ in range(n_values):
        metrics.store({"train/loss": 1.0, "train/grad": 2.0})
    expected = {
        f"train/{name}{end}" for name in ("loss", "grad") for end in ("", *(f"_{one}" for one in wanted))
    }
    record = metrics.flush()
    assert set(record) == expected
    assert {type(value) for value in record.values()} == {float}


def test_each_name_has_its_own_count() -> None:
    metrics = Metrics()
    metrics.store({"a": 1.0})
    metrics.store({"a": 3.0, "b": 10})
    metrics.store({"b": np.longdouble(20)})
    metrics.store({"b": torch.tensor(60)})
    assert metrics.flush() == {"a": 2.0, "b": 30.0}
    assert metrics.flush() == {}
    metrics.store({"a": 5.0})
    assert metrics.flush() == {"a": 5.0}


def test_values_are_added_up_in_their_order() -> None:
    values, metrics, total = np.random.default_rng(0).normal(size=5000).tolist(), Metrics(), 0.0
    for value in values:
        metrics.store({"a": value})
        total += value
    assert metrics.flush() == {"a": total / len(values)}


def test_a_nan_is_seen() -> None:
    metrics = Metrics(statistics=STATISTICS)
    for value in (1.0, math.nan, 3.0):
        metrics.store({"a": value})
    assert all(math.isnan(float(value)) for value in metrics.flush().values())  # type: ignore[arg-type]


def test_infinities_of_both_signs_do_not_raise() -> None:
    metrics = Metrics(statistics=("min", "max"))
    metrics.store({"a": math.inf})
    metrics.store({"a": -math.inf})
    record = metrics.flush()
    assert math.isnan(record["a"])  # type: ignore[arg-type]
    assert (record["a_min"], record["a_max"]) == (-math.inf, math.inf)


def test_of_other_values_the_last_counts_and_histograms_are_pooled() -> None:
    metrics = Metrics()
    for k in range(3):
        metrics.store(
            {
                "text": f"t{k}",
                "image": Image(np.full((2, 2), k, np.uint8)),
                "array": np.full(2, k),
                "ages": Histogram(range(k)),
            }
        )
    record = metrics.flush()
    assert record["text"] == "t2"
    assert record["image"].pixels.max() == 2  # type: ignore[union-attr]
    assert np.array_equal(record["array"], [2, 2])  # type: ignore[arg-type]
    assert record["ages"].values.tolist() == [0, 0, 1]  # type: ignore[union-attr]


def test_a_mapping_may_be_used_again() -> None:
    metrics, values = Metrics(), {"a": 1.0}
    for k in range(3):
        values["a"] = float(k)
        metrics.store(values)
    assert metrics.flush() == {"a": 1.0}


def test_nothing_of_a_refused_mapping_is_kept() -> None:
    metrics = Metrics(statistics=("min",))
    metrics.store({"a": 1.0})
    for bad in (
        {"b": 1.0, "a": "text"},  # a was a number
        {"b": 1.0, "c d": 2.0},
        {"b": 1.0, "c": None},
        {"b": 1.0, "a_min": 2.0},  # a statistic of a
        {"c": 1.0, "c_min": 2.0},
    ):
        with pytest.raises(ConfigError):
            metrics.store(bad)
    metrics.store({"b": "now a text", "a": 3.0})
    assert metrics.flush() == {"a": 2.0, "a_min": 1.0, "b": "now a text"}


def test_a_name_keeps_its_kind_over_flushes() -> None:
    metrics = Metrics()
    metrics.store({"x/y": 1.0})
    metrics.flush()
    with pytest.raises(ConfigError, match="'x/y' was a scalar before and is a histogram now"):
        metrics.store({"x/y": Histogram([1])})


def test_a_statistic_that_would_hide_a_name_is_refused() -> None:
    metrics = Metrics(statistics=("max",))
    metrics.store({"loss_max": 1.0})
    with pytest.raises(ConfigError, match="'loss_max' was a scalar before and is a statistic of 'loss' now"):
        metrics.store({"loss": 1.0})


@pytest.mark.parametrize("wanted", [("mean",), "std", ("min", "p99")], ids=str)
def test_unknown_statistics_are_refused(wanted: tuple[str, ...] | str) -> None:
    with pytest.raises(ConfigError, match="is none of 'min', 'max', 'median'"):
        Metrics(statistics=wanted)


def test_memory_is_bounded_between_flushes() -> None:
    metrics = Metrics()
    metrics.store({"a": 1.0})
    tracemalloc.start()
    try:
        for k in range(10_000):
            metrics.store({"a": float(k)})
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 10_000


def test_nothing_is_lost_between_threads() -> None:
    metrics, n_each, flushed = Metrics(), 3000, []
    ended = threading.Event()

    def store() -> None:
        for _ in range(n_each):
            metrics.store({"count": Histogram([1.0]), "one": 1.0})

    def flush() -> None:
        while not ended.is_set():
            flushed.append(metrics.flush())

    storing = [threading.Thread(daemon=True, target=store) for _ in range(3)]
    flushing = threading.Thread(daemon=True, target=flush)
    for thread in (*storing, flushing):
        thread.start()
    for thread in storing:
        thread.join()
    ended.set()
    flushing.join()
    flushed.append(metrics.flush())
    counts = [record["count"] for record in flushed if record]
    assert sum(len(found.values) for found in counts) == 3 * n_each  # type: ignore[union-attr]
