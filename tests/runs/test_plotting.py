"""``run.plot``: a figure, a file, and errors that say what is missing."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from matplotlib.image import imread

from stoker import (
    ConfigError,
    EpisodeRecord,
    EpisodeStatus,
    MissingDependency,
    RunDirectoryError,
    StokerError,
)
from stoker.runs import TrainingRun
from stoker.runs.plotting import running_mean


async def played(root: Path) -> TrainingRun:
    run = await TrainingRun.create("r", root=root)
    for k in range(1, 60):
        await run.log_train_episode(EpisodeRecord(float(k), 10, EpisodeStatus.TERMINATED))
    await run.log_eval_episode(EpisodeRecord(30.0, 10, EpisodeStatus.TERMINATED), 300)
    return run


@pytest.mark.anyio
async def test_a_run_draws_its_curve_while_it_is_written(tmp_path: Path) -> None:
    run = await played(tmp_path)
    figure = run.plot(title="So far")
    above, below = figure.axes
    assert above.lines[0].get_xdata().tolist() == list(range(10, 600, 10))
    assert above.lines[1].get_ydata()[-1] == np.mean(range(10, 60))
    assert (above.lines[2].get_xdata(), above.lines[2].get_ydata()) == ([300], [30.0])
    assert below.get_xlabel() == "environment steps"
    assert figure.get_suptitle() == "So far"
    assert figure._repr_png_().startswith(b"\x89PNG"), "what a notebook shows"
    assert len(pickle.loads(pickle.dumps(figure)).axes) == 2
    run.plot(tmp_path / "curve.png")
    assert imread(tmp_path / "curve.png").shape[0] > 600
    await run.aclose()


@pytest.mark.anyio
async def test_what_cannot_be_drawn_or_saved_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = await TrainingRun.create("empty", root=tmp_path)
    with pytest.raises(RunDirectoryError, match="no episode has ended yet"):
        empty.plot()
    run = await played(tmp_path)
    with pytest.raises(ConfigError, match=r"curve\.gif: the name .* must end with \.png, \.svg, \.pdf"):
        run.plot(tmp_path / "curve.gif")
    with pytest.raises(StokerError, match="cannot write .*curve.png: No such file"):
        run.plot(tmp_path / "nowhere/curve.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as where it is not installed
    with pytest.raises(MissingDependency, match=r"stoker\[plot\]"):
        run.plot()
    await run.aclose()


@given(st.lists(st.floats(-1e6, 1e6), min_size=0, max_size=30), st.integers(min_value=1, max_value=40))
def test_the_running_mean_is_that_of_the_values_before(values: list[float], window: int) -> None:
    found = running_mean(np.array(values, dtype=np.float64), window)
    expected = [np.mean(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))]
    assert found == pytest.approx(expected, abs=1e-6)
