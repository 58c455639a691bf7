"""A simulation of a training on many nodes: environments, workers, messages, credit, the learner, and deaths.

Event by event, with the constants of ``scaling_model`` and none of its formulas. Environments wait by a
Pareto law with the same mean, the steps of a worker take turns, messages fill as they do in
``stoker.actors.worker``, and the learner takes them in the order in which they arrive.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass

from benchmarks.scaling_model import Costs, Layout

_SHAPE, _LONGEST = 1.5, 100.0
"""Where the Pareto distribution is cut off, in multiples of its shortest value."""
RESTART_S = 5.0
"""How long a worker that has died is away."""
_WARM_UP = 0.3
"""The share of the time that is not counted."""

_WAITED, _TURNED, _ARRIVED, _LEARNED, _CREDITED, _DIED, _STARTED = range(7)


@dataclass(frozen=True)
class Simulated:
    """What happened.

    Attributes:
        steps_per_s: which the learner accepted.
        learner: share of its time for which it was busy.
        stalled: share of the environments' time that they waited for credit.
        lost_steps: played and lost with their workers.
        most_queued: the most messages that waited for the learner.
    """

    steps_per_s: float
    learner: float
    stalled: float
    lost_steps: int
    most_queued: int


def simulate(
    costs: Costs, layout: Layout, *, seconds: float, deaths_per_s: float = 0.0, seed: int = 0
) -> Simulated:
    """Simulate that many seconds; the first third of them is not counted."""
    return _Simulation(costs, layout, deaths_per_s, seed).run(seconds)


class _Worker:
    __slots__ = ("due", "envs", "incarnation", "is_busy", "node", "parcel_at", "turns")

    def __init__(self, envs: range, node: int) -> None:
        self.envs, self.node = envs, node
        self.turns: deque[int] = deque()
        self.is_busy = False
        self.incarnation = 0
        self.parcel_at = -1.0
        self.due = 0.0  # what its next turn takes more: weights to load


class _Simulation:
    def __init__(self, costs: Costs, layout: Layout, deaths_per_s: float, seed: int) -> None:
        self._costs, self._layout, self._deaths_per_s = costs, layout, deaths_per_s
        self._random = random.Random(seed)
        self._shortest_s = costs.wait_s / (1 + (1 - _LONGEST ** (1 - _SHAPE)) / (_SHAPE - 1))
        n, workers = layout.n_envs, layout.n_workers
        self._workers = [
            _Worker(range(i * n // workers, (i + 1) * n // workers), i // layout.workers_per_node)
            for i in range(workers)
        ]
        self._worker_of = [worker for worker in self._workers for _ in worker.envs]
        self._credit = [layout.window] * n
        self._unsent = [0] * n
        self._sent_at = [0.0] * n
        self._version = [0] * n
        self._blocked_at: dict[int, float] = {}
        self._events: list[tuple[float, int, int, int, int, int]] = []
        self._number = 0
        self._queue: deque[tuple[int, int, int]] = deque()
        self._serving: tuple[int, int, int] | None = None
        self._published, self._sent_nodes = 0, set[int]()
        self._updates = self._debt = 0.0
        self._link_free_at = self._out_free_at = 0.0
        self._accepted, self._lost, self._most_queued = 0, 0, 0
        self._busy_s = self._stalled_s = 0.0
        self._counts_from = 0.0

    def run(self, seconds: float) -> Simulated:
        self._counts_from = _WARM_UP * seconds
        for worker in self._workers:
            for env in worker.envs:
                self._at(self._random.random() * self._costs.wait_s, _WAITED, env, 0)
        if self._deaths_per_s:
            self._at(self._random.expovariate(self._deaths_per_s), _DIED)
        while self._events and (event := heapq.heappop(self._events))[0] <= seconds:
            now, _, kind, a, b, c = event
            self._do(now, kind, a, b, c)
        span_s = seconds - self._counts_from
        for since in self._blocked_at.values():
            self._stalled_s += seconds - max(since, self._counts_from)
        return Simulated(
            self._accepted / span_s,
            min(1.0, self._busy_s / span_s),
            self._stalled_s / span_s / self._layout.n_envs,
            self._lost,
            self._most_queued,
        )

    def _at(self, when: float, kind: int, a: int = 0, b: int = 0, c: int = 0) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, kind, a, b, c))

    def _do(self, now: float, kind: int, a: int, b: int, c: int) -> None:
        if kind == _WAITED:
            worker = self._worker_of[a]
            if b == worker.incarnation:
                worker.turns.append(a)
                self._turn(worker, now)
        elif kind == _TURNED:
            worker = self._worker_of[a]
            if b == worker.incarnation:
                worker.is_busy = False
                self._played(a, worker, now)
                self._turn(worker, now)
        elif kind == _ARRIVED:
            self._queue.append((a, b, c))
            self._most_queued = max(self._most_queued, len(self._queue))
            self._learn(now)
        elif kind == _LEARNED:
            self._learned(now)
        elif kind == _CREDITED:
            if c == self._worker_of[a].incarnation:
                self._credit[a] += b
                if (since := self._blocked_at.pop(a, None)) is not None:
                    self._stalled_s += max(0.0, now - max(since, self._counts_from))
                    self._wait(a, now)
        elif kind == _DIED:
            self._die(now)
        elif b == self._workers[a].incarnation:
            for env in self._workers[a].envs:
                self._credit[env], self._unsent[env], self._sent_at[env] = self._layout.window, 0, now
                self._wait(env, now)

    # Workers ------------------------------------------------------------------------------------------

    def _wait(self, env: int, now: float) -> None:
        wait_s = min(_LONGEST * self._shortest_s, self._shortest_s * self._random.paretovariate(_SHAPE))
        self._at(now + wait_s, _WAITED, env, self._worker_of[env].incarnation)

    def _turn(self, worker: _Worker, now: float) -> None:
        if worker.turns and not worker.is_busy:
            worker.is_busy = True
            self._at(
                now + self._costs.turn_s + worker.due, _TURNED, worker.turns.popleft(), worker.incarnation
            )
            worker.due = 0.0

    def _played(self, env: int, worker: _Worker, now: float) -> None:
        self._credit[env] -= 1
        self._unsent[env] += 1
        is_late = now - self._sent_at[env] >= self._layout.batch_s
        if is_late or self._unsent[env] >= self._layout.batch_steps or not self._credit[env]:
            self._send(env, worker, now)
        if self._credit[env]:
            self._wait(env, now)
        else:
            self._blocked_at[env] = now

    def _send(self, env: int, worker: _Worker, now: float) -> None:
        n, self._unsent[env], self._sent_at[env] = self._unsent[env], 0, now
        self._link_free_at = (
            max(now, self._link_free_at) + n * self._costs.step_bytes / self._layout.network_bytes_per_s
        )
        self._at(self._link_free_at + self._layout.latency_s, _ARRIVED, env, n, worker.incarnation)

    def _die(self, now: float) -> None:
        self._at(now + self._random.expovariate(self._deaths_per_s), _DIED)
        index = self._random.randrange(len(self._workers))
        worker = self._workers[index]
        worker.incarnation += 1
        worker.turns.clear()
        worker.is_busy = False
        for env in worker.envs:
            self._lost += self._layout.window - self._credit[env]
            self._blocked_at.pop(env, None)
        self._at(now + RESTART_S, _STARTED, index, worker.incarnation)

    # The learner --------------------------------------------------------------------------------------

    def _learn(self, now: float) -> None:
        if self._serving is not None or not self._queue:
            return
        costs, layout = self._costs, self._layout
        self._serving = env, n, incarnation = self._queue.popleft()
        worker = self._worker_of[env]
        service_s = costs.message_s
        if costs.parcel_s and now - worker.parcel_at >= layout.parcel_s:
            worker.parcel_at = now
            service_s += costs.parcel_s
        if incarnation == worker.incarnation:
            self._debt += n * layout.updates_per_step
            done = int(self._debt)
            self._debt -= done
            self._updates += done
            service_s += n * costs.step_s + done * costs.update_s + self._sync(env, worker, now)
        if now >= self._counts_from:
            self._busy_s += service_s
        self._at(now + service_s, _LEARNED)

    def _sync(self, env: int, worker: _Worker, now: float) -> float:
        """Send the environment new weights if its own are due; returns what that takes the learner."""
        costs, layout = self._costs, self._layout
        if not layout.sync_interval or self._updates - self._version[env] < layout.sync_interval:
            return 0.0
        if now < self._out_free_at:
            return 0.0  # the weights before are still on their way out
        taken_s = 0.0
        if self._updates - self._published >= layout.sync_interval:
            self._published = int(self._updates)
            self._sent_nodes.clear()
            taken_s += costs.publish_s
        node = worker.node if layout.per_node else env
        if node not in self._sent_nodes:
            self._sent_nodes.add(node)
            taken_s += costs.send_s
            self._out_free_at = now + costs.weights_bytes / layout.network_bytes_per_s
        self._version[env] = self._published
        worker.due += costs.load_s
        return taken_s

    def _learned(self, now: float) -> None:
        assert self._serving is not None
        env, n, incarnation = self._serving
        self._serving = None
        if incarnation == self._worker_of[env].incarnation:
            if now >= self._counts_from:
                self._accepted += n
            self._at(now + self._layout.latency_s, _CREDITED, env, n, incarnation)
        self._learn(now)
