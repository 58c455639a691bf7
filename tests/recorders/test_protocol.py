"""Settings as one level of names, recorders that take files, and packages that are missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stoker.errors import MissingDependency, RecorderFailed
from stoker.recorders import (
    ArtifactRecorder,
    ConsoleRecorder,
    MLflowRecorder,
    RunContext,
    flat_params,
)
from stoker.recorders.protocol import BaseRecorder, imported


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


def test_contexts_without_an_id_get_different_ids() -> None:
    assert RunContext(name="x").run_id != RunContext(name="x").run_id


def test_recorders_with_add_artifact_are_artifact_recorders() -> None:
    assert isinstance(MLflowRecorder("sqlite://"), ArtifactRecorder)
    assert not isinstance(ConsoleRecorder(), ArtifactRecorder)


def test_a_failure_says_of_what() -> None:
    cause = OSError("gone")
    failure = RecorderFailed("mlflow", cause)
    assert str(failure) == "the recorder 'mlflow' failed: OSError: gone"
    assert (failure.name, failure.__cause__) == ("mlflow", cause)


class Absent(BaseRecorder):
    name = "foo"
    package = "surely_absent"


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(
        MissingDependency, match=r"surely_absent is not installed: run `pip install 'stoker\[foo\]'`"
    ):
        Absent()
    assert imported("json").dumps([1]) == "[1]"


def test_each_recorder_names_its_package_and_imports_nothing_before_it_opens() -> None:
    source = """
import sys
from stoker.errors import MissingDependency
from stoker.recorders import MLflowRecorder, TensorBoardRecorder, TrackioRecorder, WandbRecorder
makers = dict(
    tensorboardX=TensorBoardRecorder, mlflow=MLflowRecorder, wandb=WandbRecorder, trackio=TrackioRecorder
)
made = [maker() for maker in makers.values()]
assert not {*makers, "torch"} & sys.modules.keys()
sys.path = [path for path in sys.path if "site-packages" not in path]
for package, maker in makers.items():
    try:
        maker()
    except MissingDependency as error:
        print(error.package, error.extra)
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        *("tensorboardX", "tensorboard"),
        *("mlflow", "mlflow"),
        *("wandb", "wandb"),
        *("trackio", "trackio"),
    ]
