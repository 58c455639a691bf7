"""The learner: everything that happens to the agent, in the order in which events were accepted.

A plain, synchronous state machine in one thread: events in, an outbox out, no waiting, no disk, no clock
that decides anything. How many updates happen, and at which transition a checkpoint is staged, is a
function of the events alone, so that the same order of events gives the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, assert_never, cast

import msgspec

from stoker.agents.protocol import LearningAgent
from stoker.errors import ConfigError
from stoker.journal import (
    DatasetGiven,
    EpisodeEnded,
    EpisodeStarted,
    JournalEvent,
    Optimized,
    StreamEnded,
    StreamMoved,
)
from stoker.replies import Reply
from stoker.runs import TrainingRun
from stoker.session.abilities import Abilities
from stoker.session.config import LearningPeriods, SessionConfig, Triggers
from stoker.session.events import (
    EvalEpisodeEnded,
    Event,
    MetricsGiven,
    OptimizationDone,
    OptimizationRequested,
    Outbox,
    Request,
    n_events_of,
)
from stoker.session.publishing import PolicyBuffer, PolicySnapshot
from stoker.session.state import TrainingState, weights_of
from stoker.session.timing import HANDOVER, LEARNER_STATES, LEARNING, OBSERVING, PUBLISHING, STAGING
from stoker.stats import StatsTracker
from stoker.telemetry import Spans, StateClock
from stoker.types import ActorId, Experience, ExperienceBatch
from stoker.writer import RowLog, StagingArea

_BRIEF = {Experience, ExperienceBatch, EpisodeStarted, EpisodeEnded, StreamMoved, StreamEnded}
_MOST_BRIEF = 128
"""Events that the event loop processes by itself, at most: that takes about a millisecond."""

Transitions: TypeAlias = Sequence[Experience] | ExperienceBatch


class Learner(TrainingState):
    """Owns the agent, the counters and the stats while a session runs.

    Its attributes may be read from anywhere and are written by ``process`` alone. The arguments are those of
    ``TrainingState``.
    """

    total_steps: int
    total_episodes: int
    opt_steps: int
    n_events: int
    n_records: int
    eval_episodes: int

    def __init__(
        self,
        agent: LearningAgent,
        config: SessionConfig,
        stats: StatsTracker,
        run: TrainingRun | None,
        statistics: Sequence[str] = (),
    ) -> None:
        super().__init__(agent, config, stats, run, statistics)
        self.best: tuple[float, int] | None = None
        """The highest mean reward that earlier attempts evaluated, and the steps of its policy."""
        self.is_checkpoint_due: bool = False
        """Whether ``stage_checkpoint`` is to be called before any further event."""
        self.learn_metrics: Mapping[str, float] = {}
        """Metrics of the last optimization step."""
        self.clock: StateClock = StateClock(LEARNER_STATES)  # the consumer changes it too, between two calls
        self._counts_staleness = config.keeps_versions
        # One attribute: an object of more than thirty is slower to read and write (CPython's shared keys).
        self._able = Abilities(agent)
        self.outbox: Outbox = Outbox()
        """The results that were not taken yet."""
        self._area = StagingArea()
        self._checkpoint_reply: Reply[None] | None = None
        self._acting: dict[str, Any] = {}  # with lockstep: what acting changes, after the last step
        self._unpublished = 0  # optimization steps since the weights were last published

    def begin(self) -> None:
        """Make the acting copies of a new or restored agent; from here on events may come."""
        self.policies: PolicyBuffer = PolicyBuffer(self.agent, self.opt_steps)
        self._published_at = self.total_steps
        self._note_acting()
        self.actors.begin()
        self.metrics.begin(self.total_steps, self.opt_steps)
        self.learn_at(self.config.periods)

    def trace(self, spans: Spans) -> None:
        """Trace what the agent learns and publishes from here on."""
        self._able.trace(spans)
        self.policies.trace(spans)

    def use(self, agent: LearningAgent) -> None:
        """Learn on this agent, which has the state of the one before, from here on."""
        super().use(agent)
        self._able = Abilities(agent)
        self.policies = PolicyBuffer(agent, self.opt_steps)

    def learn_at(self, periods: LearningPeriods) -> None:
        """Learn at these times from here on."""
        self.config: SessionConfig = msgspec.structs.replace(self.config, **periods._asdict())
        has_run = self.run is not None
        self._triggers = Triggers(self.config, self.total_steps, self.opt_steps, has_run=has_run)
        self.progress: tuple[int, int] = (self.total_steps, self.opt_steps)
        """Both counters, read as one; while it learns, as they will be when it has."""

    @property
    def may_learn(self) -> bool:
        """Whether ``max_opts`` leaves anything to do."""
        return self._triggers.may_learn

    @property
    def n_unhurried(self) -> int:
        """How many transitions may come before anything follows from them, at least 1.

        Each hand-over to this thread costs as much as a hundred transitions. More than those up to the next
        call of ``learn`` only where the agent ``LearnsSeldom``: to learn from many at once holds up those who
        act.
        """
        if self.config.max_staleness is not None:  # with which actors wait for progress
            return 1
        n_until = self._triggers.next_learn - self.total_steps
        n_until += self._able.n_skipped(n_until, self.config.opt_interval)
        return max(1, min(self._triggers.room(), n_until))

    def is_brief(self, batch: Sequence[Event]) -> bool:
        """Whether processing these events costs less than to hand them to another thread.

        Only where the agent says that it will not learn from them (``LearnsSeldom``).
        """
        return (
            self._able.seldom is not None
            and len(batch) <= _MOST_BRIEF
            and {*map(type, batch)} <= _BRIEF
            and sum(map(n_events_of, batch)) < self.n_unhurried
        )

    def abandon_episodes(self) -> None:
        """End the running episodes: after a resume their actors begin new ones.

        Those of numbered streams go on. Journaled like other events, so that a replay does the same at the
        same place.
        """
        for actor_id in list(self.actors.running):
            point = self.actors.streams.get(actor_id) if self.config.numbered else None
            if point is None or not point.is_learning:
                self._abandon(actor_id)

    def abandon_vanished(self) -> None:
        """End the episodes of the actors that have been away longest, where there are too many to keep."""
        for actor_id in self.actors.take_vanished():
            self._abandon(actor_id)

    def process(self, batch: Sequence[Event]) -> Sequence[Event]:
        """Consume a batch of events; ``take_outbox`` has the results.

        Returns the events that are left over: it stops where a checkpoint is due.
        """
        self.clock.enter(OBSERVING)
        done = 0
        while done < len(batch) and not self.is_checkpoint_due:
            event = batch[done]
            # A checkpoint at a point must not count later events.
            if type(event) is Experience:
                found = cast("Sequence[Experience]", batch[done : done + self._triggers.room()])
                if {*map(type, found)} != {Experience}:
                    found = found[: next(i for i, event in enumerate(found) if type(event) is not Experience)]
                self._take(found)
                done += len(found)
            elif type(event) is ExperienceBatch:
                n_fed = min(len(event), self._triggers.room())
                self._take(event[:n_fed])
                if n_fed < len(event):
                    batch, done = [event[n_fed:], *batch[done + 1 :]], 0
                else:
                    done += 1
            else:
                self._handle(event)
                done += 1
        if self._unpublished or self._published_at != self.total_steps:
            self._publish()
        self.actors.note_seen()
        self.clock.enter(HANDOVER)
        return batch[done:]

    def take_outbox(self) -> Outbox:
        """The results of the events since the last call."""
        if self.journal is not None:
            self.outbox.journal += self.journal.take()
        outbox, self.outbox = self.outbox, Outbox()
        return outbox

    def finish(self) -> None:
        """Make a final checkpoint due, unless the last one is of this very point."""
        if self.run is not None and self.config.final_checkpoint and not self.is_saved:
            self.is_checkpoint_due = True

    def stage_checkpoint(self) -> Reply[None]:
        """Copy the state of this point; return the reply that is set when this copy is on disk.

        The copy before must be on disk by now, because this one reuses its memory.
        """
        self.clock.enter(STAGING)
        reply: Reply[None] = self._checkpoint_reply or Reply()
        staged = self._area.stage(self.step_state(self._acting))
        self.outbox.checkpoint = (self.total_steps, staged, reply)
        self.is_checkpoint_due, self._checkpoint_reply = False, None
        self.note_saved()
        self.clock.enter(HANDOVER)
        return reply

    def _take(self, experiences: Transitions) -> None:
        if self.journal is not None:
            self.journal.note(experiences, self.n_events, self.total_steps)
        self.actors.step(experiences, self.n_events)
        self.n_events += len(experiences)
        self._acting = {}
        self._learn(experiences)

    def _learn(self, experiences: Transitions) -> None:
        """Let the agent observe experiences and learn from them; what is due at the last one is done too."""
        start, end, observe = 0, len(experiences), self._observing(experiences)
        next_learn = self._triggers.next_learn - self.total_steps
        for stop in self._able.stops(next_learn, end, self.config.opt_interval):
            self.progress = (self.total_steps + stop - start, self.opt_steps + 1)
            observe(experiences[start:stop])
            self.total_steps += stop - start
            start = stop
            self._optimize_once()
        if start < end:
            observe(experiences[start:])
            self.total_steps += 0 if self.config.offline else end - start
            self.kept.steps += 0 if self.config.opt_interval else end - start
        self.progress = (self.total_steps, self.opt_steps)
        self._do_what_is_due()

    def _observing(self, experiences: Transitions) -> Callable[[Any], None]:
        """What takes slices of these."""
        observe = self._able.observing(experiences)
        return partial(self._observe_counted, observe) if self._counts_staleness else observe

    def _observe_counted(self, observe: Callable[[Any], None], experiences: Transitions) -> None:
        self.metrics.count_staleness(experiences, self.opt_steps)
        observe(experiences)

    def _optimize_once(self) -> bool:
        """Let the agent do one optimization step; say whether it did."""
        self.clock.enter(LEARNING)
        metrics = self._able.learn()
        self.clock.enter(OBSERVING)
        if metrics is None:
            return False
        self.learn_metrics = metrics
        self.metrics.learned(metrics)
        self.opt_steps += 1
        self.total_steps += self.config.offline
        self._unpublished += 1
        if self._unpublished >= self.config.publish_interval:
            self._publish()
        return True

    def _optimize(self, n_wanted: int) -> OptimizationDone:
        """Do optimization steps, at most as far as there is a result that must be delivered.

        They are journaled when they are done: nothing that follows from them leaves before.
        """
        n_done, is_over = 0, False
        while n_done < n_wanted:
            is_over = not (self._triggers.may_learn and self._optimize_by_itself())
            if is_over:
                break
            n_done += 1
            if self.outbox.is_awaited or self.is_checkpoint_due:
                break
        if n_done:
            self._note(Optimized(n_done))
        return OptimizationDone(n_done, is_over)

    def _optimize_again(self, event: Optimized) -> None:
        """Do the optimization steps that a journal says were done."""
        for _ in range(event.n):
            if not self._optimize_by_itself():
                raise ConfigError(
                    f"the journal says that {event.n} optimization steps follow step {self.total_steps}, and "
                    "the agent skips one of them: make it with the settings that it had in the run"
                )
        self._note(event)

    def _optimize_by_itself(self) -> bool:
        """Do one optimization step that no transition causes, and what is due then; say whether it was."""
        if not self._optimize_once():
            return False
        self.progress = (self.total_steps, self.opt_steps)
        self._do_what_is_due()
        return True

    def _do_what_is_due(self) -> None:
        """Do what is due at this point; a checkpoint comes last, and holds what was learned here."""
        due = self._triggers.reached(self.total_steps, self.opt_steps)
        if due is None:
            return
        if due.evaluation:
            self.outbox.evaluation = self._snapshot()
        if due.record:
            self._record(self.total_steps, self.metrics.flush(self.agent, *self.counts[:3]))
        if due.limit:
            self.outbox.has_ended = True
        if due.checkpoint and self.run is not None:
            self.is_checkpoint_due = True

    def _record(self, total_steps: int, record: Mapping[str, Any]) -> None:
        """Hand a record to the run's log and to the recorders.

        Where nothing is learned from steps as they come, recorders go by optimization steps.
        """
        for key, value in record.items():
            if isinstance(value, float) and not math.isfinite(value):
                self.metrics.warn_once(
                    key, f"{key}={value}: left out of metrics.jsonl, as JSON has no such number"
                )
        step = total_steps if self.config.opt_interval or self.config.offline else self.opt_steps
        self.outbox.records.append((step, record))
        if self.run is not None:
            row = self.run.metrics_row(total_steps, self.opt_steps, record)
            if row is not None:
                self.n_records += 1
                self._put_row(self.run.metrics_log, row)

    def _publish(self) -> None:
        """Hand the weights and the exploration of this point to the actors."""
        self.clock.enter(PUBLISHING)
        self.policies.publish(self.opt_steps)
        self.clock.enter(OBSERVING)
        self._unpublished, self._published_at = 0, self.total_steps

    def _handle(self, event: Event) -> None:
        match event:
            case EpisodeStarted():
                self._start_episode(event)
            case EpisodeEnded():
                self._end_episode(event)
            case StreamMoved() | StreamEnded():
                self._leave_episode(event)
            case EvalEpisodeEnded(record, total_steps):
                self.eval_episodes += 1
                if self.run is not None:
                    steps = self.total_steps if total_steps is None else total_steps
                    self._put_row(self.run.eval_log, self.run.eval_row(record, steps))
            case MetricsGiven(record, total_steps):
                self._record(self.total_steps if total_steps is None else total_steps, record)
            case Request(kind, reply):
                match kind:
                    case "barrier":
                        self._note_acting()
                        self.outbox.answers.append((reply, None))
                    case "flush":
                        self.outbox.flushes.append(reply)
                    case "checkpoint":
                        self.is_checkpoint_due, self._checkpoint_reply = True, reply
                    case "snapshot":
                        self.outbox.answers.append((reply, self._snapshot()))
            case OptimizationRequested(n, reply):
                self.outbox.answers.append((reply, self._optimize(n)))
            case Optimized():
                self._optimize_again(event)
            case DatasetGiven():
                self._note(event)
                self.kept.dataset = event
            case Experience():
                self._take([event])
            case ExperienceBatch():
                self._take(event)
            case _:
                assert_never(event)

    def _note(self, event: JournalEvent) -> None:
        if self.journal is not None:
            # Optimization steps are noted when they are done, and a segment may begin with them.
            n_done = event.n if self.config.offline and isinstance(event, Optimized) else 0
            self.journal.note((event,), self.n_events, self.total_steps - n_done)
        self.n_events += 1

    def _start_episode(self, event: EpisodeStarted) -> None:
        self._note(event)
        self.actors.start(event, self.n_events - 1)
        self.agent.on_episode_start(event.actor_id)

    def _abandon(self, actor_id: ActorId) -> None:
        self._start_episode(EpisodeStarted(actor_id))
        self.actors.abandon(actor_id)

    def _leave_episode(self, event: StreamMoved | StreamEnded) -> None:
        """Note a step that is not learned, or the end of a stream: a running episode is abandoned."""
        self._note(event)
        self.actors.leave(event)
        self.agent.on_episode_start(event.actor_id)
        if isinstance(event, StreamMoved) and event.evaluated is not None:
            self.outbox.evaluated.append((self.total_steps, event.evaluated))
            self._handle(EvalEpisodeEnded(event.evaluated, self.total_steps))

    def _end_episode(self, event: EpisodeEnded) -> None:
        self._note(event)
        self.actors.end(event.actor_id)
        extras = self.metrics.extras_of(self.agent, event.actor_id)
        record = event.record.with_extras(extras) if extras else event.record
        self.total_episodes += 1
        self.metrics.ended(record)
        self.stats.update(record, event.actor_id, time.monotonic())
        if self.run is not None:
            row = self.run.train_row(record, self.total_steps, self.total_episodes, event.actor_id)
            self._put_row(self.run.train_log, row)
        self.agent.on_episode_start(event.actor_id)

    def _put_row(self, log: RowLog, row: msgspec.Struct) -> None:
        self.outbox.rows.setdefault(log, []).append(row)

    def _note_acting(self) -> None:
        """With lockstep: keep what acting changes, as it is after the last step and before the next one."""
        if self.config.lockstep and not self._acting:
            self._acting = self.acting_state()

    def _snapshot(self) -> PolicySnapshot:
        return PolicySnapshot(
            self.agent.policy(),
            total_steps=self.total_steps,
            opt_steps=self.opt_steps,
            state=weights_of(self.agent, self.counters()),
        )
