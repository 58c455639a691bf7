"""Settings as one level of names, and who takes files."""

from __future__ import annotations

from pathlib import Path

from stoker.errors import RecorderFailed
from stoker.recorders import (
    ArtifactRecorder,
    ConsoleRecorder,
    MLflowRecorder,
    RunContext,
    flat_params,
)


def test_nested_settings_become_one_level_of_names() -> None:
    settings = {
        "agent": {"gamma": 0.99, "hidden": [64, 64], "schedule": {"end": None}},
        "seed": 1,
        "root": Path("runs"),
        "resume": True,
        "empty": {},
    }
    assert flat_params(settings) == {
        "agent/gamma": 0.99,
        "agent/hidden": "[64, 64]",
        "agent/schedule/end": None,
        "seed": 1,
        "root": "runs",
        "resume": True,
    }


def test_contexts_without_an_id_are_told_apart() -> None:
    assert RunContext(name="x").run_id != RunContext(name="x").run_id


def test_who_takes_files() -> None:
    assert isinstance(MLflowRecorder("sqlite://"), ArtifactRecorder)
    assert not isinstance(ConsoleRecorder(), ArtifactRecorder)


def test_a_failure_says_of_what() -> None:
    cause = OSError("gone")
    failure = RecorderFailed("mlflow", cause)
    assert str(failure) == "the recorder 'mlflow' failed: OSError: gone"
    assert (failure.name, failure.__cause__) == ("mlflow", cause)
