"""The rewards of made runs, as TensorBoard and trackio hold them: written by their own clients' code."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.made_runs import BEGAN, Episodes
from benchmarks.viewing import TensorBoardView, TrackioView


class TensorBoardLog:
    """One run as an event file, written by tensorboardX.

    Args:
        logdir: of TensorBoard.
        run: its name.
    """

    def __init__(self, logdir: Path, run: str) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        (logdir / run).mkdir(parents=True)
        self._writer: Any = EventsWriter(str(logdir / run / "events"))
        self._writer.flush()

    def add(self, made: Episodes) -> None:
        """Append the episodes and flush."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        began = BEGAN.timestamp()
        for reward, step, seconds in _columns(made):
            value = Summary.Value(tag=TensorBoardView.TAG, simple_value=reward)
            self._writer.write_event(
                Event(wall_time=began + seconds, step=step, summary=Summary(value=[value]))
            )
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class TrackioLog:
    """One run in trackio's database of a project. ``TRACKIO_DIR`` is set before trackio is imported."""

    def __init__(self, project: str, run: str) -> None:
        self._place = project, run
        self._is_new = True

    def add(self, made: Episodes) -> None:
        """Append the episodes in one transaction."""
        from trackio.sqlite_storage import SQLiteStorage

        rows = _columns(made)
        SQLiteStorage.bulk_log(
            *self._place,
            [{TrackioView.KEY: reward} for reward, _, _ in rows],
            steps=[step for _, step, _ in rows],
            timestamps=[(BEGAN + timedelta(seconds=seconds)).isoformat() for _, _, seconds in rows],
            config={"seed": 0} if self._is_new else None,
        )
        self._is_new = False


def _columns(made: Episodes) -> Sequence[tuple[float, int, float]]:
    return list(zip(made.rewards.tolist(), made.steps.tolist(), made.seconds.tolist(), strict=True))
