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
from typing import Any, assert_never

from stoker.agents.protocol import LearningAgent
from stoker.runs import TrainingRun
from stoker.session import saving
from stoker.session.config import SessionConfig
from stoker.session.events import (
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
    RowReady,
    SnapshotRequested,
    SnapshotTaken,
)
from stoker.session.policies import PolicyBuffer
from stoker.session.snapshot import PolicySnapshot
from stoker.stats import StatsTracker
from stoker.types import Experience

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
        self.actor_episodes: dict[Any, int] = {}
        self.metrics: Mapping[str, float] = {}
        """What the last optimisation step had to say."""
        self.busy_s = 0.0
        """Seconds spent in ``process``."""
        self._config = config
        self._run = run
        self._effects: list[Effect] = []
        self._saved_at: tuple[int, int] | None = None  # steps and episodes of the last staged checkpoint
        self._has_staged = False  # whether a checkpoint was staged in the present call of process
        self._unpublished = 0  # optimisation steps since the weights were last published
        self._complaints: set[str] = set()

    # Before the first event -----------------------------------------------------------------------

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Become what a step checkpoint holds."""
        saving.restore(self, checkpoint)
        self._saved_at = (self.total_steps, self.total_episodes)

    def begin(self) -> PolicyBuffer:
        """Make the acting copies; from here on events may come."""
        self.policies = PolicyBuffer(self.agent)
        self._published_at = self.total_steps
        # Where feeding stops next: the first multiple of each period beyond the present step.
        config = self._config
        self._next_learn = _next_multiple(self.total_steps, config.opt_interval)
        self._next_checkpoint = _next_multiple(self.total_steps, config.checkpoint_freq if self._run else 0)
        self._next_eval = _next_multiple(self.total_steps, config.eval_freq)
        self._next_boundary = min(self._next_learn, self._next_checkpoint, self._next_eval)
        return self.policies

    # Events ---------------------------------------------------------------------------------------

    def process(self, batch: Sequence[Event]) -> Sequence[Event]:
        """Take a batch of events in; what comes of them, in order, is for ``take_effects``.

        Returns:
            The events that are left over: it stops behind a staged checkpoint, so that only one copy of the
            state is under way.
        """
        started = time.perf_counter()
        self._has_staged = False
        done = 0
        while done < len(batch) and not self._has_staged:
            event = batch[done]
            if type(event) is Experience:
                done = self._feed(batch, done)
            else:
                self._handle(event)
                done += 1
        if self._published_at != self.total_steps:
            self._publish()
        self.busy_s += time.perf_counter() - started
        return batch[done:]

    def take_effects(self) -> list[Effect]:
        """What has come of the events since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    def finish(self) -> None:
        """Stage the final checkpoint, unless the last one was taken at this very point."""
        if self._run is not None and self._saved_at != (self.total_steps, self.total_episodes):
            self._stage(None)

    def _feed(self, batch: Sequence[Event], start: int) -> int:
        """Feed the experiences that begin at ``start``, as far as the next other event or checkpoint.

        The agent observes them in slices, cut where it learns and where a checkpoint or a snapshot is due.

        Returns:
            Where it stopped.
        """
        agent, config = self.agent, self._config
        end = start
        while end < len(batch) and type(batch[end]) is Experience:
            end += 1
        while start < end and not self._has_staged:
            stop = min(end, start + self._next_boundary - self.total_steps)
            agent.observe(batch[start:stop])  # type: ignore[arg-type]  # nothing but experiences between
            self.total_steps += stop - start
            start = stop
            if self.total_steps < self._next_boundary:
                break
            # All three may fall on one step; a checkpoint then holds what was learned at it.
            if self.total_steps == self._next_learn:
                self._next_learn += config.opt_interval
                metrics = agent.learn()
                if metrics is not None:
                    self.metrics = metrics
                    self.opt_steps += 1
                    self._unpublished += 1
                    if self._unpublished >= config.publish_interval:
                        self._publish()
            if self.total_steps == self._next_checkpoint:
                self._next_checkpoint += config.checkpoint_freq
                self._stage(None)
            if self.total_steps == self._next_eval:
                self._next_eval += config.eval_freq
                self._effects.append(EvaluationDue(self._snapshot()))
            self._next_boundary = min(self._next_learn, self._next_checkpoint, self._next_eval)
        return start

    def _publish(self) -> None:
        """Hand the weights and the exploration of this point to those who act."""
        if self.policies.publish():
            self._unpublished = 0
            self._published_at = self.total_steps

    def _handle(self, event: Event) -> None:
        match event:
            case EpisodeStarted(actor_id):
                self.agent.on_episode_start(actor_id)
            case EpisodeEnded():
                self._end_episode(event)
            case EvalEpisodeEnded(record, total_steps):
                if self._run is not None:
                    steps = self.total_steps if total_steps is None else total_steps
                    row = self._run.eval_row(record, steps)
                    self._effects.append(RowReady(self._run.eval_log, row))
            case FlushRequested(reply):
                self._effects.append(FlushReached(reply))
            case CheckpointRequested(reply):
                self._stage(reply)
            case SnapshotRequested(reply):
                self._effects.append(SnapshotTaken(self._snapshot(), reply))
            case Experience():
                self._feed([event], 0)
            case _:
                assert_never(event)

    def _end_episode(self, event: EpisodeEnded) -> None:
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

    def _stage(self, reply: Any) -> None:
        self._has_staged = True
        self._effects.append(CheckpointStaged(saving.step_state(self), self.total_steps, reply))
        self._saved_at = (self.total_steps, self.total_episodes)

    def _snapshot(self) -> PolicySnapshot:
        return PolicySnapshot(
            self.agent.policy(),
            total_steps=self.total_steps,
            policy_version=self.policies.version,
            state=saving.weights_state(self),
        )


_ACTORS = 10_000
"""How many actors' episode counts are kept."""


def _next_multiple(step: int, period: int) -> int:
    """The first multiple of the period beyond the step; never, for a period of 0."""
    return step - step % period + period if period else _NEVER
