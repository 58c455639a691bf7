"""Which rows a run has lost that one of its checkpoints counts. Reads only.

Everything that a checkpoint counts was durable before it: what is not there any more, no crash explains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stoker.errors import RunBroken
from stoker.runs.metadata import Attempt, EvalEpisodeRow, MetricsRow, TrainEpisodeRow, counting
from stoker.runs.run import TrainingRun
from stoker.writer import RowLog, check_rows, decode_rows

__all__ = ["lost_rows"]

RowType = type[TrainEpisodeRow | EvalEpisodeRow | MetricsRow]


def lost_rows(run: TrainingRun, total_episodes: int, eval_episodes: int, records: int = 0) -> Iterator[str]:
    """What is damaged or missing, one text for each file that has lost something. Blocks.

    Args:
        run: the run.
        total_episodes: training episodes that the checkpoint counts.
        eval_episodes: evaluation episodes that it counts.
        records: records of the metrics that it counts.
    """
    attempts = run.metadata.attempts
    for log, n_counted, row_type in (
        (run.train_log, total_episodes, TrainEpisodeRow),
        (run.eval_log, eval_episodes, EvalEpisodeRow),
        (run.metrics_log, records, MetricsRow),
    ):
        if (lost := _lost(log, n_counted, row_type, attempts)) is not None:
            yield f"{log.path}: {lost}"


def _lost(log: RowLog, n_counted: int, row_type: RowType, attempts: Sequence[Attempt]) -> str | None:
    report = check_rows(log.path)
    if report.problems:
        return "; ".join(text.removeprefix(f"{log.path.name}: ") for text in report.problems)
    try:
        rows = decode_rows(log.path, row_type)
    except RunBroken as error:
        return str(error).removeprefix(f"{error.path}: ")
    counts = counting(attempts)
    n_there, first_gap = 0, None
    for line, row in enumerate(rows, 1):
        if not counts(row):
            continue
        n_there += 1
        if first_gap is None and isinstance(row, TrainEpisodeRow) and row.episode != n_there:
            first_gap = line
    n_lost = n_counted - n_there
    if first_gap is None:
        if n_lost <= 0:
            return None
        first_gap = len(rows) + 1
    what = f"{n_lost:,} of {n_counted:,} rows are missing" if n_lost > 0 else "rows are missing"
    return f"{what}, from line {first_gap:,} on"
