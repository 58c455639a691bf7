"""The events of one attempt on their way to ``events.jsonl``, a bounded number of each kind per minute.

Any thread notes events; they go through the writer like all rows. What the writer can no longer take, the end
of the attempt for one, is written directly when it has ended. A failure of that never hides another one.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from stoker import __version__
from stoker.errors import InvalidExperience, RunBroken, StokerError, WriteFailed
from stoker.notices import Notice, hear, hear_no_more, traceback_of
from stoker.recorders import Outcome
from stoker.runs import TrainingRun
from stoker.runs.event_rows import EventRow
from stoker.runs.events import (
    AttemptBegan,
    AttemptEnded,
    DiskFilled,
    EventsSuppressed,
    InputsRefused,
    Logged,
    Resumed,
    RunEvent,
)
from stoker.runs.outcomes import killed_attempts
from stoker.runs.processes import command_line
from stoker.threads import CallSoon, ThreadCall
from stoker.writer import RowLog, Writer, decode_rows, encode_rows

_logger = logging.getLogger("stoker.session")
_MINUTE_S = 60.0
_FULL = {errno.ENOSPC, errno.EDQUOT}
_MOST_EARLY = 60
"""How many log records of the opening are kept."""
_PATIENCE_S = 10.0
"""How long the last rows may take to be written."""


class EventLimit:
    """Bounds how many events of each kind are recorded between two calls of ``begin_anew``."""

    def __init__(self, most: int = 60) -> None:
        self._most = most
        self._counts: Counter[str] = Counter()

    def admits(self, kind: str) -> bool:
        """Count an event; say whether it is among the first ones of its kind."""
        self._counts[kind] += 1
        return self._counts[kind] <= self._most

    def begin_anew(self) -> list[EventsSuppressed]:
        """Forget all counts; return what was not admitted since the last time."""
        counts, self._counts = self._counts, Counter()
        surplus = {kind: count - self._most for kind, count in counts.items() if count > self._most}
        return [EventsSuppressed(of=kind, count=count) for kind, count in surplus.items()]


class Refusals:
    """Counts inputs that a check refuses, by the invalid field; a context manager around the check."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        """How many were refused so far, by field."""
        self._recorded: Counter[str] = Counter()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, InvalidExperience):
            self.count(error)

    def count(self, error: InvalidExperience) -> None:
        """The same for an error that was caught already, where a ``with`` takes too long."""
        self.totals[error.field] += 1

    def take(self) -> list[InputsRefused]:
        """What was refused since the last call."""
        before, self._recorded = self._recorded, self.totals.copy()
        fresh = {field: count - before[field] for field, count in self._recorded.items()}
        return [InputsRefused(field=field, count=count) for field, count in fresh.items() if count]


class EventLog:
    """Records the events of a session's attempt, from any thread; without a run it records nothing.

    Events count from ``begin`` to ``end``. While the writer runs they become durable with all other rows.
    Warnings and errors that stoker logs are events, too; those that it hears before ``begin`` count, too.

    Args:
        run: where they are recorded.
        total_steps: environment steps consumed so far.
    """

    def __init__(self, run: TrainingRun | None, total_steps: Callable[[], int]) -> None:
        self.refusals: Refusals = Refusals()
        """What the checks of the session's inputs refuse."""
        self.signal: str | None = None
        """The signal that stopped the session."""
        self._run = run
        self._total_steps = total_steps
        self._attempt = 0
        self._is_open = False
        self._limit = EventLimit()
        self._minute_at = time.monotonic()
        self._early: deque[Logged] = deque(maxlen=_MOST_EARLY)
        self._rows: deque[EventRow] = deque()
        self._noting = threading.Lock()
        self.hand_over: Callable[[], object] = _nothing
        """Gives the events so far to the writer, on the event loop; a flush must not overtake them."""
        self._hand_over_soon: Callable[[], object] = _nothing

    def hear(self) -> None:
        """Take the warnings and errors that stoker logs, until ``hear_no_more``."""
        if self._run is not None:
            hear(self._take_notice)

    def hear_no_more(self) -> None:
        """Take no more of them."""
        hear_no_more(self._take_notice)

    def _take_notice(self, notice: Notice) -> None:
        event = Logged(**notice._asdict())
        if self._is_open:
            self.note(event)
        else:
            self._early.append(event)

    def begin(self, resumed: Resumed | None = None) -> None:
        """Record that the attempt began, and that earlier ones were killed which recorded no end. Blocks.

        When it returns, that is durable: whatever kills this process, the next attempt knows of this one.

        Args:
            resumed: what the attempt restored; None: the run is new.

        Raises:
            WriteFailed: The disk refused.
            RunBroken: Another program has written the file.
        """
        if self._run is None:
            return
        import torch  # here, because commands that only look at runs import this module

        run, self._attempt, self._is_open = self._run, self._run.attempt, True
        began = AttemptBegan(
            pid=os.getpid(),
            host=platform.node(),
            command=command_line(),
            python=platform.python_version(),
            torch=str(torch.__version__),
            stoker=__version__,
            from_steps=self._total_steps(),
        )
        rows = [*self._ends_of_killed(run), self._row(began)]
        rows += [] if resumed is None else [self._row(resumed)]
        rows += [self._row(event) for event in self._early]
        run.event_log.write(encode_rows(rows))
        run.event_log.sync()

    def _ends_of_killed(self, run: TrainingRun) -> list[EventRow]:
        try:
            killed = killed_attempts(decode_rows(run.event_log.path, EventRow))
        except RunBroken as error:
            _logger.warning("%s; whether earlier attempts were killed is unknown", error)
            return []
        # It came as far as its last event says, and as the steps that were restored of it.
        return [
            EventRow.of(
                AttemptEnded(how="killed"),
                total_steps=max(last.total_steps, self._total_steps()),
                attempt=last.attempt,
            )
            for last in killed
        ]

    def connect(self, writer: Writer, call_soon: CallSoon) -> None:
        """Hand events to this writer from now on, on the event loop."""

        def hand_over() -> None:
            if self._run is not None and self._rows and not writer.is_closed:
                writer.put_data(self._run.event_log, encode_rows(self._taken()))

        def hand_over_soon() -> None:
            with suppress(RuntimeError):  # the event loop has ended: ``end`` writes what is left
                call_soon(hand_over)

        self.hand_over, self._hand_over_soon = hand_over, hand_over_soon

    def note(self, event: RunEvent) -> None:
        """Record an event that happened now, unless there were too many of its kind within this minute."""
        if self._is_open:
            with self._noting:
                is_admitted = self._limit.admits(event.kind)
            if is_admitted:
                self._put(event)

    def look(self, now: float) -> None:
        """Called every few seconds: once a minute, record what was only counted.

        Args:
            now: in monotonic seconds.
        """
        if now - self._minute_at >= _MINUTE_S:
            self._minute_at = now
            self._put_counts()

    def _put_counts(self) -> None:
        with self._noting:
            counts = [*self.refusals.take(), *self._limit.begin_anew()]
        for event in counts if self._is_open else ():
            self._put(event)

    def _put(self, event: RunEvent) -> None:
        self._rows.append(self._row(event))
        self._hand_over_soon()

    def _row(self, event: RunEvent) -> EventRow:
        return EventRow.of(event, total_steps=self._total_steps(), attempt=self._attempt)

    def _taken(self) -> list[EventRow]:
        return [self._rows.popleft() for _ in range(len(self._rows))]

    async def end(self, ending: AttemptEnded) -> bool:
        """Write what is left, and as the last row how the attempt ended; for the thread that wrote before.

        To be called when the writer has ended. If the disk refuses, that is logged. Called again after a
        cancellation, it waits for the first call's rows.

        Returns:
            Whether the rows are written, or refused. If not, the disk hangs, and a thread is still in it.
        """
        if self._run is None:
            return True
        log = self._run.event_log
        if self._is_open:
            self._put_counts()
            rows = [*self._taken(), self._row(ending)]
            self._is_open = False
            log.thread.hand_in(ThreadCall(self._write_last, log, encode_rows(rows), is_kept=True))
        is_written = await log.thread.settle(_PATIENCE_S)
        log.thread.release()
        return is_written

    def _write_last(self, log: RowLog, rows: bytes) -> None:
        try:
            try:
                log.write(rows)
            finally:
                log.close()
        except StokerError as error:
            _logger.warning("the end of attempt %d could not be recorded: %s", self._attempt, error)


def ending_of(
    how: Outcome, cause: tuple[str | None, BaseException | None], signal: str | None
) -> AttemptEnded:
    """How an attempt ended.

    Args:
        how: in one word.
        cause: the part of the session that failed, and its error; or what ended the session's block.
        signal: the signal that stopped the session.
    """
    part, error = cause
    if how == "failed" and error is not None:
        return AttemptEnded(
            how=how,
            part=part,
            error=type(error).__name__,
            text=str(error),
            traceback=traceback_of(error),
            signal=signal,
        )
    if isinstance(error, KeyboardInterrupt):
        signal = "SIGINT"
    code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else None
    return AttemptEnded(how=how, signal=signal, exit_code=code)


def disk_filled(error: BaseException) -> DiskFilled | None:
    """The event of a write that failed because the disk, or the quota, is full; None: it failed otherwise."""
    cause = error.__cause__
    if not isinstance(error, WriteFailed) or not isinstance(cause, OSError) or cause.errno not in _FULL:
        return None
    return DiskFilled(file=Path(error.path).name, errno=errno.errorcode[cause.errno])


def _nothing() -> None:
    """The events wait until ``connect`` or ``end``."""
