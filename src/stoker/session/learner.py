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
from operator import attrgetter
from typing import Any, assert_never, cast

import msgspec

from stoker.agents.protocol import LearningAgent
from stoker.replies import Reply
from stoker.runs import TrainingRun
from stoker.session import saving
from stoker.session.config import SessionConfig
from stoker.session.events import (
    BarrierReached,
    BarrierRequested,
    CheckpointRequested,
    CheckpointStaged,
    Effect,
    EpisodeEnded,
    EpisodeStarted,
    EvalEpisodeEnded,
    EvaluationDue,
    Event,
    FlushReached,
    FlushRequested,
    JournalWritten,
    RowReady,
    SnapshotRequested,
    SnapshotTaken,
)
from stoker.session.journaling import EventJournal
from stoker.session.policies import PolicyBuffer
from stoker.session.snapshot import PolicySnapshot
from stoker.stats import StatsTracker
from stoker.types import ActorId, EpisodeStatus, Experience
from stoker.writer import StagingArea

__all__ = ["Learner"]

logger = logging.getLogger("stoker.session")
_NEVER = 1 << 62


class Learner:
    """Owns the agent, the counters and the stats while a session runs.

    Its attributes may be read from anywhere and are written by ``process`` alone.

    Args:
        agent: what learns; its ``total_steps`` is where the count goes on from.
        config: the session's settings.
        stats: over training episodes.
        run: where rows and checkpoints will go, or None.
    """

    def __init__(
        self, agent: LearningAgent, config: SessionConfig, stats: StatsTracker, run: TrainingRun | None
    ) -> None:
        self.agent = agent
        self.stats = stats
        self.total_steps = agent.total_steps
        self.total_episodes = 0
        self.opt_steps = 0
        self.n_events = 0
        """Steps, episode starts and episode ends consumed, over all attempts: what a journal counts."""
        self.eval_episodes = 0
        """Rows of evaluation episodes, over all attempts."""
        self.actor_episodes: dict[ActorId, int] = {}
        self.open_episodes: dict[ActorId, int] = {}
        """The actors with a running episode, and the event that it began with."""
        self.seen_at: dict[ActorId, float] = {}
        """When each actor's last event was consumed, in monotonic seconds."""
        self.journal: EventJournal | None = None
        self.is_lockstep = config.lockstep
        self.is_checkpoint_due = False
        """Whether ``stage_checkpoint`` is to be called before any further event."""
        self.metrics: Mapping[str, float] = {}
        """What the last optimisation step had to say."""
        self.busy_s = 0.0
        """Seconds spent in ``process``."""
        self._config = config
        self._run = run
        self._effects: list[Effect] = []
        self._area = StagingArea()
        self._saved_at: tuple[int, ...] | None = None  # what the last staged checkpoint had counted
        self._checkpoint_reply: Reply[None] | None = None
        self._heard: set[ActorId] = set()  # the actors of the present batch
        self._ended: set[ActorId] = set()  # actors whose last transition ended an episode that is not closed
        self._acting: dict[str, Any] = {}  # with lockstep: what acting changes, behind the last step
        self._next_learn: int = 0
        self._next_checkpoint: int = 0
        self._next_eval: int = 0
        self._unpublished = 0  # optimisation steps since the weights were last published
        self._complaints: set[str] = set()

    # Before the first event -----------------------------------------------------------------------

    def begin(self, journal: EventJournal | None) -> PolicyBuffer:
        """Make the acting copies; from here on events may come, and go to the journal."""
        self.journal = journal
        self.policies = PolicyBuffer(self.agent)
        self._note_acting()
        self.seen_at = dict.fromkeys(self.open_episodes, time.monotonic())
        self._published_at = self.total_steps
        # Where feeding stops next: the first multiple of each period beyond the present step.
        config = self._config
        self._next_learn = _next_multiple(self.total_steps, config.opt_interval)
        self._next_checkpoint = _next_multiple(self.total_steps, config.checkpoint_freq if self._run else 0)
        self._next_eval = _next_multiple(self.total_steps, config.eval_freq)
        return self.policies

    def note_saved(self) -> None:
        """Take the present point as saved: it came from a checkpoint."""
        self._saved_at = self._counts()

    @property
    def attempt(self) -> int:
        """The number of the run's present attempt; 0 without a run."""
        return 0 if self._run is None else self._run.attempt

    @property
    def opt_interval(self) -> int:
        """Environment steps per optimisation step."""
        return self._config.opt_interval

    def with_opt_interval(self, opt_interval: int) -> Learner:
        """A learner that goes on from here, with the same agent, at another interval."""
        config = msgspec.structs.replace(self._config, opt_interval=opt_interval)
        other = Learner(self.agent, config, self.stats, self._run)
        for name in ("total_episodes", "opt_steps", "n_events", "eval_episodes"):
            setattr(other, name, getattr(self, name))
        other.actor_episodes, other.open_episodes = self.actor_episodes, self.open_episodes
        other.begin(None)
        return other

    # Events ---------------------------------------------------------------------------------------

    def give_up_episodes(self) -> None:
        """End the running episodes: after a resume their actors begin new ones.

        An event like others, so that whoever replays the journal does the same at the same place.
        """
        for actor_id in list(self.open_episodes):
            self._start_episode(EpisodeStarted(actor_id))
            del self.open_episodes[actor_id]
        self._heard.clear()

    def process(self, batch: Sequence[Event]) -> Sequence[Event]:
        """Take a batch of events in; what comes of them, in order, is for ``take_effects``.

        Returns:
            The events that are left over: it stops where a checkpoint is due.
        """
        started = time.perf_counter()
        done = 0
        while done < len(batch) and not self.is_checkpoint_due:
            event = batch[done]
            if type(event) is Experience:
                done = self._feed(batch, done)
            else:
                self._handle(event)
                done += 1
        if self._published_at != self.total_steps:
            self._publish()
        self.seen_at.update(dict.fromkeys(self._heard, time.monotonic()))
        self._heard.clear()
        self.busy_s += time.perf_counter() - started
        return batch[done:]

    def forget_vanished(self) -> None:
        """Give up the episodes of those who have been away longest, where there are too many to keep."""
        if len(self.seen_at) > 2 * _ACTORS:
            for actor_id in sorted(self.seen_at, key=self.seen_at.__getitem__)[:-_ACTORS]:
                if actor_id in self.open_episodes:
                    self._start_episode(EpisodeStarted(actor_id))
                    del self.open_episodes[actor_id]
                del self.seen_at[actor_id]
            self._heard.clear()
            self._ended &= self.seen_at.keys()

    @property
    def has_effects(self) -> bool:
        """Whether something has come of the events that somebody may wait for: more than journal."""
        return bool(self._effects)

    def take_effects(self) -> list[Effect]:
        """What has come of the events since the last call, in order."""
        self._write_journal()
        effects, self._effects = self._effects, []
        return effects

    def finish(self) -> None:
        """Let a final checkpoint be due, unless the last one was taken at this very point."""
        if self._run is not None and self._saved_at != self._counts():
            self.is_checkpoint_due = True

    def stage_checkpoint(self) -> None:
        """Copy the state of this point; the copy made last must be on disk by now."""
        started = time.perf_counter()
        self._write_journal()
        staged = saving.step_state(self, self._area, self._acting)
        self._effects.append(CheckpointStaged(staged, self.total_steps, self._checkpoint_reply))
        self.is_checkpoint_due, self._checkpoint_reply = False, None
        self._saved_at = self._counts()
        self.busy_s += time.perf_counter() - started

    def _feed(self, batch: Sequence[Event], start: int) -> int:
        """Feed the experiences that begin at ``start``, as far as another event, checkpoint or snapshot.

        The agent observes them in slices, cut where it learns.

        Returns:
            Where it stopped.
        """
        # What is saved at a point must not count what lies behind it.
        most = min(self._next_checkpoint, self._next_eval) - self.total_steps
        found = cast("Sequence[Experience]", batch[start : start + most])
        if {*map(type, found)} != {Experience}:
            found = found[: next(i for i, event in enumerate(found) if type(event) is not Experience)]
        self._note_steps(found)  # nothing else comes between
        self._learn(found)
        return start + len(found)

    def _learn(self, experiences: Sequence[Experience]) -> None:
        """Let the agent observe experiences and learn from them; what is due at the last one is done too."""
        observe, learn, config = self.agent.observe, self.agent.learn, self._config
        start, end = 0, len(experiences)
        for stop in range(self._next_learn - self.total_steps, end + 1, config.opt_interval or _NEVER):
            observe(experiences[start:stop])
            self.total_steps += stop - start
            start = stop
            metrics = learn()
            if metrics is not None:
                self.metrics = metrics
                self.opt_steps += 1
                self._unpublished += 1
                if self._unpublished >= config.publish_interval:
                    self._publish()
        if start < end:
            observe(experiences[start:])
            self.total_steps += end - start
        self._next_learn = _next_multiple(self.total_steps, config.opt_interval)
        # All three may fall on one step; a checkpoint then holds what was learned at it.
        if self.total_steps == self._next_eval:
            self._next_eval += config.eval_freq
            self._effects.append(EvaluationDue(self._snapshot()))
        if self.total_steps == self._next_checkpoint:
            self._next_checkpoint += config.checkpoint_freq
            self.is_checkpoint_due = True

    def _publish(self) -> None:
        """Hand the weights and the exploration of this point to those who act."""
        if self.policies.publish():
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
                if self._run is not None:
                    steps = self.total_steps if total_steps is None else total_steps
                    row = self._run.eval_row(record, steps)
                    self._effects.append(RowReady(self._run.eval_log, row))
            case FlushRequested(reply):
                self._effects.append(FlushReached(reply))
            case BarrierRequested(reply):
                self._note_acting()
                self._effects.append(BarrierReached(reply))
            case CheckpointRequested(reply):
                self.is_checkpoint_due, self._checkpoint_reply = True, reply
            case SnapshotRequested(reply):
                self._effects.append(SnapshotTaken(self._snapshot(), reply))
            case Experience():
                self._feed([event], 0)
            case _:
                assert_never(event)

    def _note_steps(self, experiences: Sequence[Experience]) -> None:
        """Journal and count transitions, before the agent gets them."""
        if self.journal is not None:
            self.journal.note(experiences, self.n_events, self.total_steps)
        actors = {*map(_ACTOR_OF, experiences)}
        self._heard |= actors
        number, running, ended = self.n_events, self.open_episodes, self._ended
        self.n_events += len(experiences)
        self._acting = {}
        goes_on = EpisodeStatus.CONTINUING
        if (
            actors <= running.keys()
            and ended.isdisjoint(actors)
            and not [None for experience in experiences if experience.status is not goes_on]
        ):
            return  # nearly always: nothing begins or ends among them
        for experience in experiences:
            actor_id = experience.actor_id
            if actor_id not in running or actor_id in ended:
                running[actor_id] = number
                ended.discard(actor_id)
            if experience.status is not goes_on:
                ended.add(actor_id)
            number += 1

    def _note(self, event: EpisodeStarted | EpisodeEnded) -> None:
        if self.journal is not None:
            self.journal.note((event,), self.n_events, self.total_steps)
        self.n_events += 1
        self._heard.add(event.actor_id)
        self._ended.discard(event.actor_id)

    def _start_episode(self, event: EpisodeStarted) -> None:
        self._note(event)
        self.open_episodes.pop(event.actor_id, None)  # the oldest first
        self.open_episodes[event.actor_id] = self.n_events - 1
        self.agent.on_episode_start(event.actor_id)

    def _end_episode(self, event: EpisodeEnded) -> None:
        self._note(event)
        self.open_episodes.pop(event.actor_id, None)
        extras = self._finite(self.agent.episode_extras(event.actor_id))
        record = event.record.with_extras(extras) if extras else event.record
        self.total_episodes += 1
        self.stats.update(record, event.actor_id)
        self._count_episode(event.actor_id)
        if self._run is not None:
            row = self._run.train_row(record, self.total_steps, self.total_episodes, event.actor_id)
            self._effects.append(RowReady(self._run.train_log, row))
        self.agent.on_episode_start(event.actor_id)

    def _count_episode(self, actor_id: Any) -> None:
        # The most recent last; ids without end (one per connection, say) must not fill the memory.
        self.actor_episodes[actor_id] = self.actor_episodes.pop(actor_id, 0) + 1
        if len(self.actor_episodes) > _ACTORS:
            del self.actor_episodes[next(iter(self.actor_episodes))]

    def _finite(self, extras: Mapping[str, float]) -> Mapping[str, float]:
        """The agent's extras without those that JSON has no number for; told once per key."""
        if all(map(math.isfinite, extras.values())):
            return extras
        for key, value in extras.items():
            if not math.isfinite(value) and key not in self._complaints:
                self._complaints.add(key)
                logger.warning(
                    "the agent reports %s=%s; left out of the rows, look at its learning rate", key, value
                )
        return {key: value for key, value in extras.items() if math.isfinite(value)}

    # What leaves the thread -----------------------------------------------------------------------

    def _write_journal(self) -> None:
        if self.journal is not None:
            self._effects += (JournalWritten(log, data) for log, data in self.journal.take())

    def _counts(self) -> tuple[int, ...]:
        return self.n_events, self.eval_episodes

    def _note_acting(self) -> None:
        """With lockstep: keep what acting changes, as it is behind the last step and before the next one."""
        if self.is_lockstep and not self._acting:
            self._acting = saving.acting_state(self.agent)

    def _snapshot(self) -> PolicySnapshot:
        return PolicySnapshot(
            self.agent.policy(),
            total_steps=self.total_steps,
            policy_version=self.policies.version,
            state=saving.weights_state(self),
        )


_ACTORS = 10_000
"""How many actors are kept in mind."""

_ACTOR_OF = attrgetter("actor_id")


def _next_multiple(step: int, period: int) -> int:
    """The first multiple of the period beyond the step; never, for a period of 0."""
    return step - step % period + period if period else _NEVER
