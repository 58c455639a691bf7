"""Which checkpoint ``stoker eval`` scores, also while the run goes on and prunes."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from stoker.errors import CheckpointNotFound, ConfigError
from stoker.runs import Retention, TrainingRun
from stoker.runs.wanted import load_wanted


@pytest.fixture
def run(tmp_path: Path) -> TrainingRun:
    """A run with checkpoints at 10 and 20, and no best one."""
    run = anyio.run(lambda: TrainingRun.create("x", root=tmp_path / "runs"))
    run.acquire()
    for step in (10, 20):
        run.publish_step({"step": step, "journal": None}, step)
    run.release()
    return run


def test_which_one(run: TrainingRun) -> None:
    for wanted, step in ((None, 20), ("latest", 20), ("10", 10)):
        path, state = load_wanted(run, wanted)
        assert (path, state["step"]) == (run.checkpoint_path(step), step)
    run.acquire()
    run.publish_best({"best": {"value": 1.0, "total_steps": 10}, "step": 10})
    run.release()
    for wanted in (None, "best"):
        assert load_wanted(run, wanted)[0] == run.best_checkpoint_path


@pytest.mark.parametrize("wanted", ["best", "15"])
def test_one_that_is_not_there(run: TrainingRun, wanted: str) -> None:
    with pytest.raises(CheckpointNotFound, match=rf"has no checkpoint {wanted}: it has latest, 10, 20$"):
        load_wanted(run, wanted)


def test_what_names_none(run: TrainingRun) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint 'newest': give best, latest or a step"):
        load_wanted(run, "newest")


class Pruning(TrainingRun):
    """A run whose training goes on, and prunes, just after it was looked for the newest checkpoint."""

    n_left = 0

    @property
    def latest_checkpoint_path(self) -> Path:
        path = super().latest_checkpoint_path
        if self.n_left:
            self.n_left -= 1
            step = self.checkpoint_steps()[-1] + 1
            self.publish_step({"step": step, "journal": None}, step, Retention(last=1))
        return path


@pytest.mark.parametrize("wanted", [None, "latest"])
def test_one_that_is_pruned_before_it_is_read_is_looked_for_again(
    run: TrainingRun, wanted: str | None
) -> None:
    live = Pruning(run.directory, run.metadata)
    live.acquire()
    live.n_left = 3
    path, state = load_wanted(live, wanted)
    assert (path.name, state["step"]) == ("step_23.pt", 23)
    live.n_left = 1_000  # not for ever
    with pytest.raises(CheckpointNotFound, match=r"x/v1/\d+_\d+ has no checkpoint"):
        load_wanted(live, wanted)
    assert live.n_left > 900
    live.release()
