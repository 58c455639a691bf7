"""What a training came to, for people and for scripts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from stoker.cli.formats import command, from_here
from stoker.trainer.views.numbers import duration, number
from stoker.trainer.views.readings import Reading

if TYPE_CHECKING:
    from stoker.trainer import Progress, TrainConfig, TrainResult

__all__ = ["json_line", "result_of", "summary"]


def json_line(result: TrainResult) -> str:
    """What a script reads of a training."""
    return json.dumps(
        {
            "run": result.run,
            "total_steps": result.total_steps,
            "total_episodes": result.total_episodes,
            "steps_per_sec": result.steps_per_sec,
            "best_eval_reward": result.best_eval_reward,
        }
    )


def result_of(progress: Progress, run: str) -> TrainResult:
    """The result of a training that was cut short, as it would have said itself."""
    from stoker.trainer import TrainResult

    session, last = progress.session, progress.evaluator.last
    return TrainResult(
        run=run,
        total_steps=session.total_steps,
        total_episodes=session.total_episodes,
        steps_per_sec=session.steps_per_sec,
        best_eval_reward=session.best_value,
        last_eval_reward=last and last.mean_reward,
        restarts=progress.group.restarts,
        opt_steps=session.opt_steps,
        stopped_because=progress.evaluator.stopped_because,
    )


def summary(
    result: TrainResult, config: TrainConfig, reading: Reading | None, stopped: str | None
) -> list[str]:
    """The lines that end a training.

    Args:
        result: what it came to.
        config: what was trained.
        reading: the last one, if there was one.
        stopped: how it was stopped before its end, such as ``Interrupted``; None: by itself.
    """
    is_short = result.total_steps < config.total_timesteps
    goal, last = config.stop_at_reward, result.last_eval_reward
    reached = goal is not None and last is not None and last >= goal
    goes_on = stopped is not None and is_short
    head = stopped if goes_on else f"Reached {goal:g}" if reached else "Done"
    if result.stopped_because is not None and not reached and not goes_on:
        head = "Ended early"
    of_total = f" of {config.total_timesteps:,}" if is_short else ""
    elapsed = "" if reading is None else f" in {duration(reading.elapsed_s)}"
    lines = [
        f"{head}: {result.total_steps:,}{of_total} steps, {result.total_episodes:,} episodes{elapsed} "
        f"({result.steps_per_sec:,.0f} steps/s)"
    ]
    rows: list[tuple[str, str]] = []
    if result.best_eval_reward is not None:
        at = "" if reading is None or reading.best_step is None else f" @ step {reading.best_step:,}"
        rows.append(("best evaluation", f"{number(result.best_eval_reward)}{at}"))
    if last is not None:
        rows.append(("last evaluation", number(last)))
    if reading is not None and reading.curve:
        rows.append(("last 100 episodes", number(reading.mean_reward)))
    if head == "Ended early":
        rows.append(("why", result.stopped_because or ""))
    if result.restarts:
        rows.append(("env restarts", number(result.restarts)))
    rows.append(("run", from_here(result.run)))
    rows.append(("see the curve", command(["stoker", "plot", result.run, "-o", "curve.png"])))
    if goes_on:
        rows.append(("go on", command(["stoker", "resume", result.run])))
    return lines + [f"  {label:<18} {value}" for label, value in rows]
