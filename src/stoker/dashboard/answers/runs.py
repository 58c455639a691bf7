"""The list of runs, whole or only what has changed in it; and a small curve of each."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

import msgspec
import numpy as np

from stoker.dashboard.answers.curves import EVALUATIONS, curve_of
from stoker.dashboard.answers.rounding import short
from stoker.dashboard.index import Index
from stoker.dashboard.reading import RunEntry
from stoker.dashboard.summaries import Summary, SummaryNews
from stoker.plain import encodable
from stoker.runs.bucketing import bucketed
from stoker.runs.history import RunHistory

_ALL_SETTINGS = 500
"""Lists of up to so many runs have all settings; longer ones those in which runs differ."""
_SPARK_POINTS = 60
_SPARK_DIGITS = 5
_WINDOW = 0.05
"""A training reward in a small curve is the mean over that share of the run."""


class RunList(msgspec.Struct, frozen=True):
    """The runs below the root.

    Attributes:
        root: the directory.
        is_scanned: whether all of it was looked at.
        is_partial: ``runs`` holds only those that changed since the cursor of the request.
        cursor: to be sent with the next request.
        runs: a line for each; in a partial answer only its news, unless more has changed.
        removed: the ids of runs that are gone since that cursor.
        hint: how to begin, where there are none.
        left_out: directories that were not followed, and why.
    """

    root: str
    is_scanned: bool
    is_partial: bool
    cursor: str
    runs: Sequence[SummaryNews]
    removed: list[str]
    hint: str | None
    left_out: list[str]


class RunLister:
    """Answers with the list of runs; from any thread.

    Args:
        index: the runs.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._differing: Collection[str] = ()
        self._compared = -1  # the version of the settings that were compared
        self._differing_since = 0  # the version of the list since which these settings differ

    def answer(self, cursor: str = "") -> RunList:
        """The list, or what changed in it since that cursor."""
        index = self._index
        now, since = index.version, _since(index, cursor)
        entries = list(index.entries.values())  # in one step: the event loop changes the dict
        if len(entries) > _ALL_SETTINGS:
            self._compare_settings(entries, now)
            if since is not None and since < self._differing_since:
                since = None
        shown = [
            self._line(entry.facts_version, summary, since, len(entries))
            for entry in entries
            if (since is None or entry.version > since) and (summary := entry.summary) is not None
        ]
        gone = () if since is None else (run_id for version, run_id in index.removed if version > since)
        return RunList(
            root=encodable(os.fspath(index.root)),
            is_scanned=index.is_scanned,
            is_partial=since is not None,
            cursor=f"{index.nonce}.{now}",
            runs=shown,
            removed=[run_id for run_id in gone if run_id not in index.entries],
            hint=_hint(index) if index.is_scanned and not entries else None,
            left_out=[encodable(line) for line in index.left_out],
        )

    def _compare_settings(self, entries: Sequence[RunEntry], now: int) -> None:
        """Look again in which settings the runs differ, if these have changed."""
        version = self._index.facts_version
        if version != self._compared:
            differing = _differing([summary for entry in entries if (summary := entry.summary) is not None])
            if differing != self._differing:
                self._differing, self._differing_since = differing, now
            self._compared = version

    def _line(self, changed: int, summary: Summary, since: int | None, n: int) -> SummaryNews:
        """A line: only the news where nothing else has changed; of many runs, the settings that differ."""
        if since is not None and changed <= since:
            return summary.news
        if n <= _ALL_SETTINGS:
            return summary
        settings = {key: value for key, value in summary.settings.items() if key in self._differing}
        return msgspec.structs.replace(summary, settings=settings)


def _since(index: Index, cursor: str) -> int | None:
    nonce, _, version = cursor.partition(".")
    is_known = nonce == index.nonce and version.isdecimal() and len(version) < 16
    return int(version) if is_known and int(version) >= index.known_from else None


def _differing(summaries: Sequence[Summary]) -> Collection[str]:
    """The settings that not all runs have with the same value."""
    first: dict[str, object] = {}
    counts: dict[str, int] = {}
    differing: set[str] = set()
    for summary in summaries:
        for key, value in summary.settings.items():
            counts[key] = counts.get(key, 0) + 1
            if first.setdefault(key, value) != value:
                differing.add(key)
    n = sum(1 for summary in summaries if summary.settings)
    return differing | {key for key, count in counts.items() if count < n}


def _hint(index: Index) -> str:
    root = encodable(os.fspath(index.root))
    missing = f"no runs in {root} yet" if index.root.exists() else f"{root} does not exist yet"
    return (
        f"{missing}. Start one beside this page: "
        f"`stoker train CartPole-v1 --runs-dir {root}`; it appears here by itself."
    )


def spark(history: RunHistory) -> list[float]:
    """The mean rewards of its evaluations; without these, the running mean of its training rewards."""
    curve = curve_of(history, EVALUATIONS, "steps")
    if len(curve.x) < 2 and history.train.n_rows:
        curve = curve_of(history, "train.total_reward", "steps")
        n = len(curve.values)
        window = max(1, int(n * _WINDOW))
        sums = np.cumsum(np.append(0.0, np.nan_to_num(curve.values.astype(np.float64))))
        ends = np.unique(np.linspace(min(window, n), n, _SPARK_POINTS).astype(int))
        means = (sums[ends] - sums[np.maximum(ends - window, 0)]) / np.minimum(ends, window)
        return short(means, _SPARK_DIGITS)
    return short(bucketed(curve.x, curve.values, n_points=_SPARK_POINTS).mean, _SPARK_DIGITS)
