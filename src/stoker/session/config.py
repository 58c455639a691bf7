"""The settings of a session, and the points at which their periods are due.

Learning, checkpoints, evaluations, records and the end of learning are each due at exact multiples of a
period, in environment or in optimization steps. Nothing but the two counters decides, so that the same order
of events has the same things done at the same places.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from stoker.errors import ConfigError
from stoker.settings import Count, Natural, NonNegative, Positive, Settings


class LearningPeriods(NamedTuple):
    """When an agent learns: all that decides it beside the events themselves.

    Attributes:
        opt_interval: environment steps per call of ``learn``; 0: never.
        warmup_period: environment steps before the first call.
        max_opts: optimization steps after which there are no more calls; None: no limit.
        offline: whether the steps of the training are optimization steps, see ``SessionConfig``.
    """

    opt_interval: int = 1
    warmup_period: int = 0
    max_opts: int | None = None
    offline: bool = False


class SessionConfig(Settings, frozen=True, kw_only=True):
    """The settings of a session.

    Attributes:
        max_steps: environment steps after which nothing more is accepted, exactly; counted over all
            attempts of a run. None: no limit.
        checkpoint_freq: environment steps between checkpoints, at exact multiples; 0: only the final one.
        keep_checkpoints: how many step checkpoints are kept; None: all. 0: only ``latest`` and ``best``.
        keep_every: checkpoints at multiples of this many steps are never pruned; 0: none.
        keep_best: how many of the best evaluated policies are kept.
        journal: whether every transition is written to the run's journal. Checkpoints are then small and
            the training can be replayed; without it they hold a copy of the replay.
        keep_journal: ``"needed"``: what the newest checkpoints need of it; ``"all"``: from the first step.
        journal_segment_bytes: size at which a file of the journal is closed.
        roll_forward: whether a resume also learns again what the journal holds behind the checkpoint;
            ``"strict"``: and fails where some of that cannot be read. False: it goes back to the checkpoint.
        roll_forward_to: how many events a resume restores, exactly, where several runs must stand at one
            place: checkpoints beyond that are passed over, and what the journal holds behind it becomes an
            abandoned future. It fails where some of the events cannot be read. None: all that are there.
        final_checkpoint: whether the session also writes a checkpoint when it ends, and when a resume has
            learned the journal's tail. False: only those that are due or asked for.
        lockstep: ``observe`` waits until the transition is learned and the policy published. With actors that
            take turns (``run_actors`` does) a training is then repeatable, and a resume is exact.
        numbered: every event carries its number in its actor's stream (``seq``), as a service for remote
            actors needs. The session keeps the state of each stream, exactly as far as the journal holds it,
            and a resume lets running episodes go on.
        opt_interval: environment steps per call of ``agent.learn``; 0: it is never called, and transitions
            are only stored.
        warmup_period: environment steps before the first optimization step.
        max_opts: optimization steps after which nothing more is learned or accepted, exactly; counted over
            all attempts. None: no limit.
        offline: whether transitions are only stored, as those of a data set are, and steps are optimization
            steps: ``total_steps`` counts these, in periods, checkpoints, rows and limits other than
            ``max_steps``; ``kept_steps`` counts the transitions. Needs ``opt_interval=0``.
        repeated_limits: which of ``max_steps`` and ``max_opts`` end the session at their next multiple beyond
            the progress of agent and run: a second session then does as much again.
        max_staleness: the most optimization steps between the policy that chose an action and the agent
            that learns from it. ``act`` keeps it by making fast actors wait; None: no limit.
        save_interval: optimization steps between checkpoints, beside ``checkpoint_freq``; 0: never.
        eval_interval: optimization steps between evaluations, beside ``eval_freq``; 0: never.
        record_interval: optimization steps between records of the metrics; 0: never.
        record_freq: environment steps between records of the metrics, beside ``record_interval``; 0: never.
        eval_freq: environment steps between the snapshots that ``next_evaluation`` returns; 0: never.
        queue_capacity: events that may wait for the learner before ``observe`` makes its caller wait. It
            bounds how old a policy can be, in steps, when its transitions are learned.
        publish_interval: optimization steps after which actors get the new weights, within one batch.
        inference: where forward passes run. ``"inline"``: on the event loop, best for small networks;
            ``"thread"``: in a thread of their own; ``"auto"``: inline until one takes longer than 2 ms.
        metadata_interval_s: ``metadata.json`` is rewritten at most this often, and at every flush.
        flush_interval_s: rows and journal are made durable at the latest this long after they were written;
            that much a kill or a power cut can take.
        flush_bytes: rows and journal are made durable earlier once this many bytes wait.
        stall_timeout_s: a learner, disk or forward pass without progress for this long is stuck.
        on_stall: ``"fail"``: a stuck part ends the session; ``"warn"``: it is logged.
        actor_timeout_s: an actor that sends nothing during an episode for this long is silent.
        on_silent_actor: ``"warn"``: it is logged; ``"restart"``: the environment of an actor of
            ``run_actors`` is made anew, and others are logged; ``"fail"``: the session ends.
    """

    max_steps: Natural | None = None
    checkpoint_freq: Natural = 10_000
    keep_checkpoints: Natural | None = 3
    keep_every: Natural = 0
    keep_best: Count = 1
    journal: bool = True
    keep_journal: Literal["needed", "all"] = "needed"
    journal_segment_bytes: Count = 16 << 20
    roll_forward: bool | Literal["strict"] = True
    roll_forward_to: Natural | None = None
    final_checkpoint: bool = True
    lockstep: bool = False
    numbered: bool = False
    opt_interval: Natural = 1
    warmup_period: Natural = 0
    max_opts: Natural | None = None
    offline: bool = False
    repeated_limits: tuple[Literal["max_steps", "max_opts"], ...] = ()
    max_staleness: Natural | None = None
    save_interval: Natural = 0
    eval_interval: Natural = 0
    record_interval: Natural = 0
    record_freq: Natural = 0
    eval_freq: Natural = 0
    queue_capacity: Count = 1024
    publish_interval: Count = 16
    inference: Literal["auto", "inline", "thread"] = "auto"
    metadata_interval_s: NonNegative = 1.0
    flush_interval_s: NonNegative = 0.5
    flush_bytes: Count = 4 << 20
    stall_timeout_s: Positive = 120.0
    on_stall: Literal["fail", "warn"] = "fail"
    actor_timeout_s: Positive = 60.0
    on_silent_actor: Literal["warn", "restart", "fail"] = "warn"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_staleness is not None and not self.opt_interval:
            raise ConfigError(
                f"max_staleness={self.max_staleness} needs an opt_interval of at least 1: nothing else ages"
            )
        if self.offline and self.opt_interval:
            raise ConfigError(
                f"offline=True with opt_interval={self.opt_interval}: nothing is learned from transitions as "
                "they come; set opt_interval=0 and call `optimize`"
            )
        if self.numbered and self.lockstep:
            raise ConfigError(
                "numbered=True and lockstep=True: actors that take turns are played here, and numbered ones "
                "elsewhere; choose one"
            )
        if self.roll_forward_to is not None and not (self.roll_forward and self.journal):
            raise ConfigError(
                f"roll_forward_to={self.roll_forward_to} needs roll_forward=True and journal=True: it is a "
                "place in the journal"
            )
        if self.lockstep and not self.journal:
            raise ConfigError(
                "lockstep=True needs journal=True: a resume brings episodes back from the journal"
            )

    @property
    def keeps_versions(self) -> bool:
        """Whether transitions carry the version of the policy that chose their action, to count staleness."""
        return self.max_staleness is not None or self.records

    @property
    def records(self) -> bool:
        """Whether records of the metrics are made."""
        return self.record_interval > 0 or self.record_freq > 0

    @property
    def periods(self) -> LearningPeriods:
        """When the agent learns."""
        return LearningPeriods(self.opt_interval, self.warmup_period, self.max_opts, self.offline)

    def beginning_at(
        self, total_steps: int, opt_steps: int, *, was_interrupted: bool = False
    ) -> SessionConfig:
        """These settings with the repeated limits at their next multiples.

        Args:
            total_steps: of agent and run.
            opt_steps: of agent and run.
            was_interrupted: whether the training before died; a multiple that it had reached was its limit.
        """
        done = {"max_steps": total_steps, "max_opts": opt_steps}
        limits = {name: getattr(self, name) for name in self.repeated_limits}
        later = {
            name: _next_multiple(max(0, done[name] - was_interrupted), limit)
            for name, limit in limits.items()
            if limit
        }
        return msgspec.structs.replace(self, **later)


_NEVER = 1 << 62


class Due(NamedTuple):
    """What is due at a point, apart from learning."""

    checkpoint: bool
    evaluation: bool
    record: bool
    limit: bool


class Triggers:
    """The next point of each period, beyond the present one.

    Args:
        config: the session's settings.
        total_steps, opt_steps: where the counters stand.
        has_run: whether checkpoints go anywhere.

    Attributes:
        next_learn: the environment step at which the agent is to learn next.
    """

    def __init__(self, config: SessionConfig, total_steps: int, opt_steps: int, *, has_run: bool) -> None:
        self._learning = config.periods
        # Of checkpoints, evaluations and records: in environment steps, and in optimization steps.
        save_freq, save_interval = (config.checkpoint_freq, config.save_interval) if has_run else (0, 0)
        self._freqs = (save_freq, config.eval_freq, config.record_freq)
        self._intervals = (save_interval, config.eval_interval, config.record_interval)
        self._most = _NEVER if config.max_opts is None else config.max_opts
        self._move(total_steps, opt_steps)

    @property
    def may_learn(self) -> bool:
        """Whether ``max_opts`` leaves anything to do."""
        return self._opt_steps < self._most

    def room(self) -> int:
        """How many transitions may be fed, at least one, so that nothing is due before the last of them."""
        if self._learning.offline:
            return _NEVER
        until = self._next_stop
        if self._next_opt < _NEVER and self.next_learn < _NEVER:
            # Each call of learn makes one optimization step at most.
            calls = self._next_opt - self._opt_steps
            until = min(until, self.next_learn + (calls - 1) * self._learning.opt_interval)
        return until - self._total_steps

    def reached(self, total_steps: int, opt_steps: int) -> Due | None:
        """Note the new values of the counters; return what is due, or None."""
        has_stepped, has_learned = total_steps != self._total_steps, opt_steps != self._opt_steps
        is_due = (has_stepped and total_steps == self._next_stop) or opt_steps == self._next_opt
        self._move(total_steps, opt_steps)
        if not is_due:
            return None
        due = [
            (has_stepped and _divides(freq, total_steps)) or (has_learned and _divides(interval, opt_steps))
            for freq, interval in zip(self._freqs, self._intervals, strict=True)
        ]
        return Due(*due, limit=has_learned and opt_steps >= self._most)

    def _move(self, total_steps: int, opt_steps: int) -> None:
        self._total_steps, self._opt_steps = total_steps, opt_steps
        interval, warmup, *_ = self._learning
        self._next_stop = min(_next_multiple(total_steps, freq) for freq in self._freqs)
        self.next_learn: int = _NEVER
        self._next_opt = _NEVER
        if self.may_learn:
            self.next_learn = _next_multiple(max(total_steps, warmup - 1), interval)
            self._next_opt = min(self._most, *(_next_multiple(opt_steps, some) for some in self._intervals))


def _next_multiple(count: int, period: int) -> int:
    """The first multiple of the period beyond the count; never, for a period of 0."""
    return count - count % period + period if period else _NEVER


def _divides(period: int, count: int) -> bool:
    return period > 0 and count % period == 0
