"""What was found out about a session's policies: evaluation episodes, and the best of them.

The best value is that of the run, over all attempts: what was saved as best is beaten, not overwritten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import anyio

import stoker.session.saving as saving
from stoker.errors import ConfigError
from stoker.runs import TrainingRun
from stoker.session.engine import Engine
from stoker.session.events import EvalEpisodeEnded
from stoker.session.policies import PolicySnapshot
from stoker.stats import EpisodeRecord, EvalReport, StatsTracker

__all__ = ["Evaluations"]

_KEPT = 1000


def _publish(
    engine: Engine, run: TrainingRun, staged: Mapping[str, Any], best: tuple[float, int] | None
) -> None:
    """Write a policy, and only then let the metadata speak of it. In the writer's thread."""
    run.publish_best(staged, engine.retention)
    if best is not None:
        engine.saved_best = best


class Evaluations:
    """The evaluation episodes of one session.

    Args:
        stats: what is kept over training episodes; the same is kept over these.
    """

    def __init__(self, stats: StatsTracker) -> None:
        self._stats = stats
        self._records: deque[tuple[int | None, EpisodeRecord]] = deque(maxlen=_KEPT)
        self._turn = anyio.Lock()

    async def add(self, engine: Engine, record: EpisodeRecord, snapshot: PolicySnapshot | None) -> None:
        """Log one episode, which was checked: of the snapshot's policy, or else of the present one."""
        steps = None if snapshot is None else snapshot.total_steps
        await engine.queue.put(EvalEpisodeEnded(record, steps))
        self._records.append((steps, record))

    async def save_best(
        self,
        engine: Engine,
        mean: float,
        snapshot: PolicySnapshot | None,
        pin: Callable[[], Awaitable[PolicySnapshot]],
    ) -> bool:
        """Keep the policy if it is among the best that are kept; say whether it is the very best.

        Args:
            engine: of the session.
            mean: its mean reward.
            snapshot: the policy; None: what ``pin`` gives.
            pin: pins the present policy.
        """
        async with self._turn:
            is_best = engine.best is None or mean > engine.best[0]
            if not is_best and (engine.run is None or engine.config.keep_best == 1):
                return False
            snapshot = await pin() if snapshot is None else snapshot
            best = (mean, snapshot.total_steps)

            def handed_in() -> None:
                if is_best:
                    engine.best = best

            if engine.run is None:
                handed_in()
            else:
                staged = saving.best_state(snapshot.state, *best)
                work = partial(_publish, engine, engine.run, staged, best if is_best else None)
                # Once it is handed in it will be published, whatever becomes of this task.
                await engine.write(work, handed_in, name="writing best.pt")
            return is_best

    def report(self, n_episodes: int, total_steps: int) -> EvalReport:
        """The stats over the last episodes; ``total_steps`` is where the session stands.

        Raises:
            ConfigError: ``n_episodes`` is below 1.
        """
        if type(n_episodes) is not int or n_episodes < 1:
            raise ConfigError(f"n_episodes={n_episodes!r}: give an int of at least 1")
        stats = self._stats.fresh()
        last = list(self._records)[-n_episodes:]
        for _, record in last:
            stats.update(record)
        pinned_at = last[-1][0] if last else None
        steps = total_steps if pinned_at is None else pinned_at
        return EvalReport(total_steps=steps, n_episodes=len(last), stats=stats.summary())
