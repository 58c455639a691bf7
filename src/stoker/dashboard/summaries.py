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

LAST: Final = 100
"""The episodes of ``last_mean``, and all rows that a summary needs of a file."""

_LONGEST = 200
_MOST_SETTINGS = 300
_ENDLESS = 10**15
"""The total of a training without an end."""


class SummaryNews(msgspec.Struct, frozen=True, kw_only=True):
    """What changes about a run while it is trained. Times are POSIX seconds.

    Attributes:
        id: the run's id.
        status, reason: whether it is alive, and why not.
        last_updated: the newest of its rows.
        total_steps, total_episodes: so far.
        best_value, best_step: of its best evaluated policy.
        last_mean: the mean reward of its last 100 training episodes.
        steps_per_s: of its last record.
    """

    id: str
    status: str
    reason: str
    last_updated: float | None = None
    total_steps: int = 0
    total_episodes: int = 0
    best_value: float | None = None
    best_step: int | None = None
    last_mean: float | None = None
    steps_per_s: float | None = None


class Summary(SummaryNews, frozen=True, kw_only=True):
    """A run in the list of runs.

    Attributes:
        name, version, run_id: its place below the runs directory.
        path: its directory below the root, for people.
        group: ``name/version``: the runs of one group are seeds of each other.
        started_at: when it began.
        wanted_steps: the steps that it was to take.
        env, agent, seed: from its config.
        settings: each setting by its dotted key.
    """

    name: str
    version: str
    run_id: str
    path: str
    group: str
    started_at: float | None = None
    wanted_steps: int | None = None
    env: Scalar = None
    agent: Scalar = None
    seed: Scalar = None
    settings: Mapping[str, Scalar] = {}

    @property
    def news(self) -> SummaryNews:
        """What changes about it."""
        return SummaryNews(**{name: getattr(self, name) for name in SummaryNews.__struct_fields__})

    def has_same_facts(self, other: Summary) -> bool:
        """Whether only the news differ."""
        return all(getattr(self, name) == getattr(other, name) for name in _FACTS)


_FACTS = sorted({*Summary.__struct_fields__} - {*SummaryNews.__struct_fields__})


class SummaryMaker:
    """Makes the line about one run, again and again. Not for several threads at once.

    Args:
        run_id: its id.
        root: the runs directory.
        directory: the run's.
    """

    __slots__ = ("_config", "_id", "_path", "_settings")

    def __init__(self, run_id: str, root: Path, directory: Path) -> None:
        self._id = run_id
        self._path = encodable(os.path.relpath(directory, root))
        self._config: Any = None
        self._settings: Mapping[str, Scalar] = {}  # those of that config

    def summary(self, history: RunHistory, status: RunStatus) -> Summary:
        """The line.

        Args:
            history: what was read of the run; its ends are enough.
            status: as it is now.
        """
        metadata = history.metadata
        if metadata is None:
            name, version, last = ("", "", *Path(self._path).parts)[-3:]
            group = f"{name}/{version}".strip("/")
            reason = encodable(status.reason)
            return Summary(
                id=self._id, name=name, version=version, run_id=last, path=self._path, group=group,
                status=status.name, reason=reason,
            )  # fmt: skip
        settings = self._settings_of(history)
        wanted = wanted_steps(history.config)
        train, metrics = history.train, history.metrics
        rewards = train.column("total_reward")[history.effective(train)][-LAST:]
        ends = [table.column("time")[-1:] for table in (train, history.evaluation, metrics)]
        times = [float(end[0]) for end in ends if len(end)]
        steps = [int(table.column("total_steps")[-1]) for table in (train, metrics) if table.n_rows]
        episodes = train.column("episode")[-1:]
        return Summary(
            id=self._id,
            name=encodable(metadata.name),
            version=encodable(metadata.version),
            run_id=encodable(metadata.run_id),
            path=self._path,
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

    def _settings_of(self, history: RunHistory) -> Mapping[str, Scalar]:
        """The settings: the same object, as long as the history has the same config."""
        if history.config is not self._config:
            self._config, self._settings = history.config, _short_settings(history.config)
        return self._settings


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
