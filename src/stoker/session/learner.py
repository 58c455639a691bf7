"""The learner: everything that happens to the agent, in the order in which events were accepted.

A plain, synchronous state machine in one thread: events in, effects out, no waiting, no disk, no clock
that decides anything. How many updates happen, and at which transition a checkpoint is staged, is a
function of the events alone, so that the same order of events gives the same weights.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, assert_never, cast

import msgspec

import stoker.session.saving as saving
from stoker.agents.protocol import LearningAgent
from stoker.errors import InvalidExperience
from stoker.plain import plain_number, plain_text
from stoker.replies import Reply
from stoker.runs import TrainingRun
from stoker.session.config import LearningPeriods, SessionConfig
from stoker.session.events import (
    Answered,
    BarrierRequested,
    CheckpointRequested,
    CheckpointStaged,
    Effect,
    EpisodeEnded,
    EpisodeStarted,
    EvalEpisodeEnded,
    EvaluationDue,
    Event,
    FlushRequested,
    JournalWritten,
    LimitReached,
    MetricsGiven,
    OptimizationRequested,
    Recorded,
    RowReady,
    SnapshotRequested,
)
from stoker.session.journaling import EventJournal
from stoker.session.policies import PolicyBuffer, PolicySnapshot
from stoker.session.state import TrainingState
from stoker.session.triggers import Triggers
from stoker.stats import StatsTracker
from stoker.types import ActorId, Experience
from stoker.writer import StagingArea

__all__ = ["Learner"]

logger = logging.getLogger("stoker.session")


class Learner(TrainingState):
    """Owns the agent, the counters and the stats while a session runs.

    Its attributes may be read from anywhere and are written by ``process`` alone.

    Args:
        agent: what learns; its ``total_steps`` is where the count starts.
        config: the session's settings.
        stats: over training episodes.
        run: where rows and checkpoints will go, or None.
        statistics: what records say of a metric beside its mean.
    """

    def __init__(
        self,
        agent: LearningAgent,
        config: SessionConfig,
        stats: StatsTracker,
        run: TrainingRun | None,
        statistics: Sequence[str] = (),
    ) -> None:
        super().__init__(agent, config, stats, run, statistics)
        self.is_checkpoint_due = False
        """Whether ``stage_checkpoint`` is to be called before any further event."""
        self.learn_metrics: Mapping[str, float] = {}
        """Metrics of the last optimization step."""
        self.progress = (self.total_steps, self.opt_steps)
        """Both counters, read as one; while it learns, as they will be when it has."""
        self.busy_s = 0.0
        """Seconds spent in ``process``."""
        self._config = config
        self._counts_staleness = config.keeps_versions
        self._effects: list[Effect] = []
        self._area = StagingArea()
        self._checkpoint_reply: Reply[None] | None = None
        self._acting: dict[str, Any] = {}  # with lockstep: what acting changes, behind the last step
        self._triggers = Triggers(config, self.total_steps, 0, has_run=run is not None)
        self._unpublished = 0  # optimization steps since the weights were last published
        self._warned: set[str] = set()

    # Before the first event -----------------------------------------------------------------------

    def begin(self, journal: EventJournal | None) -> PolicyBuffer:
        """Make the acting copies; from here on events may come, and go to the journal."""
        self.journal = journal
        self.policies = PolicyBuffer(self.agent, self.opt_steps)
        self._note_acting()
        self.actors.begin()
        self._published_at = self.total_steps
        self.progress = (self.total_steps, self.opt_steps)
        has_run = self.run is not None
        self._triggers = Triggers(self._config, self.total_steps, self.opt_steps, has_run=has_run)
        self.metrics.begin(self)
        return self.policies

    @property
    def may_learn(self) -> bool:
        """Whether ``max_opts`` leaves anything to do."""
        return self._triggers.may_learn

    @property
    def periods(self) -> LearningPeriods:
        """When it learns."""
        return self._config.periods

    def with_periods(self, periods: LearningPeriods) -> Learner:
        """A learner that goes on from here, with the same agent, and learns at other times."""
        config = msgspec.structs.replace(self._config, **periods._asdict())
        other = Learner(self.agent, config, self.stats, self.run)
        for name in ("total_episodes", "opt_steps", "n_events", "eval_episodes", "n_records", "kept_steps"):
            setattr(other, name, getattr(self, name))
        other.actors.restore(self.actors.episodes, self.actors.running)
        other.begin(None)
        return other

    # Events ---------------------------------------------------------------------------------------

    def give_up_episodes(self) -> None:
        """End the running episodes: after a resume their actors begin new ones.

        Journaled like other events, so that a replay does the same at the same place.
        """
        for actor_id in list(self.actors.running):
            self._give_up(actor_id)

    def process(self, batch: Sequence[Event]) -> Sequence[Event]:
        """Take a batch of events in; what comes of them, in order, is for ``take_effects``.

        Returns:
            The events that are left over: it stops where a checkpoint is due, and in a long optimization.
        """
        started = time.perf_counter()
        done = 0
        while done < len(batch) and not self.is_checkpoint_due:
            event = batch[done]
            if type(event) is Experience:
                done = self._feed(batch, done)
            elif type(event) is OptimizationRequested:
                if not self._optimize(event):
                    break  # what has come of it is handed on before there is more
                done += 1
            else:
                self._handle(event)
                done += 1
        if self._unpublished or self._published_at != self.total_steps:
            self._publish()
        self.actors.note_seen()
        self.busy_s += time.perf_counter() - started
        return batch[done:]

    def forget_vanished(self) -> None:
        """Give up the episodes of those who have been away longest, where there are too many to keep."""
        for actor_id in self.actors.take_vanished():
            self._give_up(actor_id)

    @property
    def has_effects(self) -> bool:
        """Whether there are effects that a caller may wait for, beyond the journal."""
        return bool(self._effects)

    def take_effects(self) -> list[Effect]:
        """The effects of the events since the last call, in order."""
        self._write_journal()
        effects, self._effects = self._effects, []
        return effects

    def finish(self) -> None:
        """Let a final checkpoint be due, unless the last one was taken at this very point."""
        if self.run is not None and not self.is_saved:
            self.is_checkpoint_due = True

    def stage_checkpoint(self) -> None:
        """Copy the state of this point; the copy made last must be on disk by now."""
        started = time.perf_counter()
        self._write_journal()
        staged = saving.step_state(self, self._area, self._acting)
        self._effects.append(CheckpointStaged(staged, self.total_steps, self._checkpoint_reply))
        self.is_checkpoint_due, self._checkpoint_reply = False, None
        self.note_saved()
        self.busy_s += time.perf_counter() - started

    def _feed(self, batch: Sequence[Event], start: int) -> int:
        """Feed the experiences that begin at ``start``, as far as another event, checkpoint or snapshot.

        The agent observes them in slices, cut where it learns.

        Returns:
            Where it stopped.
        """
        # What is saved at a point must not count what lies behind it.
        found = cast("Sequence[Experience]", batch[start : start + self._triggers.room()])
        if {*map(type, found)} != {Experience}:
            found = found[: next(i for i, event in enumerate(found) if type(event) is not Experience)]
        self._note_steps(found)  # nothing else comes between
        self._learn(found)
        return start + len(found)

    def _learn(self, experiences: Sequence[Experience]) -> None:
        """Let the agent observe experiences and learn from them; what is due at the last one is done too."""
        start, end = 0, len(experiences)
        next_learn = self._triggers.next_learn - self.total_steps
        for stop in range(next_learn, end + 1, self._config.opt_interval or end + 1):
            self.progress = (self.total_steps + stop - start, self.opt_steps + 1)
            self._observe(experiences[start:stop])
            start = stop
            self._optimize_once()
        if start < end:
            self._observe(experiences[start:])
        self.progress = (self.total_steps, self.opt_steps)
        self._do_what_is_due()

    def _observe(self, experiences: Sequence[Experience]) -> None:
        if self._counts_staleness:
            self.staleness.add(experiences, self.opt_steps)
        self.agent.observe(experiences)
        self.total_steps += len(experiences)
        if not self._config.opt_interval:
            self.kept_steps += len(experiences)

    def _optimize_once(self) -> bool:
        """Let the agent do one optimization step; say whether it did."""
        metrics = self.agent.learn()
        if metrics is None:
            return False
        self.learn_metrics = metrics
        self.metrics.learned(metrics)
        self.opt_steps += 1
        self._unpublished += 1
        if self._unpublished >= self._config.publish_interval:
            self._publish()
        return True

    def _optimize(self, event: OptimizationRequested) -> bool:
        """Do some of the optimization steps that were asked for; say whether that was all."""
        for _ in range(event.remaining):
            if not self._triggers.may_learn or not self._optimize_once():
                event.remaining = 0
                break
            event.remaining -= 1
            event.done += 1
            self.progress = (self.total_steps, self.opt_steps)
            self._do_what_is_due()
            if self._effects or self.is_checkpoint_due:
                break
        if event.remaining == 0:
            self._effects.append(Answered(event.reply, event.done))
        return event.remaining == 0

    def _do_what_is_due(self) -> None:
        """All may fall on one point; a checkpoint then holds what was learned at it."""
        due = self._triggers.reached(self.total_steps, self.opt_steps)
        if due is None:
            return
        if due.evaluation:
            self._effects.append(EvaluationDue(self._snapshot()))
        if due.record:
            self._record(self.total_steps, self.metrics.flush(self))
        if due.limit:
            self._effects.append(LimitReached())
        if due.checkpoint and self.run is not None:
            self.is_checkpoint_due = True

    def _record(self, total_steps: int, record: Mapping[str, Any]) -> None:
        """Hand a record to the run's log and to the recorders.

        Where nothing is learned from steps as they come, optimization steps are what recorders go by.
        """
        self._tell_unwritten(record)
        self._effects.append(Recorded(total_steps if self._config.opt_interval else self.opt_steps, record))
        row = None if self.run is None else self.run.metrics_row(total_steps, self.opt_steps, record)
        if self.run is not None and row is not None:
            self.n_records += 1
            self._effects.append(RowReady(self.run.metrics_log, row))

    def _publish(self) -> None:
        """Hand the weights and the exploration of this point to those who act."""
        self.policies.publish(self.opt_steps)
        self._unpublished = 0
        self._published_at = self.total_steps

    def _handle(self, event: Event) -> None:
        match event:
            case EpisodeStarted():
                self._start_episode(event)
            case EpisodeEnded():
                self._end_episode(event)
            case EvalEpisodeEnded(record, total_steps):
                self.eval_episodes += 1
                if self.run is not None:
                    steps = self.total_steps if total_steps is None else total_steps
                    row = self.run.eval_row(record, steps)
                    self._effects.append(RowReady(self.run.eval_log, row))
            case FlushRequested():
                self._effects.append(event)  # the writer answers it
            case BarrierRequested(reply):
                self._note_acting()
                self._effects.append(Answered(reply, None))
            case CheckpointRequested(reply):
                self.is_checkpoint_due, self._checkpoint_reply = True, reply
            case SnapshotRequested(reply):
                self._effects.append(Answered(reply, self._snapshot()))
            case Experience():
                self._feed([event], 0)
            case OptimizationRequested():
                self._optimize(event)
            case MetricsGiven(record, total_steps):
                self._record(self.total_steps if total_steps is None else total_steps, record)
            case _:
                assert_never(event)

    def _note_steps(self, experiences: Sequence[Experience]) -> None:
        """Journal and count transitions, before the agent gets them."""
        if self.journal is not None:
            self.journal.note(experiences, self.n_events, self.total_steps)
        self.actors.step(experiences, self.n_events)
        self.n_events += len(experiences)
        self._acting = {}

    def _note(self, event: EpisodeStarted | EpisodeEnded) -> None:
        if self.journal is not None:
            self.journal.note((event,), self.n_events, self.total_steps)
        self.n_events += 1

    def _start_episode(self, event: EpisodeStarted) -> None:
        self._note(event)
        self.actors.start(event.actor_id, self.n_events - 1)
        self.agent.on_episode_start(event.actor_id)

    def _give_up(self, actor_id: ActorId) -> None:
        self._start_episode(EpisodeStarted(actor_id))
        self.actors.give_up(actor_id)

    def _end_episode(self, event: EpisodeEnded) -> None:
        self._note(event)
        self.actors.end(event.actor_id)
        extras = self._agent_extras(event.actor_id)
        record = event.record.with_extras(extras) if extras else event.record
        self.total_episodes += 1
        self.metrics.ended(record)
        self.stats.update(record, event.actor_id)
        if self.run is not None:
            row = self.run.train_row(record, self.total_steps, self.total_episodes, event.actor_id)
            self._effects.append(RowReady(self.run.train_log, row))
        self.agent.on_episode_start(event.actor_id)

    def _tell_unwritten(self, record: Mapping[str, Any]) -> None:
        """Say, once for each name, what the run's log leaves out because JSON has no number for it."""
        for key, value in record.items():
            if isinstance(value, float) and not math.isfinite(value) and key not in self._warned:
                self._warned.add(key)
                logger.warning("%s=%s: left out of metrics.jsonl, as JSON has no such number", key, value)

    def _agent_extras(self, actor_id: ActorId) -> dict[str, float]:
        """The agent's extras that a row can hold; the others are left out, with one warning per key."""
        extras: dict[str, float] = {}
        for key, value in self.agent.episode_extras(actor_id).items():
            try:
                extras[plain_text("a key", key)] = plain_number(str(key), value)
            except InvalidExperience as error:
                if repr(key) not in self._warned:
                    self._warned.add(repr(key))
                    logger.warning("an episode extra of the agent is left out of the rows: %s", error)
        return extras

    # What leaves the thread -----------------------------------------------------------------------

    def _write_journal(self) -> None:
        if self.journal is not None:
            self._effects += (JournalWritten(log, data) for log, data in self.journal.take())

    def _note_acting(self) -> None:
        """With lockstep: keep what acting changes, as it is behind the last step and before the next one."""
        if self.is_lockstep and not self._acting:
            self._acting = saving.acting_state(self.agent)

    def _snapshot(self) -> PolicySnapshot:
        return PolicySnapshot(
            self.agent.policy(),
            total_steps=self.total_steps,
            policy_version=self.policies.version,
            opt_steps=self.opt_steps,
            state=saving.weights_state(self),
        )
