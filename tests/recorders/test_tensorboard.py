"""Event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import io
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image as Pictures
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stoker.errors import ConfigError
from stoker.recorders import Histogram, Image, Record, RunContext, TensorBoardRecorder


def read(directory: Path) -> EventAccumulator:
    found = EventAccumulator(
        str(directory), size_guidance={"scalars": 0, "tensors": 0, "images": 0, "histograms": 0}
    )
    return found.Reload()


def record(context: RunContext, records: dict[int, Record], **settings: Any) -> None:
    recorder = TensorBoardRecorder(**settings)
    recorder.open(context)
    for step, values in records.items():
        recorder.write(step, values)
    recorder.flush()
    recorder.close("finished")


def scalars(found: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in found.Scalars(tag)]


def text(found: EventAccumulator, tag: str) -> str:
    return found.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode()


def test_every_kind_of_value_is_read_back(context: RunContext, tmp_path: Path) -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    values = np.random.default_rng(0).normal(size=200)
    record(
        context,
        {
            0: {"train/loss": 0.5, "time/total_timesteps": 0},
            1000: {
                "train/loss": 0.25,
                "picture": Image(pixels),
                "grey": Image(pixels[:, :, 0]),
                "ages": Histogram(values),
                "weights": values.reshape(2, 10, 10),
                "note": "hello",
                "at": datetime(2026, 1, 2, tzinfo=UTC),
                "nothing": Histogram([math.nan]),
            },
        },
    )
    found = read(tmp_path / "tensorboard")
    tags = found.Tags()
    assert set(tags["scalars"]) == {"train/loss", "time/total_timesteps"}
    assert scalars(found, "train/loss") == [(0, 0.5), (1000, 0.25)]
    assert set(tags["images"]) == {"picture", "grey"}
    image = Pictures.open(io.BytesIO(found.Images("picture")[0].encoded_image_string))
    assert np.array_equal(np.asarray(image), pixels)
    assert set(tags["histograms"]) == {"ages", "weights"}
    for tag in ("ages", "weights"):
        histogram = found.Histograms(tag)[0].histogram_value
        assert (histogram.num, histogram.min, histogram.max) == (200, values.min(), values.max())
        assert sum(histogram.bucket) == 200
        assert histogram.sum == pytest.approx(values.sum())
    assert text(found, "note") == "hello"
    assert text(found, "at") == "2026-01-02T00:00:00+00:00"
    assert "|agent/gamma|0.99|" in text(found, "params")


def test_numbers_that_are_not_finite_are_kept(
    context: RunContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record(context, {1: {"a": math.nan}, 2: {"a": math.inf}, 3: {"a": 1.0}})
    found = scalars(read(tmp_path / "tensorboard"), "a")
    assert math.isnan(found[0][1])
    assert found[1:] == [(2, math.inf), (3, 1.0)]
    assert caplog.records == []


def test_a_resumed_run_hides_the_abandoned_future(context: RunContext, tmp_path: Path) -> None:
    record(context, {step: {"a": 1.0} for step in range(0, 1000, 100)})
    resumed = msgspec.structs.replace(context, resumed=True, total_steps=500)
    record(resumed, {step: {"a": 2.0} for step in range(600, 900, 100)})
    found = scalars(read(tmp_path / "tensorboard"), "a")
    assert found == [(k, 1.0) for k in range(0, 600, 100)] + [(k, 2.0) for k in range(600, 900, 100)]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2, "nothing is deleted or overwritten"


def test_a_directory_of_its_own(context: RunContext, tmp_path: Path) -> None:
    record(
        msgspec.structs.replace(context, directory=None), {1: {"a": 1.0}}, directory=tmp_path / "logs" / "x"
    )
    assert scalars(read(tmp_path / "logs" / "x"), "a") == [(1, 1.0)]


def test_flushed_records_are_visible_before_the_end(context: RunContext, tmp_path: Path) -> None:
    recorder = TensorBoardRecorder()
    recorder.open(context)
    recorder.write(1, {"a": 1.0})
    recorder.flush()
    assert scalars(read(tmp_path / "tensorboard"), "a") == [(1, 1.0)]
    recorder.close("stopped")


def test_without_any_directory_it_says_so() -> None:
    with pytest.raises(ConfigError, match=r"TensorBoardRecorder\(directory="):
        TensorBoardRecorder().open(RunContext(name="x"))
