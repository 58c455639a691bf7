"""Weights & Biases without network: what is in its own file. Trackio: what its own reader finds.

Trackio takes its directory from the environment when it is imported, and so is used in its own process.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from stoker.errors import ConfigError
from stoker.recorders import Histogram, Image, Outcome, Record, RunContext, WandbRecorder


def messages(path: Path) -> Iterator[Any]:
    """The records of a ``.wandb`` file: LevelDB's log format behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record as Message

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or the last part
            yield Message.FromString(whole)
            whole = b""


def rows(path: Path) -> list[dict[str, Any]]:
    return [
        {
            (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
            for item in message.history.item
        }
        for message in messages(path)
        if message.HasField("history")
    ]


def record(context: RunContext, records: dict[int, Record], status: Outcome = "finished") -> None:
    recorder = WandbRecorder()
    recorder.open(context)
    for step, values in records.items():
        recorder.write(step, values)
    recorder.flush()
    recorder.close(status)
    import wandb

    wandb.teardown()  # its own process may still be writing: return when that has ended


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("wandb/offline-run-*/*.wandb"))


def test_records_params_and_outcome_are_in_its_file(context: RunContext, tmp_path: Path) -> None:
    values = {
        "train/loss": 0.25,
        "note": "hello",
        "ages": Histogram(np.arange(10)),
        "weights": np.ones((2, 2)),
        "picture": Image(np.zeros((4, 5, 3), np.uint8)),
        "nothing": Histogram([]),
    }
    record(context, {1000: {"train/loss": 0.5}, 2000: values}, "failed")
    (path,) = files(tmp_path)
    first, second = (row for row in rows(path) if "global_step" in row)
    assert (first["global_step"], first["train/loss"]) == (1000, 0.5)
    assert (second["global_step"], second["train/loss"], second["note"]) == (2000, 0.25, "hello")
    assert sum(second["ages/values"]) == 10
    assert sum(second["weights/values"]) == 4
    assert (second["picture/width"], second["picture/height"]) == (5, 4)
    assert not any(key.startswith("nothing") for key in second)
    everything = list(messages(path))
    run = next(message.run for message in everything if message.HasField("run"))
    assert (run.run_id, run.project) == ("cartpole-v2-20260102_030405", "cartpole")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["agent/gamma"] == 0.99
    assert list(run.tags) == ["team:blue"]
    assert [message.exit.exit_code for message in everything if message.HasField("exit")] == [1]


def test_a_resumed_run_has_the_same_id_and_may_go_back(context: RunContext, tmp_path: Path) -> None:
    record(context, {k: {"a": 1.0} for k in (0, 100, 200)}, "stopped")
    resumed = msgspec.structs.replace(context, resumed=True, total_steps=100)
    record(resumed, {k: {"a": 2.0} for k in (150, 200)})
    found = {
        tuple(row["global_step"] for row in rows(path) if "global_step" in row): next(
            message.run.run_id for message in messages(path) if message.HasField("run")
        )
        for path in files(tmp_path)
    }
    assert found == dict.fromkeys(((0, 100, 200), (150, 200)), "cartpole-v2-20260102_030405")


def test_settings_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(ConfigError, match="mode='disabled'"):
        WandbRecorder(mode="disabled")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"WandbRecorder\(directory="):
        WandbRecorder().open(RunContext(name="x"))


# Trackio ------------------------------------------------------------------------------------------

WRITING = """
import sys
import numpy as np
from stoker.recorders import Histogram, Image, RunContext, TrackioRecorder

resumed = sys.argv[1] == "resumed"
recorder = TrackioRecorder()
steps = 100 if resumed else 0
recorder.open(
    RunContext(name="cartpole", run_id="r1", params={"gamma": 0.99}, resumed=resumed, total_steps=steps)
)
recorder.write(150 if resumed else 100, {"train/loss": 0.25, "note": "hello", "n": 3})
if not resumed:
    image = Image(np.zeros((4, 5, 1), np.uint8))
    media = {"ages": Histogram(range(10)), "arr": np.ones(3), "none": Histogram([]), "image": image}
    recorder.write(200, media)
recorder.flush()
recorder.close("stopped" if resumed else "failed")
"""

READING = """
import json
from trackio.sqlite_storage import SQLiteStorage

(name,) = SQLiteStorage.get_runs("cartpole")
config = SQLiteStorage.get_run_config("cartpole", name)
print(json.dumps([name, config, SQLiteStorage.get_logs("cartpole", name)]))
"""


def python(directory: Path, source: str, *arguments: str) -> str:
    environment = {**os.environ, "TRACKIO_DIR": str(directory)}
    command = [sys.executable, "-c", source, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_records_are_read_back_and_a_resumed_run_continues(tmp_path: Path) -> None:
    python(tmp_path, WRITING, "new")
    lines = python(tmp_path, WRITING + READING, "resumed").splitlines()
    name, config, logs = json.loads(next(line for line in lines if line.startswith('["cartpole')))
    assert name == "cartpole-v1-r1"
    assert config["gamma"] == 0.99
    rows = [(row.pop("step"), row) for row in logs if row.pop("timestamp")]
    numbers = {"train/loss": 0.25, "note": "hello", "n": 3}
    step, media = rows.pop(1)
    assert step == 200
    assert set(media) == {"ages", "arr", "image"}
    assert sum(media["ages"]["values"]) == 10
    assert rows == [
        (100, numbers),
        (200, {"stoker/status": "failed"}),
        (150, numbers),
        (150, {"stoker/status": "stopped"}),
    ]
