"""The mean of several seeds: its numbers, the picture of them, and what has no mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stoker import ConfigError, EpisodeRecord, EpisodeStatus
from stoker.runs import TrainingRun
from stoker.runs.averaging import mean_curve
from stoker.runs.plotting import Curves, draw_means, running_mean

STEPS = np.array([100, 200, 300])


def test_curves_at_the_same_steps_are_averaged_there() -> None:
    values = np.array([[1.0, 2.0, 5.0], [3.0, 2.0, 9.0], [2.0, 2.0, 4.0], [6.0, 2.0, 1.0], [3.0, 2.0, 6.0]])
    found = mean_curve([(STEPS, row) for row in values], "x")
    assert found.n == 5
    assert found.steps.tolist() == [100.0, 200.0, 300.0]
    assert found.mean.tolist() == values.mean(axis=0).tolist()
    half = 2.7764451 * values.std(axis=0, ddof=1) / 5**0.5  # Student's t, 4 degrees of freedom
    assert found.high - found.mean == pytest.approx(half, rel=1e-5)
    assert found.mean - found.low == pytest.approx(half, rel=1e-5)


def test_curves_at_other_steps_are_taken_between_their_points_where_all_have_them() -> None:
    line, other = np.array([0.0, 1000.0]), np.array([500.0, 700.0, 900.0])
    found = mean_curve([(line, line / 100), (other, other / 50)], "x")
    assert (found.steps[0], found.steps[-1]) == (500.0, 900.0)
    assert found.mean == pytest.approx(found.steps * 0.015)


def test_one_curve_is_its_own_mean_and_has_no_band() -> None:
    found = mean_curve([(STEPS, STEPS * 2.0)], "x")
    assert found.mean.tolist() == found.low.tolist() == found.high.tolist() == [200.0, 400.0, 600.0]


def test_runs_without_a_common_step_have_no_mean() -> None:
    with pytest.raises(ConfigError, match=r"dqn: one run begins at step 400, another ends at 300: .*--mean"):
        mean_curve([(STEPS, STEPS), (STEPS + 300, STEPS)], "dqn")


async def curves_of(root: Path, seed: int, evaluates: bool = True) -> Curves:
    run = await TrainingRun.create("r", root=root / str(seed))
    generator = np.random.default_rng(seed)
    for reward in generator.normal(size=60):
        await run.log_train_episode(EpisodeRecord(float(reward), 10, EpisodeStatus.TERMINATED))
    for step in (100, 300, 600) if evaluates else ():
        for reward in generator.normal(step, 20.0, size=4):
            await run.log_eval_episode(EpisodeRecord(float(reward), 10, EpisodeStatus.TERMINATED), step)
    await run.aclose()
    return run.curves()


@pytest.mark.anyio
async def test_the_picture_shows_the_seeds_their_mean_and_its_interval(tmp_path: Path) -> None:
    runs = [await curves_of(tmp_path, seed) for seed in range(5)]
    figure = draw_means({"dqn": runs}, "Five seeds")
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
    assert [text.get_text() for text in above.get_legend().get_texts()] == ["dqn (5 runs)"]
    assert figure.get_suptitle() == "Five seeds"
    assert below.lines[-1].get_ydata() == pytest.approx(np.full(60, 10.0))


@pytest.mark.anyio
async def test_without_evaluations_of_all_runs_it_is_of_training_episodes(tmp_path: Path) -> None:
    runs = [await curves_of(tmp_path, 0), await curves_of(tmp_path, 1, evaluates=False)]
    above, _ = draw_means({"one": runs[:1], "two": runs[1:]}).axes
    assert len(above.lines) == 4
    for run, line in zip(runs, above.lines[1::2], strict=True):
        assert line.get_ydata() == pytest.approx(running_mean(run.train["total_reward"], 50))
