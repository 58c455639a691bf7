"""Runs as one HTML file: the page with its data, which opens anywhere, without a server or a network.

The answers are those of the dashboard's API, except that each table of a run is reduced: several rows become
one, with their mean, their lowest and highest value and their number. ``page/offline.js`` answers from these.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker import __version__
from stoker.dashboard.answers.compare import DiffAnswer, diff_answer
from stoker.dashboard.answers.curves import AXES, EVALUATIONS, Axis, curve_of
from stoker.dashboard.answers.details import RunDetails, details_answer
from stoker.dashboard.answers.episodes import Episode, EpisodeQuery, episodes_answer
from stoker.dashboard.answers.evaluations import Evaluation, evaluations_answer
from stoker.dashboard.answers.events import Event, events_answer
from stoker.dashboard.answers.paging import Page
from stoker.dashboard.answers.rounding import short
from stoker.dashboard.answers.runs import RunList, spark
from stoker.dashboard.answers.shares import PartShares, shares_answer
from stoker.dashboard.finding import id_of
from stoker.dashboard.inlining import inlined
from stoker.dashboard.summaries import Summary, SummaryMaker
from stoker.errors import ConfigError
from stoker.plain import encodable
from stoker.runs.bucketing import bucketed
from stoker.runs.configs import Facts, grouped
from stoker.runs.history import RunHistory
from stoker.runs.status import status_of
from stoker.stats.intervals import t_quantile
from stoker.writer import files

MOST_RUNS: Final = 200
"""How many runs one report may hold."""

_MOST_BYTES = 24_000_000
"""About what the curves of all runs may take."""
_MOST_POINTS, _LEAST_POINTS = 2000, 100
_BYTES = 9
"""Of a number, with its comma."""
_DIGITS = 7
_BEST, _NEWEST = 100, 300
"""Episodes of each kind: so many of the best, and of the worst; so many of the newest."""
_EVENTS = 500
_SHARES = 200


class ReportTable(msgspec.Struct, frozen=True):
    """Where the points of curves lie, of which several may be one.

    Attributes:
        counts: how many points each is.
        x: the last place of each, by axis.
    """

    counts: list[int]
    x: dict[Axis, list[float]]


class ReportCurve(msgspec.Struct, frozen=True, omit_defaults=True):
    """A curve of a run; null is a gap.

    Attributes:
        table: the place of its table in those of the run.
        mean, min, max: of the points that are one; min and max are left out where each is a single one.
    """

    table: int
    mean: list[float]
    min: list[float] | None = None
    max: list[float] | None = None


class ReportRun(msgspec.Struct, frozen=True):
    """What a report holds of a run."""

    run: RunDetails
    evaluations: list[Evaluation]
    events: Page[Event]
    shares: dict[Axis, list[PartShares]]
    episodes: dict[str, Page[Episode]]
    tables: list[ReportTable]
    curves: dict[str, ReportCurve]


class Grouping(msgspec.Struct, frozen=True):
    """The groups of all runs by a setting: their labels, and the place of each run's."""

    labels: list[str]
    groups: dict[str, int]


class Report(msgspec.Struct, frozen=True):
    """What ``page/offline.js`` answers from.

    Attributes:
        made_at: when it was made, POSIX seconds.
        note: what it leaves out, in a sentence.
        list: the list of runs.
        sparks: their small curves, by id.
        runs: by id.
        diff: how their configs differ.
        groupings: by ``version`` and each setting.
        factors: Student's factor for each number of runs.
    """

    made_at: float
    note: str
    list: RunList
    sparks: dict[str, list[float]]
    runs: dict[str, ReportRun]
    diff: DiffAnswer
    groupings: dict[str, Grouping]
    factors: list[float]


def write_report(target: Path, directories: Sequence[Path]) -> int:
    """Write the report of these runs as one HTML file, whole or not at all; return its bytes. Blocks.

    Raises:
        ConfigError: There is no run, or there are too many.
        WriteFailed: The file cannot be written.
    """
    report = make_report(directories)
    groups = list(dict.fromkeys(run.run.group for run in report.runs.values()))
    title = groups[0] if len(groups) == 1 else f"{len(report.runs)} runs"
    document = inlined(report, f"{title} · stoker").encode()
    files.write_atomically(target, lambda file: file.write(document))
    return len(document)


def make_report(directories: Sequence[Path]) -> Report:
    """Read these runs, whatever state they are in. Blocks.

    Raises:
        ConfigError: There is no run, or there are too many.
    """
    places = list(dict.fromkeys(directory.resolve() for directory in directories))
    if not 1 <= len(places) <= MOST_RUNS:
        raise ConfigError(f"{len(places)} runs: a report holds from 1 to {MOST_RUNS}; name some of them")
    root = Path(os.path.commonpath([_root_of(place) for place in places]))
    runs: dict[str, ReportRun] = {}
    sparks: dict[str, list[float]] = {}
    configs: dict[str, Any] = {}
    for place in places:
        run_id = id_of(root, place)
        history = RunHistory(place)
        history.refresh()
        configs[run_id] = history.config
        summary = SummaryMaker(run_id, root, place).summary(history, status_of(history))
        runs[run_id] = _run(history, summary, root, _MOST_BYTES // len(places))
        sparks[run_id] = spark(history)
    summaries = [_summary(run.run) for run in runs.values()]
    return Report(
        made_at=time.time(),
        note=_note(runs.values()),
        list=RunList(
            root="",
            is_scanned=True,
            is_partial=False,
            cursor="report",
            runs=summaries,
            removed=[],
            hint=None,
            left_out=[],
        ),
        sparks=sparks,
        runs=runs,
        diff=diff_answer(configs),
        groupings=_groupings(summaries),
        factors=[0.0, 0.0, *(t_quantile(n - 1) for n in range(2, len(runs) + 1))],
    )


def _root_of(run: Path) -> Path:
    """The runs directory of a run, above name and version: so its id is that of the dashboard."""
    return run.parents[2] if len(run.parents) > 2 else run.parent


def _from_root(run: RunDetails, root: Path) -> RunDetails:
    """Details whose sentences name paths below the root: readers need not know where that is."""
    place = f"{encodable(os.fspath(root))}{os.sep}"
    problems = [problem.replace(place, "") for problem in run.problems]
    return msgspec.structs.replace(run, reason=run.reason.replace(place, ""), problems=problems)


def _summary(run: RunDetails) -> Summary:
    return Summary(**{name: getattr(run, name) for name in Summary.__struct_fields__})


def _run(history: RunHistory, summary: Summary, root: Path, n_bytes: int) -> ReportRun:
    details = _from_root(details_answer(history, summary), root)
    names = [EVALUATIONS, *(series.name for series in details.series)]
    n_points = min(_MOST_POINTS, max(_LEAST_POINTS, n_bytes // (3 * _BYTES * len(names))))
    tables: dict[bytes, int] = {}
    found: list[ReportTable] = []
    curves: dict[str, ReportCurve] = {}
    for name in names:
        places: dict[Axis, NDArray[Any]] = {axis: curve_of(history, name, axis).x for axis in AXES}
        values = curve_of(history, name, "steps").values
        key = b"|".join(x.tobytes() for x in places.values())
        if key not in tables:
            tables[key] = len(found)
            found.append(_table(places, n_points))
        curves[name] = _curve(tables[key], values, n_points)
    return ReportRun(
        run=details,
        evaluations=evaluations_answer(history),
        events=events_answer(history, rows=slice(_EVENTS)),
        shares={axis: shares_answer(history, _SHARES, axis) for axis in AXES},
        episodes={kind: _episodes(history, kind) for kind in ("train", "eval")},
        tables=found,
        curves=curves,
    )


def _table(places: Mapping[Axis, NDArray[Any]], n_points: int) -> ReportTable:
    rows = np.arange(len(places["steps"]))
    last = bucketed(rows, rows, n_points=n_points).x.astype(np.intp)
    return ReportTable(
        counts=np.diff(last, prepend=-1).tolist(),
        x={axis: [round(value, 2) for value in x[last].tolist()] for axis, x in places.items()},
    )


def _curve(table: int, values: NDArray[Any], n_points: int) -> ReportCurve:
    found = bucketed(np.arange(len(values)), values, n_points=n_points)
    mean, low, high = (short(column, _DIGITS) for column in (found.mean, found.min, found.max))
    return ReportCurve(table, mean) if found.is_whole else ReportCurve(table, mean, low, high)


def _episodes(history: RunHistory, kind: Any) -> Page[Episode]:
    """The newest, the best and the worst episodes, of all that there are."""
    wanted = (
        (EpisodeQuery(kind=kind, is_descending=True), _NEWEST),
        (EpisodeQuery(kind=kind, sort="total_reward", is_descending=True), _BEST),
        (EpisodeQuery(kind=kind, sort="total_reward"), _BEST),
    )
    answers = [episodes_answer(history, query, slice(most)) for query, most in wanted]
    rows = {msgspec.json.encode(row): row for answer in answers for row in answer.rows}
    return Page(answers[0].n, sorted(rows.values(), key=lambda row: row.time))


def _groupings(runs: Sequence[Summary]) -> dict[str, Grouping]:
    facts = [Facts(run.group, run.settings) for run in runs]
    found: dict[str, Grouping] = {}
    for key in ("version", *dict.fromkeys(key for run in runs for key in run.settings)):
        groups, _ = grouped(facts, key)
        members = {runs[place].id: number for number, group in enumerate(groups) for place in group.members}
        found[key] = Grouping([group.label for group in groups], members)
    return found


def _note(runs: Iterable[ReportRun]) -> str:
    """What is not in the report."""
    runs = list(runs)
    parts: list[str] = []
    longest = max(
        (len(table.counts) for run in runs for table in run.tables if max(table.counts, default=1) > 1),
        default=0,
    )
    if longest:
        parts.append(f"long curves are reduced to at most {longest:,} points, each with its range")
    held = sum(len(found.rows) for run in runs for found in run.episodes.values())
    total = sum(found.n for run in runs for found in run.episodes.values())
    if held < total:
        parts.append(f"{held:,} of {total:,} episodes: the newest, the best and the worst")
    lost = sum(run.events.n - len(run.events.rows) for run in runs)
    if lost:
        parts.append(f"the newest {_EVENTS} events of each run, without {lost:,} older ones")
    made = f"Made {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())} by stoker {__version__}"
    return f"{made}. It holds {'; '.join(parts) or 'every point of these runs'}."
