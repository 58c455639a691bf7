"""The evaluations of a session: the policies that are due, the episodes they played, and the best of them.

The best value is that of the run, over all attempts: what was saved as best is beaten, not overwritten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import anyio

from stoker.errors import ConfigError, SessionClosed, SessionFailed
from stoker.replies import Reply
from stoker.runs import TrainingRun
from stoker.session.acting import PolicySnapshot
from stoker.session.events import EvalEpisodeEnded
from stoker.session.learner import Learner
from stoker.session.parts import Parts
from stoker.stats import EpisodeRecord, EvalReport

__all__ = ["Evaluations", "report_of"]

_KEPT = 1000


class Evaluations:
    """What evaluators get and give back."""

    def __init__(self, parts: Parts) -> None:
        self.best = parts.learner.best
        """The highest mean reward that was evaluated, and the steps of the policy that reached it."""
        self.saved_best = self.best
        """The same, as far as its file is on disk: the metadata may name it."""
        self._parts = parts
        self.records: deque[tuple[int | None, EpisodeRecord]] = deque(maxlen=_KEPT)
        """The last episodes, each with the steps of its policy; None: of the present one."""
        self._due: PolicySnapshot | None = None
        self._changed = anyio.Event()
        self._saving = anyio.Lock()

    def put_due(self, snapshot: PolicySnapshot) -> None:
        """Give this policy to the next caller of ``next_due``; it replaces one that was not fetched."""
        self._due = snapshot
        self.wake()

    def wake(self) -> None:
        """Let the callers of ``next_due`` look again: a snapshot is due, or the session is done."""
        self._changed.set()
        self._changed = anyio.Event()

    async def next_due(self) -> PolicySnapshot | None:
        """Wait for the next snapshot that is due; the newest, if several were; None: no more will come."""
        parts = self._parts
        while self._due is None:
            if parts.failure is not None:
                raise SessionFailed(*parts.failure)
            if parts.drained.is_set():
                raise SessionClosed("next_evaluation", entered=True)
            if parts.intake.is_full and not parts.queue.is_closed:
                await parts.request("barrier")  # the events in the queue may make one due
                if self._due is None and parts.intake.is_full:
                    return None
            else:
                await self._changed.wait()
        snapshot, self._due = self._due, None
        return snapshot

    async def add(self, record: EpisodeRecord, snapshot: PolicySnapshot | None) -> None:
        """Log one episode, which was checked: of the snapshot's policy, or else of the present one."""
        steps = None if snapshot is None else snapshot.total_steps
        await self._parts.queue.put(EvalEpisodeEnded(record, steps))
        self.records.append((steps, record))

    async def save_best(self, mean: float, snapshot: PolicySnapshot | None) -> bool:
        """Keep the policy, or the present one, if it is among the best; say whether it is the very best."""
        run = self._parts.run
        async with self._saving:
            is_best = self.best is None or mean > self.best[0]
            if not is_best and (run is None or self._parts.config.keep_best == 1):
                return False
            pinned: PolicySnapshot = snapshot or await self._parts.request("snapshot")
            best = (mean, pinned.total_steps) if is_best else self.best
            if run is None:
                self.best = best
                return is_best
            value = {"value": mean, "total_steps": pinned.total_steps}
            state = {**pinned.state, "kind": "best", "best": value}
            reply: Reply[None] = Reply()
            with self._parts.replies.waiting(reply):
                work = partial(self._publish, run, state, best)
                await self._parts.writer.submit(work, reply, name="writing best.pt")
                self.best = best  # it will be published, even if this task is cancelled
                await reply.wait()
            return is_best

    def _publish(self, run: TrainingRun, state: Mapping[str, Any], best: tuple[float, int] | None) -> None:
        """Write a policy, and only then let the metadata name the best one. In the writer's thread."""
        run.publish_best(state, self._parts.retention)
        self.saved_best = best


def report_of(
    records: Iterable[tuple[int | None, EpisodeRecord]], learner: Learner, n_episodes: int
) -> EvalReport:
    """The stats over the last episodes; records without steps are of the learner's present policy."""
    if type(n_episodes) is not int or n_episodes < 1:
        raise ConfigError(f"n_episodes={n_episodes!r}: give an int of at least 1")
    stats = learner.stats.fresh()
    last = list(records)[-n_episodes:]
    for _, record in last:
        stats.update(record)
    pinned_at = last[-1][0] if last else None
    steps = learner.total_steps if pinned_at is None else pinned_at
    return EvalReport(total_steps=steps, n_episodes=len(last), stats=stats.summary())
