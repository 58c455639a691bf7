"""The evaluations of a run, each with its interval."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from stoker.runs.history import RunHistory
from stoker.stats.intervals import interquartile_means, t_quantile


class Evaluation(msgspec.Struct, frozen=True):
    """One evaluation.

    Attributes:
        step: ``total_steps`` of its policy.
        time: when it ended, POSIX seconds.
        n: its episodes.
        mean: of their total rewards; so are std, min, max and iqm.
        low, high: the 95 % interval of the mean, Student's; of one episode, its reward.
        iqm: the interquartile mean.
        mean_length: of their lengths.
        is_best: whether its policy is the best one of the run.
    """

    step: int
    time: float
    n: int
    mean: float
    low: float
    high: float
    std: float
    min: float
    max: float
    iqm: float
    mean_length: float
    is_best: bool


def evaluations_answer(history: RunHistory) -> list[Evaluation]:
    """Every evaluation, in the order of its steps."""
    table = history.evaluation
    rows = history.effective(table)
    order = np.argsort(table.column("total_steps_at_eval")[rows], kind="stable")
    steps, starts = np.unique(table.column("total_steps_at_eval")[rows][order], return_index=True)
    rewards = table.column("total_reward")[rows][order].astype(np.float64)
    lengths, times = table.column("length")[rows][order], table.column("time")[rows][order]
    ends = [*starts[1:].tolist(), len(order)]
    best = None if history.metadata is None else history.metadata.best_step
    found: list[Evaluation] = []
    for step, start, end in zip(steps.tolist(), starts.tolist(), ends, strict=False):
        part = rewards[start:end]
        n, mean = end - start, float(part.mean())
        half = t_quantile(n - 1) * float(part.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
        found.append(
            Evaluation(
                step=step,
                time=float(times[start:end].max()),
                n=n,
                mean=mean,
                low=mean - half,
                high=mean + half,
                std=float(part.std()),
                min=float(part.min()),
                max=float(part.max()),
                iqm=float(interquartile_means(part)),
                mean_length=float(lengths[start:end].mean()),
                is_best=step == best,
            )
        )
    return found
