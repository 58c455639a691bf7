"""How a session is set up; checked once, before anything starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from stoker.errors import ConfigError
from stoker.runs import TrainingRun

__all__ = ["LearningPeriods", "SessionConfig", "check_parts", "session_config"]


class LearningPeriods(NamedTuple):
    """When an agent learns: all that decides it beside the events themselves.

    Attributes:
        opt_interval: environment steps per call of ``learn``; 0: never.
        warmup_period: environment steps before the first call.
        max_opts: optimization steps after which there are no more calls; None: no limit.
    """

    opt_interval: int = 1
    warmup_period: int = 0
    max_opts: int | None = None


class SessionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
        lockstep: ``observe`` waits until the transition is learned and the policy published. With actors that
            take turns (``run_actors`` does) a training is then repeatable, and a resume is exact.
        opt_interval: environment steps per call of ``agent.learn``; 0: it is never called, and what comes is
            only kept.
        warmup_period: environment steps before the first optimization step.
        max_opts: optimization steps after which nothing more is learned or accepted, exactly; counted over
            all attempts. None: no limit.
        max_staleness: the most optimization steps between the policy that chose an action and the agent
            that learns from it. ``act`` keeps it by making fast actors wait; None: no limit.
        save_interval: optimization steps between checkpoints, beside ``checkpoint_freq``; 0: never.
        eval_interval: optimization steps between evaluations, beside ``eval_freq``; 0: never.
        record_interval: optimization steps between records of the metrics; 0: never.
        record_freq: environment steps between records of the metrics, beside ``record_interval``; 0: never.
        eval_freq: environment steps between the snapshots that ``next_evaluation`` gives out; 0: never.
        queue_capacity: events that may wait for the learner before ``observe`` makes its caller wait. It
            bounds how old a policy can be, in steps, when its transitions are learned.
        publish_interval: optimization steps after which actors get the new weights, within one batch.
        inference: where forward passes run. ``"inline"``: on the event loop, best for small networks;
            ``"thread"``: in a thread of their own; ``"auto"``: inline until one takes longer than 2 ms.
        metadata_interval_s: ``metadata.json`` is rewritten at most this often, and at every flush.
        flush_interval_s: rows and journal are made durable at the latest this long after they were written;
            how far a resume goes back is for ``checkpoint_freq`` to say.
        flush_bytes: rows and journal are made durable earlier once this many bytes wait.
        stall_timeout_s: a learner, disk or forward pass without progress for this long is stuck.
        on_stall: what comes of that: ``"fail"`` ends the session, ``"warn"`` says so and waits on.
        actor_timeout_s: an actor that sends nothing during an episode for this long is silent.
        on_silent_actor: what comes of that: ``"warn"``; ``"restart"`` makes the environment of an actor of
            ``run_actors`` anew, and warns of others; ``"fail"`` ends the session.
    """

    max_steps: int | None = None
    checkpoint_freq: int = 10_000
    keep_checkpoints: int | None = 3
    keep_every: int = 0
    keep_best: int = 1
    journal: bool = True
    keep_journal: str = "needed"
    journal_segment_bytes: int = 16 << 20
    lockstep: bool = False
    opt_interval: int = 1
    warmup_period: int = 0
    max_opts: int | None = None
    max_staleness: int | None = None
    save_interval: int = 0
    eval_interval: int = 0
    record_interval: int = 0
    record_freq: int = 0
    eval_freq: int = 0
    queue_capacity: int = 1024
    publish_interval: int = 16
    inference: str = "auto"
    metadata_interval_s: float = 1.0
    flush_interval_s: float = 0.5
    flush_bytes: int = 4 << 20
    stall_timeout_s: float = 120.0
    on_stall: str = "fail"
    actor_timeout_s: float = 60.0
    on_silent_actor: str = "warn"

    def __post_init__(self) -> None:
        """Validate each setting.

        Raises:
            ConfigError: A value is out of range; the message names it and the range.
        """
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name in _MAY_BE_NONE:
                continue
            if type(value) is not int or value < least:
                raise ConfigError(f"{name}={value!r}: give an int of at least {least}")
        for name in (*_SECONDS, *_TIMEOUTS):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 <= value < math.inf:
                raise ConfigError(f"{name}={value!r}: give a number of seconds, 0 or more")
            if name in _TIMEOUTS and value == 0:
                raise ConfigError(f"{name}={value!r}: nothing can move in no time; give seconds above 0")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(choices)}")
        for name in _FLAGS:
            if type(getattr(self, name)) is not bool:
                raise ConfigError(f"{name}={getattr(self, name)!r}: give True or False")
        if self.max_staleness is not None and not self.opt_interval:
            raise ConfigError(
                f"max_staleness={self.max_staleness} needs an opt_interval of at least 1: nothing else ages"
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
        return LearningPeriods(self.opt_interval, self.warmup_period, self.max_opts)


_CHOICES = {
    "inference": ("auto", "inline", "thread"),
    "keep_journal": ("needed", "all"),
    "on_stall": ("fail", "warn"),
    "on_silent_actor": ("warn", "restart", "fail"),
}
_FLAGS = ("journal", "lockstep")
_LEAST = {
    "max_steps": 0,
    "checkpoint_freq": 0,
    "keep_checkpoints": 0,
    "keep_every": 0,
    "keep_best": 1,
    "journal_segment_bytes": 1,
    "flush_bytes": 1,
    "opt_interval": 0,
    "warmup_period": 0,
    "max_opts": 0,
    "max_staleness": 0,
    "save_interval": 0,
    "eval_interval": 0,
    "record_interval": 0,
    "record_freq": 0,
    "eval_freq": 0,
    "queue_capacity": 1,
    "publish_interval": 1,
}
_MAY_BE_NONE = ("max_steps", "keep_checkpoints", "max_opts", "max_staleness")
_SECONDS = ("metadata_interval_s", "flush_interval_s")
_TIMEOUTS = ("stall_timeout_s", "actor_timeout_s")


def session_config(settings: Mapping[str, Any]) -> SessionConfig:
    """The settings as a config.

    Raises:
        ConfigError: A name or a value cannot be used.
    """
    known = SessionConfig.__struct_fields__
    for name in settings:
        if name not in known:
            raise ConfigError(f"TrainingSession has no setting {name!r}; it has {', '.join(known)}")
    return SessionConfig(**settings)


def check_parts(agent: Any, run: Any) -> None:
    """Refuse what is no agent or no run, by name rather than at its first use.

    Raises:
        ConfigError: The message says what is missing.
    """
    missing = [name for name in _AGENT_HAS if not hasattr(agent, name)]
    if missing:
        raise ConfigError(f"{type(agent).__name__} is not a LearningAgent: it lacks {', '.join(missing)}")
    if run is not None and not isinstance(run, TrainingRun):
        raise ConfigError(f'run={run!r}: give a TrainingRun, such as `await TrainingRun.create("name")`')


_AGENT_HAS = (
    "total_steps", "needs_policy_extras", "policy", "publish", "observe", "learn", "episode_extras",
    "on_episode_start", "state_dict", "load_state_dict",
)  # fmt: skip
