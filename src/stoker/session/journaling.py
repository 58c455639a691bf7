"""What a session writes to its run's journal: events in segments, each behind the settings of its attempt."""

from __future__ import annotations

from collections.abc import Sequence

from stoker.agents.protocol import LearningAgent, RebuildsReplay, prior_of, settings_of
from stoker.journal import JournalEvent, SegmentEncoder, SegmentHeader
from stoker.runs import TrainingRun
from stoker.session.config import SessionConfig
from stoker.session.remaking import origin_of
from stoker.types import ExperienceBatch
from stoker.writer import AppendLog


class EventJournal:
    """Encodes the events of one attempt into segments of the run's journal.

    Args:
        run: where the segments go, in its present attempt.
        agent: each segment begins with its settings, and with its ``rebuild_point`` if it has one.
        config: the session's settings.
        n_events: how many events came before, over all attempts.
    """

    def __init__(self, run: TrainingRun, agent: LearningAgent, config: SessionConfig, n_events: int) -> None:
        run.begin_journal()
        self._run = run
        self._agent = agent
        self._config = config
        self._rebuild_point = agent.rebuild_point if isinstance(agent, RebuildsReplay) else None
        # A point is of use only if nothing is missing behind it: an attempt may have been without a journal.
        first = run.journal.leads_from(n_events)
        self._points = [  # of the segments: first event, and transitions added to the replay before it
            (header.first_event, int(header.rebuild["n_added"]))
            for header in run.journal.headers()
            if header.rebuild is not None and first is not None and first <= header.first_event <= n_events
        ]
        self._origin = "" if n_events else origin_of(agent)  # before anybody acts
        self._encoder = SegmentEncoder()
        self._log: AppendLog | None = None
        self._size = 0
        self._buffer = bytearray()
        self._written: list[tuple[AppendLog, bytes | None]] = []

    def note(self, events: Sequence[JournalEvent] | ExperienceBatch, n_events: int, total_steps: int) -> None:
        """Encode the events that the agent observes after ``n_events`` and ``total_steps`` of all attempts.

        Raises:
            ConfigError: One of them holds a value that a journal cannot.
        """
        if self._log is None or self._size + len(self._buffer) >= self._config.journal_segment_bytes:
            self._begin_segment(n_events, total_steps)
        if isinstance(events, ExperienceBatch):
            self._buffer += self._encoder.encode_batch(events)
        else:
            self._buffer += self._encoder.encode_all(events)

    def take(self) -> list[tuple[AppendLog, bytes | None]]:
        """The bytes to write since the last call, in order; None for bytes: the segment is complete."""
        self._hand_over()
        written, self._written = self._written, []
        return written

    def rebuild_from(self, n_added: int) -> int | None:
        """The first event of the newest segment that holds all transitions behind the first ``n_added``.

        None where there is no such segment any more, or never was. Older points are forgotten.
        """
        usable = [point for point in self._points if point[1] <= n_added]
        if not usable:
            return None
        self._points = self._points[len(usable) - 1 :]
        return usable[-1][0]

    def _begin_segment(self, n_events: int, total_steps: int) -> None:
        if self._log is not None:
            self._hand_over()
            self._written.append((self._log, None))
        point = None if self._rebuild_point is None else dict(self._rebuild_point())
        if point is not None:
            self._points.append((n_events, int(point["n_added"])))
        import torch  # here, because commands that only look at runs import this module

        header = SegmentHeader(
            attempt=self._run.attempt,
            first_event=n_events,
            total_steps=total_steps,
            agent_type=type(self._agent).__name__,
            agent=settings_of(self._agent),
            **self._config.periods._asdict(),
            lockstep=self._config.lockstep,
            numbered=self._config.numbered,
            prior=prior_of(self._agent),
            torch_threads=torch.get_num_threads(),
            origin="" if n_events else self._origin,
            rebuild=point,
        )
        self._log = self._run.open_segment(n_events)
        self._size = 0
        self._buffer += self._encoder.begin(header)

    def _hand_over(self) -> None:
        if self._buffer and self._log is not None:
            self._size += len(self._buffer)
            self._written.append((self._log, bytes(self._buffer)))
            self._buffer.clear()
