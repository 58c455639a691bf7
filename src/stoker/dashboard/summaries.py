"""A run's line in the list of runs: from its metadata, its config and the ends of its files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.plain import encodable
from stoker.runs.configs import Scalar, flat_settings
from stoker.runs.history import RunHistory
from stoker.runs.status import RunStatus, wanted_steps

__all__ = ["LAST", "Summary", "SummaryLine", "summary_of"]

LAST: Final = 100
"""The episodes of ``last_mean``, and all rows that a summary needs of a file."""

_LONGEST = 200
_MOST_SETTINGS = 300
_ENDLESS = 10**15
"""The total of a training without an end."""


class SummaryLine(msgspec.Struct, frozen=True, kw_only=True):
    """A run in the list of runs, without its settings. Times are POSIX seconds.

    Attributes:
        id: the run's id.
        name, version, run_id: its place below the runs directory.
        path: its directory below the root, for people.
        group: ``name/version``: the runs of one group are seeds of each other.
        status, reason: whether it is alive, and why not.
        started_at, last_updated: when it began, and the newest of its rows.
        total_steps, total_episodes: so far.
        wanted_steps: the steps that it was to take.
        best_value, best_step: of its best evaluated policy.
        last_mean: the mean reward of its last 100 training episodes.
        steps_per_s: of its last record.
        env, agent, seed: from its config.
    """

    id: str
    name: str
    version: str
    run_id: str
    path: str
    group: str
    status: str
    reason: str
    started_at: float | None = None
    last_updated: float | None = None
    total_steps: int = 0
    wanted_steps: int | None = None
    total_episodes: int = 0
    best_value: float | None = None
    best_step: int | None = None
    last_mean: float | None = None
    steps_per_s: float | None = None
    env: Scalar = None
    agent: Scalar = None
    seed: Scalar = None


class Summary(SummaryLine, frozen=True, kw_only=True):
    """The same with its settings.

    Attributes:
        settings: each setting by its dotted key.
    """

    settings: Mapping[str, Scalar] = {}

    def line(self) -> SummaryLine:
        """It without its settings."""
        return SummaryLine(**{name: getattr(self, name) for name in SummaryLine.__struct_fields__})


def summary_of(run_id: str, root: Path, history: RunHistory, status: RunStatus) -> Summary:
    """The line about a run.

    Args:
        run_id: its id.
        root: the runs directory.
        history: what was read of it; its ends are enough.
        status: as it is now.
    """
    path = encodable(os.path.relpath(history.directory, root))
    parts = ("", "", *Path(path).parts)[-3:]
    metadata = history.metadata
    if metadata is None:
        name, version, last = parts
        group = f"{name}/{version}".strip("/")
        reason = encodable(status.reason)
        return Summary(
            id=run_id, name=name, version=version, run_id=last, path=path, group=group,
            status=status.name, reason=reason,
        )  # fmt: skip
    settings = _short_settings(history.config)
    wanted = wanted_steps(history.config)
    train, metrics = history.train, history.metrics
    rewards = train.column("total_reward")[history.effective(train)][-LAST:]
    ends = [table.column("time")[-1:] for table in (train, history.evaluation, metrics)]
    times = [float(end[0]) for end in ends if len(end)]
    steps = [int(table.column("total_steps")[-1]) for table in (train, metrics) if table.n_rows]
    episodes = train.column("episode")[-1:]
    return Summary(
        id=run_id,
        name=encodable(metadata.name),
        version=encodable(metadata.version),
        run_id=encodable(metadata.run_id),
        path=path,
        group=encodable(f"{metadata.name}/{metadata.version}"),
        status=status.name,
        reason=encodable(status.reason),
        started_at=metadata.started_at.timestamp(),
        last_updated=max([metadata.last_updated.timestamp(), *times]),
        total_steps=max([metadata.total_steps, *steps]),
        wanted_steps=None if wanted is None or wanted >= _ENDLESS else wanted,
        total_episodes=max([metadata.total_episodes, *episodes.tolist()]),
        best_value=_finite(metadata.best_value),
        best_step=metadata.best_step,
        last_mean=_finite(rewards.mean()) if len(rewards) else None,
        steps_per_s=_speed(history),
        env=settings.get("env"),
        agent=settings.get("agent"),
        seed=settings.get("seed"),
        settings=settings,
    )


def _short_settings(config: Any) -> dict[str, Scalar]:
    """The settings by flat names: the first of many, with long texts cut."""
    return {_cut(key): _cut(value) for key, value in islice(flat_settings(config).items(), _MOST_SETTINGS)}


def _cut(value: Any) -> Any:
    return f"{value[: _LONGEST - 3]}..." if isinstance(value, str) and len(value) > _LONGEST else value


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _speed(history: RunHistory) -> float | None:
    """Steps per second by the last record that says so; else by the last episodes."""
    metrics, train = history.metrics, history.train
    if "metrics.time/fps" in metrics.names:
        rates: NDArray[np.float64] = metrics.column("metrics.time/fps")[-LAST:]
        rates = rates[np.isfinite(rates)]
        if len(rates):
            return float(rates[-1])
    times, steps = train.column("time")[-LAST:], train.column("total_steps")[-LAST:]
    if len(times) < 2 or times[-1] <= times[0]:
        return None
    return float((steps[-1] - steps[0]) / (times[-1] - times[0]))
