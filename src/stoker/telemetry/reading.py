"""What metrics systems show of a training and of a service: plain numbers at one moment.

A session fills a ``TrainingReading`` in (``TrainingSession.telemetry``), a service counts in a
``ServiceCounts``; ``stoker.telemetry.prometheus`` turns both into text. Nothing here grows with the number of
actors.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Self

import msgspec


class Buckets(msgspec.Struct):
    """A histogram with fixed bounds. One thread at a time adds; any thread may read.

    Attributes:
        bounds: the upper bounds, ascending; a value belongs to the first bound that is not below it, or to
            the last bucket, which has none.
        counts: how many values each bucket has, one more than there are bounds; empty: none has any.
        total: the sum of all values.
    """

    bounds: tuple[float, ...]
    counts: list[int] = []
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    @classmethod
    def of_powers(cls, counts: Sequence[int], exponents: Sequence[int], total: float) -> Self:
        """With bounds that are powers of two.

        Args:
            counts: at ``k``: how many values are at most ``2**k`` and above ``2**(k - 1)``.
            exponents: of the bounds, ascending.
            total: the sum of all values.
        """
        edges = [0, *(exponent + 1 for exponent in exponents), len(counts)]
        bounds = tuple(2.0**exponent for exponent in exponents)
        return cls(bounds, [sum(counts[start:end]) for start, end in pairwise(edges)], total)

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def scaled(self, unit: float) -> Buckets:
        """A copy with all values in another unit, for example ``1e-9`` from nanoseconds to seconds."""
        bounds = tuple(bound * unit for bound in self.bounds)
        return Buckets(bounds, self.counts.copy(), self.total * unit)

    def cumulative(self) -> list[tuple[float, int]]:
        """How many values are at most each bound; the last bound is infinity."""
        return list(zip((*self.bounds, float("inf")), accumulate(self.counts), strict=True))


class NodeReading(msgspec.Struct, frozen=True, kw_only=True):
    """The workers of one node of a cluster. What is counted is of this process, and never falls.

    Attributes:
        node: its name; empty: these workers have no place yet.
        playing, starting, waiting, ended: how many workers are in each state.
        steps: steps that came from there.
        lost_steps: steps that were played there and never came.
        late_batches: batches of workers that had been given up; they were dropped.
        restarts: how often a worker there was replaced.
        why: what they wait for, or why the last one ended.
    """

    node: str
    playing: int = 0
    starting: int = 0
    waiting: int = 0
    ended: int = 0
    steps: int = 0
    lost_steps: int = 0
    late_batches: int = 0
    restarts: int = 0
    why: str = ""


class TrainingReading(msgspec.Struct, frozen=True, kw_only=True):
    """What a training shows at one moment. Times are in seconds since 1970. None: not known, or not yet.

    Counters are over all attempts of the run where they begin with ``total_``, and over this process
    otherwise. With a journal the first three count what is on disk, so that they never fall: not even when
    the process is killed and its run resumes, which learns the journal again.

    Attributes:
        labels: what names the training: its run, attempt and agent.
        is_running: whether the session takes events.
        started_at: when the session was opened.
        offline: whether it trains on a data set: then there are neither environment steps nor episodes, and
            ``total_steps`` are optimization steps.
        total_steps, total_episodes, total_opt_steps: environment steps, training episodes, optimization
            steps.
        n_checkpoints: checkpoints written.
        refused: inputs that were not accepted, by the reason.
        queue_depth, queue_capacity: events before the learner, and how many may wait there.
        writer_queue_depth: what waits for the writer while it is busy.
        policy_version: optimization steps of the acting policy.
        policy_age_s: how long ago its weights were published.
        staleness: ``mean`` and ``max`` of the learned transitions, in optimization steps.
        durable_lag_s: for how long the oldest data that is not on disk waits for that; None without a run.
        last_step_at: when steps were consumed last.
        last_checkpoint_at: when a checkpoint was written last.
        episode_reward, episode_length: means over the last 100 training episodes.
        by_actor: ``reward``, ``length`` and ``steps_per_s`` of each actor's last 100 episodes, as ``min``,
            ``median`` and ``max`` over the actors: the 100 at most that ended an episode last.
        eval_reward: mean over the episodes of the policy that was evaluated last.
        best_value: the highest evaluation, over all attempts.
        busy_s: seconds by part and state of the state clocks.
        actors: how many actors are in each state.
        nodes: the workers of a cluster, by node; empty: there are none.
        act_s: from the first caller's question to the answer, one value for each forward pass.
        act_batch_size: actions per forward pass.
        observe_wait_s: how long callers waited for room in the queue; calls that found room are not counted.
        commit_s: how long the disk took to make rows and journal durable, per commit.
        train: the metrics of the last optimization step.
        user: the last values that were given to ``store``.
    """

    labels: Mapping[str, str]
    is_running: bool
    started_at: float
    offline: bool
    total_steps: int
    total_episodes: int
    total_opt_steps: int
    n_checkpoints: int
    refused: Mapping[str, int]
    queue_depth: int
    queue_capacity: int
    writer_queue_depth: int
    policy_version: int
    policy_age_s: float
    staleness: Mapping[str, float]
    durable_lag_s: float | None
    last_step_at: float | None
    last_checkpoint_at: float | None
    episode_reward: float | None
    episode_length: float | None
    by_actor: Mapping[str, Mapping[str, float]]
    eval_reward: float | None
    best_value: float | None
    busy_s: Mapping[str, Mapping[str, float]]
    actors: Mapping[str, int]
    nodes: tuple[NodeReading, ...] = ()
    act_s: Buckets
    act_batch_size: Buckets
    observe_wait_s: Buckets
    commit_s: Buckets
    train: Mapping[str, float]
    user: Mapping[str, float]


class ServiceCounts:
    """What a service counts, on its event loop; any thread may read. Nothing in it names an actor.

    Attributes:
        requests: by route, as a template such as ``/v1/actors/{actor}``, and by HTTP status or close code.
        duplicates: records that were sent again, and answered as before.
        refused: messages or records that were not taken, by the type of their problem.
        swaps: policies that were to replace the acting one, by ``taken`` or ``refused``.
        actors: called for how many actors are in each state.
    """

    def __init__(self, actors: Callable[[], Mapping[str, int]] = dict) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.duplicates = 0
        self.refused: Counter[str] = Counter()
        self.swaps: Counter[str] = Counter()
        self.actors = actors
