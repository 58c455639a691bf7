"""The state of a training at one moment, read from its session without disturbing it."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from stoker.agents.protocol import ReportsExploration
from stoker.session.workers import WorkerStatus

if TYPE_CHECKING:
    from stoker.trainer.trainer import Progress

_RATE_S = 10.0
"""Speeds and shares are over this many seconds."""
_CURVE = 512
"""A curve of more points than this loses every other one."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One moment of a training. A number is None, or NaN, where there is nothing yet.

    Attributes:
        total_steps, limit, total_episodes: over all attempts.
        steps_per_s: over the last 10 s.
        elapsed_s: since this process began to train.
        eta_s: until the limit, at the present speed.
        mean_reward, mean_length: over the last 100 episodes.
        curve: the mean reward since this process began.
        exploration: the agent's ``exploration_rate``, for example epsilon; None: it has none.
        metrics: those of the last optimization step.
        opt_steps: optimization steps.
        data_steps: of a training on a data set, its transitions that the agent has observed; None: others.
        queue: how full the event queue is, 0 to 1.
        shares: part of the wall clock spent on env, act, learn and write; env sums over all actors.
        last_eval: the last evaluation of this process: its mean reward and the steps of its policy.
        best: the same of the best evaluation, ever.
        restarts: the number of environments that failed and were made again.
        workers: those on a cluster, in words; empty: there are none.
    """

    total_steps: int
    limit: int
    total_episodes: int
    steps_per_s: float
    elapsed_s: float
    eta_s: float | None
    mean_reward: float
    mean_length: float
    curve: tuple[float, ...]
    exploration: float | None
    metrics: Mapping[str, float]
    opt_steps: int
    data_steps: int | None = None
    queue: float
    shares: Mapping[str, float]
    last_eval: tuple[float, int] | None
    best: tuple[float, int] | None
    restarts: int
    workers: str = ""


def workers_line(workers: Sequence[WorkerStatus]) -> str:
    """How the workers of a cluster are: ``4/4 on 2 nodes, lost 12 steps``; empty: there are none."""
    if not workers:
        return ""
    playing = [worker for worker in workers if worker.state == "playing"]
    n_nodes = len({worker.node for worker in playing})
    words = f"{len(playing)}/{len(workers)} on {n_nodes} {'node' if n_nodes == 1 else 'nodes'}"
    lost = sum(worker.lost_steps for worker in workers)
    waiting = sum(worker.state == "waiting" for worker in workers)
    words += f", {waiting} waiting" if waiting else ""
    return f"{words}, lost {lost:,} steps" if lost else words


class Gauges:
    """Takes readings of one training."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began_s = time.monotonic()
        self._samples: deque[tuple[float, int, dict[str, float]]] = deque()
        self._curve: list[float] = []
        self._n_rewards, self._stride = 0, 1

    def read(self) -> Reading:
        """Take one reading; may be called several times a second."""
        session, group, config = self._progress.session, self._progress.group, self._progress.config
        agent, now = session.agent, time.monotonic()
        steps, busy = session.total_steps, {"env": group.env_s, **session.busy_s()}
        self._samples.append((now, steps, busy))
        while len(self._samples) > 2 and now - self._samples[0][0] > _RATE_S:
            self._samples.popleft()
        then, steps_then, busy_then = self._samples[0]
        window_s = now - then or math.inf
        rate = (steps - steps_then) / window_s
        stats = session.stats.window()
        self._follow(stats.mean_reward)
        last = self._progress.evaluator.last
        return Reading(
            total_steps=steps,
            limit=config.total_timesteps,
            total_episodes=session.total_episodes,
            steps_per_s=rate,
            elapsed_s=now - self._began_s,
            eta_s=(config.total_timesteps - steps) / rate if rate > 0 else None,
            mean_reward=stats.mean_reward,
            mean_length=stats.mean_length,
            curve=tuple(self._curve),
            exploration=agent.exploration_rate if isinstance(agent, ReportsExploration) else None,
            metrics=session.learn_metrics,
            opt_steps=session.opt_steps,
            data_steps=session.kept_steps if session.config.offline else None,
            queue=session.queue_fill,
            shares={name: (busy[name] - busy_then[name]) / window_s for name in busy},
            last_eval=last and (last.mean_reward, last.total_steps),
            best=session.best,
            restarts=group.restarts,
            workers=workers_line(session.workers),
        )

    def _follow(self, reward: float) -> None:
        """Extend the curve; when it is long, drop every other point and add points less often."""
        if math.isnan(reward):  # no episode has ended
            return
        if self._n_rewards % self._stride == 0:
            self._curve.append(reward)
        self._n_rewards += 1
        if len(self._curve) > _CURVE:
            del self._curve[1::2]
            self._stride *= 2
