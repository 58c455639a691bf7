"""Pictures of groups of runs: the line, its interval, and how many runs are in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stoker import EpisodeRecord, EpisodeStatus
from stoker.runs import TrainingRun
from stoker.runs.group_plotting import CurveGroup, draw_groups
from stoker.runs.plotting import Curves
from stoker.runs.smoothing import Smoothing, smoothed


async def curves_of(root: Path, seed: int, evaluations: tuple[int, ...] = (100, 300, 600)) -> Curves:
    run = await TrainingRun.create("r", root=root / str(seed))
    generator = np.random.default_rng(seed)
    for reward in generator.normal(size=60):
        await run.log_train_episode(EpisodeRecord(float(reward), 10, EpisodeStatus.TERMINATED))
    for step in evaluations:
        for reward in generator.normal(step, 20.0, size=4):
            await run.log_eval_episode(EpisodeRecord(float(reward), 10, EpisodeStatus.TERMINATED), step)
    await run.aclose()
    return run.curves()


@pytest.mark.anyio
async def test_the_picture_shows_the_seeds_their_mean_and_its_interval(tmp_path: Path) -> None:
    runs = [await curves_of(tmp_path, seed) for seed in range(5)]
    figure, left_out = draw_groups([CurveGroup("dqn", "E", runs)], "Five seeds")
    assert left_out == ()
    above, below = figure.axes
    assert len(above.lines) == 6
    *seeds, mean = (line.get_ydata() for line in above.lines)
    assert above.lines[-1].get_xdata().tolist() == [100.0, 300.0, 600.0]
    rewards = [run.evaluation["total_reward"].reshape(3, 4).mean(axis=1) for run in runs]
    assert np.array(seeds) == pytest.approx(np.array(rewards))
    assert mean == pytest.approx(np.mean(rewards, axis=0))
    [band] = above.collections
    corners = band.get_paths()[0].vertices
    half = 2.7764451 * np.std(rewards, axis=0, ddof=1) / 5**0.5
    for step, low, high in zip((100, 300, 600), mean - half, mean + half, strict=True):
        there = corners[corners[:, 0] == step, 1]
        assert (there.min(), there.max()) == pytest.approx((low, high), rel=1e-4)
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["dqn (5 runs)"]
    assert legend.get_title().get_text() == "Five seeds"
    assert below.lines[-1].get_ydata() == pytest.approx(np.full(60, 10.0))
    assert "interquartile" not in figure.get_supxlabel()


@pytest.mark.anyio
async def test_without_evaluations_of_all_runs_it_is_of_training_episodes(tmp_path: Path) -> None:
    runs = [await curves_of(tmp_path, 0), await curves_of(tmp_path, 1, evaluations=(100,))]
    how = Smoothing("ema", 0.5)
    groups = [CurveGroup("one", "E", runs[:1]), CurveGroup("two", "E", runs[1:])]
    figure, _ = draw_groups(groups, smoothing=how)
    above, _ = figure.axes
    for run, line in zip(runs, above.lines, strict=True):
        assert line.get_ydata() == pytest.approx(smoothed(run.train["total_reward"], how))
    assert above.get_ylabel() == "episode reward"


@pytest.mark.anyio
async def test_where_runs_have_ended_the_line_is_dashed_and_the_legend_counts(tmp_path: Path) -> None:
    runs = [await curves_of(tmp_path, 0), await curves_of(tmp_path, 1, evaluations=(100, 300))]
    figure, _ = draw_groups([CurveGroup("dqn", "E", runs)], statistic="iqm")
    above, below = figure.axes
    dashed, solid = above.lines[-2:]
    assert dashed.get_linestyle() != solid.get_linestyle() == "-"
    assert np.isnan(dashed.get_ydata()).tolist() == [True, False, False]
    assert np.isnan(solid.get_ydata()).tolist() == [False, False, True]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["dqn (1\N{EN DASH}2 runs)"]
    assert "interquartile mean, band: its 95 % interval (bootstrap)" in figure.get_supxlabel()
    assert len(below.lines) == 3, "both runs have reached the same step, whenever their episodes ended"


@pytest.mark.anyio
async def test_each_environment_has_a_picture_with_the_same_colors(tmp_path: Path) -> None:
    runs = [await curves_of(tmp_path, seed) for seed in range(3)]
    groups = [
        CurveGroup("agent=dqn", "CartPole-v1", runs[:2]),
        CurveGroup("agent=ppo", "CartPole-v1", runs[2:]),
        CurveGroup("agent=ppo", "Acrobot-v1", runs[:1]),
    ]
    figure, _ = draw_groups(groups)
    one, other = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["CartPole-v1", "Acrobot-v1"]
    assert one.lines[-1].get_color() == other.lines[-1].get_color() != one.lines[0].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["agent=dqn", "agent=ppo"]
    assert one.get_title(loc="right") == "n = 2, 1"
    assert other.get_title(loc="right") == "n = 1"
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_runs_without_a_number_are_named_and_the_others_drawn() -> None:
    none = np.empty(0)
    nothing = {"total_steps_at_eval": none, "total_reward": none}
    rows = {"total_steps": np.array([1, 2]), "length": np.array([1, 1])}
    diverged = Curves("a/v1", "1", rows | {"total_reward": np.full(2, np.nan)}, nothing, 2)
    whole = Curves("b/v1", "1", rows | {"total_reward": np.ones(2)}, nothing, 2)
    figure, left_out = draw_groups([CurveGroup("a", "E", [diverged]), CurveGroup("b", "F", [whole])])
    assert [(left.label, left.reason) for left in left_out] == [("a/v1/1", "none of its values is a number")]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["b"]
    figure, left_out = draw_groups([CurveGroup("a", "E", [diverged])])
    assert len(left_out) == 1
    assert figure._repr_png_().startswith(b"\x89PNG")
