"""Which rows of events that are learned again are not on disk: each row is written once.

A kill leaves the rows of the last half second unwritten, and a power cut may keep rows whose events it took.
As rows are written in order, only those behind the last one on disk can be missing.
"""

from __future__ import annotations

from collections import Counter
from typing import cast

import msgspec

from stoker.errors import RunBroken
from stoker.runs import TrainingRun
from stoker.runs.rows import ROW_FILES, AnyRow, Bound, EvalEpisodeRow, MetricsRow, TrainEpisodeRow, effective
from stoker.session.events import Outbox
from stoker.session.learner import Learner
from stoker.session.metrics import is_own_record
from stoker.writer import decode_rows


class MissingRows:
    """Collects the results of a tail that are not on disk yet. Reads the run's rows at once. Blocks.

    Args:
        run: whose rows are read; nothing is written.
        learner: restored, before it learns the tail.
    """

    def __init__(self, run: TrainingRun, learner: Learner) -> None:
        self._run = run
        self._counted = learner.eval_episodes, learner.n_records
        self._train, self._eval, self._metrics = (
            _rows(run, TrainEpisodeRow),
            _rows(run, EvalEpisodeRow),
            _rows(run, MetricsRow),
        )
        behind = (self._eval or ())[learner.eval_episodes :]
        self._evaluated = Counter(map(_content, behind))
        self._n_episodes = max((row.episode for row in self._train or ()), default=0)
        own = [row for row in self._metrics or () if is_own_record(row.metrics)]
        self._recorded = max(((row.total_steps, row.opt_steps) for row in own), default=(-1, -1))
        self._found = Outbox()

    def take(self, outbox: Outbox) -> None:
        """Keep what is missing of the next results."""
        run, found = self._run, self._found
        found.evaluation = outbox.evaluation or found.evaluation
        if self._train is not None and (rows := outbox.rows.get(run.train_log)):
            episodes = cast("list[TrainEpisodeRow]", rows)
            missing = [row for row in episodes if row.episode > self._n_episodes]
            found.rows.setdefault(run.train_log, []).extend(missing)
        if self._eval is not None:
            for row in cast("list[EvalEpisodeRow]", outbox.rows.get(run.eval_log, [])):
                if self._evaluated[content := _content(row)]:
                    self._evaluated[content] -= 1
                else:
                    found.rows.setdefault(run.eval_log, []).append(row)
        if self._metrics is not None and (rows := outbox.rows.get(run.metrics_log)):
            # A record and its row are made together.
            for record, row in zip(outbox.records, cast("list[MetricsRow]", rows), strict=True):
                if (row.total_steps, row.opt_steps) > self._recorded:
                    found.records.append(record)
                    found.rows.setdefault(run.metrics_log, []).append(row)

    def settle(self, learner: Learner) -> None:
        """Let the learner, which has learned the tail, count the rows that there will be."""
        bound = Bound(learner.total_steps, learner.total_episodes, learner.opt_steps)
        n_evals, n_records = (
            sum(row.is_before(bound) for row in rows or ()) for rows in (self._eval, self._metrics)
        )
        rows = self._found.rows
        n_missing, n_evals_missing = (
            len(rows.get(log, ())) for log in (self._run.metrics_log, self._run.eval_log)
        )
        learner.eval_episodes = max(self._counted[0], n_evals) + n_evals_missing
        learner.n_records = max(self._counted[1], n_records) + n_missing

    def found(self) -> Outbox:
        """The results to hand over now that an attempt has begun, whose number the rows get.

        The policy of the last evaluation that was due is among them, unless there are rows of it.
        """
        found, attempt = self._found, self._run.attempt
        for log, rows in found.rows.items():
            found.rows[log] = [msgspec.structs.replace(row, attempt=attempt) for row in rows]
        policy = found.evaluation
        if policy and policy.total_steps in {row.total_steps_at_eval for row in self._eval or ()}:
            found.evaluation = None
        return found


def _content(row: EvalEpisodeRow) -> bytes:
    """What two rows of the same episode have in common."""
    return msgspec.json.encode(
        [row.total_steps_at_eval, row.total_reward, row.length, row.status, row.extras]
    )


def _rows(run: TrainingRun, row_type: type[AnyRow]) -> list[AnyRow] | None:
    """The rows that count; None: the file is damaged, so that nobody knows which rows are there."""
    try:
        rows = decode_rows(run.directory / ROW_FILES[row_type], row_type)
    except RunBroken:  # which was reported when the checkpoint was restored
        return None
    return effective(rows, run.metadata.attempts)
