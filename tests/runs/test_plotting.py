"""``run.plot``: a figure, a file, and errors that say what is missing."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
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
from stoker.runs.figures import save_figure
from stoker.runs.plotting import Curves, draw_curves, evaluated
from stoker.runs.smoothing import Smoothing


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
    assert run.plot().get_suptitle() == f"r/v1/{run.directory.name}"
    assert below.get_xlabel() == "steps"
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
    with pytest.raises(ConfigError, match="smoothing 'mean:0': give mean:WINDOW"):
        run.plot(smooth="mean:0")
    with pytest.raises(StokerError, match="cannot write .*curve.png: No such file"):
        run.plot(tmp_path / "nowhere/curve.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as where it is not installed
    with pytest.raises(MissingDependency, match=r"stoker\[plot\]"):
        run.plot()
    await run.aclose()


def long_run(n: int, spikes: list[int]) -> Curves:
    """A run of many episodes, some of whose rewards stand out."""
    rewards = np.random.default_rng(0).normal(size=n)
    rewards[spikes] = 1000.0
    steps = np.arange(1, n + 1) * 100
    train = {"total_steps": steps, "total_reward": rewards, "length": np.full(n, 100)}
    return Curves(
        "r/v1", "1", train, {"total_steps_at_eval": np.empty(0), "total_reward": np.empty(0)}, 100 * n
    )


def test_a_picture_of_a_long_run_is_small_and_has_every_spike(tmp_path: Path) -> None:
    spikes = [7, 50_000, 123_456, 199_999]
    figure = draw_curves([long_run(200_000, spikes)])
    above, _ = figure.axes
    [band] = above.collections
    corners = band.get_paths()[0].vertices
    assert len(corners) < 2500
    for spike in spikes:
        near = np.abs(corners[:, 0] - 100 * (spike + 1)) <= 20_000_000 / 1000
        assert corners[near, 1].max() == 1000.0
    assert all(len(line.get_xdata()) <= 1000 for line in above.lines)
    save_figure(figure, tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").stat().st_size < 200_000


@pytest.mark.anyio
async def test_evaluations_have_their_interval_and_the_best_is_filled(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    rewards = {100: [1.0, 2.0, 3.0], 200: [9.0, 9.0, 9.0], 300: [5.0]}
    for step, values in rewards.items():
        for value in values:
            await run.log_eval_episode(EpisodeRecord(value, 10, EpisodeStatus.TERMINATED), step)
    await run.aclose()
    found = evaluated(run.curves())
    assert found.steps.tolist() == [100.0, 200.0, 300.0]
    assert found.means.tolist() == [2.0, 9.0, 5.0]
    assert found.halves == pytest.approx([4.302653 / 3**0.5, 0.0, 0.0], rel=1e-4)
    above, _ = run.plot(smooth="mean:1").axes
    best = above.lines[-1]
    assert (best.get_xdata().tolist(), best.get_ydata().tolist()) == ([200.0], [9.0])
    assert best.get_markerfacecolor() == best.get_color() != "white"


def test_many_runs_are_told_apart_by_dashes_and_named_by_what_differs() -> None:
    runs = [msgspec.structs.replace(long_run(50, []), run_id=f"run {number}") for number in range(9)]
    figure = draw_curves(runs, smoothing=Smoothing("ema", 0.9))
    [legend] = figure.legends
    assert legend.get_title().get_text() == "r/v1"
    assert [text.get_text() for text in legend.get_texts()] == [run.run_id for run in runs]
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 9
    assert "exponential mean, weight 0.9" in figure.get_supxlabel()


def test_a_name_is_drawn_as_text_whatever_it_is(tmp_path: Path) -> None:
    names = [r"$\frac$", "cost $a$b$", "_hidden", "a\n\x00b", "漢字", "\u202eabc", "x" * 300]
    runs = [msgspec.structs.replace(long_run(20, []), version=name) for name in names]
    figure = draw_curves(runs, title=r"$\frac$")
    save_figure(figure, tmp_path / "curve.png")
    image = imread(tmp_path / "curve.png")[:, :, :3]
    assert (image.max(axis=2) < 0.05).sum() > 2000, "the names leave room for the curves, the last one black"
    [legend] = figure.legends
    shown = [text.get_text() for text in (*legend.get_texts(), legend.get_title())]
    for text, name in zip(shown, [*names, r"$\frac$"], strict=True):
        assert text.count(r"\$") == text.count("$") == name.count("$"), "no formula"
        assert len(text) <= 75
