"""A session's numbers for metrics systems, and what its clocks say, read from any thread, also after its end.

The learner's thread, the event loop and the writer go on meanwhile. Each number is read in one step, and no
lock is taken, so that reading never makes a part wait.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from operator import methodcaller
from pathlib import Path
from statistics import fmean, median

import msgspec

from stoker.session.metrics import StalenessReport
from stoker.session.parts import Evaluations, Parts
from stoker.session.state import RunCounts
from stoker.stats import StatsTracker
from stoker.telemetry import ClockReading, Explanation, TrainingReading, chrome_trace, explained, windows_of
from stoker.writer import files

_MOST_ACTORS = 100
"""Of how many actors the windows are looked at, which takes 10 to 20 us each."""


def training_reading(parts: Parts, evaluations: Evaluations) -> TrainingReading:
    """All numbers of a session that was opened."""
    learner, writer, inference = parts.learner, parts.writer, parts.inference
    now, wall = time.monotonic(), time.time()
    counts: RunCounts = learner.counts if learner.journal is None else writer.durable
    staleness = StalenessReport.of(learner.metrics.staleness)
    seen_at = learner.actors.last_seen_at
    reward, length = learner.metrics.recent()
    return TrainingReading(
        labels=learner.labels,
        is_running=parts.failure is None and not parts.written.is_set(),
        started_at=wall - (now - parts.started_at),
        offline=parts.config.offline,
        total_steps=counts.total_steps,
        total_episodes=counts.total_episodes,
        total_opt_steps=counts.opt_steps,
        n_checkpoints=parts.n_checkpoints,
        refused={**parts.events.refusals.totals, "after-end": parts.intake.n_refused},
        queue_depth=len(parts.queue),
        queue_capacity=parts.config.queue_capacity,
        writer_queue_depth=len(writer),
        policy_version=learner.policies.version,
        policy_age_s=now - learner.policies.published_at,
        staleness={"mean": staleness.mean, "max": staleness.max} if staleness.histogram else {},
        durable_lag_s=None if parts.run is None else _durable_lag_s(parts, now),
        last_step_at=None if seen_at is None else wall - (now - seen_at),
        last_checkpoint_at=parts.checkpointed_at,
        episode_reward=reward,
        episode_length=length,
        by_actor=_by_actor(learner.stats),
        eval_reward=_last_evaluation(evaluations),
        best_value=None if evaluations.best is None else evaluations.best[0],
        busy_s=learner.metrics.clocks.read().seconds,
        actors=_actors(parts, now),
        nodes=parts.workers.by_node(),
        act_s=inference.latency_ns.scaled(1e-9),
        act_batch_size=inference.batch_sizes,
        observe_wait_s=parts.observe_wait_ns.scaled(1e-9),
        commit_s=writer.commit_ns.scaled(1e-9),
        train=learner.learn_metrics,
        user=dict(learner.metrics.user),
    )


def _durable_lag_s(parts: Parts, now: float) -> float:
    """How long the oldest data waits in the writer, or how long the learner's present call has had it."""
    since = parts.thread.since
    return max(parts.writer.lag_s, 0.0 if since is None else now - since)


def _by_actor(stats: StatsTracker) -> dict[str, dict[str, float]]:
    """How much the actors differ."""
    windows = stats.windows(_MOST_ACTORS).values()
    columns = {
        "reward": [window.mean_reward for window in windows],
        "length": [window.mean_length for window in windows],
        "steps_per_s": [window.steps_per_s for window in windows if window.steps_per_s],
    }
    found = {name: [value for value in values if math.isfinite(value)] for name, values in columns.items()}
    return {
        name: {"min": min(values), "median": median(values), "max": max(values)}
        for name, values in found.items()
        if values
    }


def _last_evaluation(evaluations: Evaluations) -> float | None:
    """The mean reward of the last policy's episodes."""
    records = list(evaluations.records)
    if not records:
        return None
    last = records[-1][0]
    return fmean(record.total_reward for steps, record in records if steps == last)


def _actors(parts: Parts, now: float) -> Mapping[str, int]:
    """How many actors are in each state; each of them is in one."""
    registry, waited_at = parts.learner.actors, parts.waited_at
    running, seen_at = registry.running.copy(), registry.seen_at.copy()
    acting = parts.intake.acting | parts.intake.acting_together
    waiting = acting | parts.intake.observing.keys()
    silent = 0
    if not parts.written.is_set():
        until = now - parts.config.actor_timeout_s
        late = [actor_id for actor_id in running if seen_at.get(actor_id, now) <= until]
        silent = sum(one not in waiting and waited_at.get(one, 0.0) <= until for one in late)
    playing = len(running) - sum(one in running for one in waiting) - silent
    known = len(seen_at) + sum(one not in seen_at for one in waiting)
    return {
        "idle": max(0, known - playing - len(waiting) - silent),  # its parts are not of one moment
        "playing": playing,
        "acting": len(acting),
        "observing": len(waiting) - len(acting),
        "silent": silent,
    }


def explanation_of(parts: Parts, seconds: float) -> Explanation:
    """Explain the last seconds, from the nearest reading before them if there is one."""
    readings = _last_readings(parts)
    last = readings[-1]
    first = next((one for one in reversed(readings[:-1]) if one.at <= last.at - seconds), readings[0])
    profile = last.since(first)
    if (sampler := parts.sampler) is not None:
        seen = {"blocked_in": sampler.blocked_in, "busiest_thread": sampler.busiest_thread}
        profile = msgspec.structs.replace(profile, **seen)
    return explained(profile, offline=parts.config.offline)


def write_trace_of(parts: Parts, path: Path) -> None:
    """Write the trace of the last minute."""
    name = "training" if parts.run is None else parts.run.metadata.name
    trace = msgspec.json.encode(chrome_trace(windows_of(_last_readings(parts)), name))
    files.put_in_place(path, methodcaller("write", trace))


def _last_readings(parts: Parts) -> list[ClockReading]:
    """Those of the last minute, up to now or to the end."""
    clocks = parts.learner.metrics.clocks
    return [*clocks.history(), *([] if parts.ended_at else [clocks.read()])]
