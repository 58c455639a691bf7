"""Optional packages: a missing one is said where the recorder is made, with the extra that has it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stoker.errors import MissingDependency
from stoker.recorders.optional import imported, require


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(
        MissingDependency, match=r"surely_absent is not installed: run `pip install 'stoker\[foo\]'`"
    ):
        require("surely_absent", "foo")
    require("json", "foo")
    assert imported("json").dumps([1]) == "[1]"


def test_each_recorder_says_what_it_needs_and_imports_nothing_before_it_opens() -> None:
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
