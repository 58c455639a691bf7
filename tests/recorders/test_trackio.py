"""Trackio's local store, read back with Trackio's own reader, in a process of its own.

Trackio takes its directory from the environment when it is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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


def test_records_are_read_back_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    python(tmp_path, WRITING, "new")
    python(tmp_path, WRITING, "resumed")
    name, config, logs = json.loads(python(tmp_path, READING).splitlines()[-1])
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
