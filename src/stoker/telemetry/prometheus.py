"""Metrics in the text formats of Prometheus and OpenMetrics, read from a training when they are asked for.

    Prometheus --> MetricsServer or the service's /metrics --> Exposition --> session.telemetry()

A collector of its own, in a registry of its own: nothing is counted twice, and nothing costs a step. No label
names an actor, so that there are less than 200 series however many actors play; the names given to
``session.store`` come in addition, a hundred of them at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

from stoker.importing import required
from stoker.plain import encodable
from stoker.telemetry.reading import Buckets, NodeReading, ServiceCounts, TrainingReading

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Read: TypeAlias = Callable[[], TrainingReading | None]

_MOST_REASONS, _MOST_ROUTES, _MOST_TRAIN, _MOST_USER, _MOST_NODES = 24, 40, 20, 100, 8

_COUNTERS = {
    "total_steps": ("stoker_env_steps", "Environment steps, over all attempts of the run."),
    "total_episodes": ("stoker_episodes", "Training episodes that have ended, over all attempts."),
    "total_opt_steps": ("stoker_opt_steps", "Optimization steps, over all attempts."),
    "n_checkpoints": ("stoker_checkpoints", "Checkpoints written by this process."),
}
_OF_ENVIRONMENTS = ("total_steps", "total_episodes")
"""The counters that a training on a data set does not have."""
_GAUGES = {
    "is_running": ("stoker_session_running", "Whether the session takes events."),
    "started_at": ("stoker_start_timestamp_seconds", "When the session was opened."),
    "queue_depth": ("stoker_event_queue_depth", "Events that wait for the learner."),
    "queue_capacity": ("stoker_event_queue_capacity", "How many events may wait for the learner."),
    "writer_queue_depth": ("stoker_writer_queue_depth", "Logs, flushes and jobs that wait for the writer."),
    "policy_version": ("stoker_policy_version", "Optimization steps of the policy that acts."),
    "policy_age_s": ("stoker_policy_age_seconds", "How long ago the policy that acts was published."),
    "durable_lag_s": ("stoker_durable_lag_seconds", "How long the oldest data has waited to be on disk."),
    "last_step_at": ("stoker_last_step_timestamp_seconds", "When a step was consumed last."),
    "last_checkpoint_at": (
        "stoker_last_checkpoint_timestamp_seconds",
        "When this process wrote a checkpoint last.",
    ),
    "episode_reward": ("stoker_episode_reward", "Mean reward of the last 100 training episodes."),
    "episode_length": ("stoker_episode_length", "Mean length of the last 100 training episodes, in steps."),
    "eval_reward": ("stoker_eval_reward", "Mean reward of the policy that was evaluated last."),
    "best_value": ("stoker_best_value", "The highest evaluation, over all attempts."),
}
_BY_ACTOR = {
    "reward": (
        "stoker_actor_episode_reward",
        "Mean reward of an actor's last 100 episodes, over the actors.",
    ),
    "length": (
        "stoker_actor_episode_length",
        "Mean length of an actor's last 100 episodes, in steps, over the actors.",
    ),
    "steps_per_s": (
        "stoker_actor_steps_per_second",
        "Steps per second in an actor's last 100 episodes, over the actors.",
    ),
}
_BY_NODE = {
    "steps": ("stoker_worker_steps", "Steps that workers sent to this process."),
    "lost_steps": ("stoker_worker_lost_steps", "Steps that workers played and never sent: they were lost."),
    "late_batches": ("stoker_worker_late_batches", "Batches of workers that had been given up; dropped."),
    "restarts": ("stoker_worker_restarts", "How often workers were replaced."),
}
_HISTOGRAMS = {
    "act_s": ("stoker_act_seconds", "From the first question to the answer of each forward pass."),
    "act_batch_size": ("stoker_act_batch_size", "Actions per forward pass."),
    "observe_wait_s": (
        "stoker_observe_wait_seconds",
        "Waits for room in the queue; calls that find room are not in it.",
    ),
    "commit_s": ("stoker_commit_seconds", "How long the disk takes to make rows and journal durable."),
}


class Exposition:
    """The metrics of a training, of a service, or of both; from any thread.

    Args:
        read: reads the training, such as ``session.telemetry``; None where there is none, and it may return
            None while there is none yet. A mapping reads several trainings: each series then has the label
            ``policy``, a key of the mapping.
        service: what the service counts.

    Raises:
        MissingDependency: prometheus-client is not installed.
    """

    def __init__(
        self, read: Read | Mapping[str, Read] | None = None, service: ServiceCounts | None = None
    ) -> None:
        client = required("prometheus_client", "prometheus", "prometheus-client")
        self._choose_encoder = client.exposition.choose_encoder
        self._registry = client.CollectorRegistry(auto_describe=False)
        if read is None or callable(read):
            self._registry.register(_Collector(read, service))
        else:
            self._registry.register(_GroupCollector(read))
        self._reading = Lock()

    def __call__(self, accept: str = "") -> tuple[bytes, str]:
        """Read everything now.

        Args:
            accept: the ``Accept`` header of the request.

        Returns:
            The text, and its ``Content-Type``.
        """
        encode, content_type = self._choose_encoder(accept)
        with self._reading:
            return encode(self._registry), content_type


class _GroupCollector:
    """The series of several trainings, with the label ``policy``."""

    def __init__(self, reads: Mapping[str, Read]) -> None:
        self._collectors = {name: _Collector(read, None) for name, read in reads.items()}

    def describe(self) -> Iterable[Metric]:
        """Nothing, as ``_Collector``."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families of this moment."""
        families: dict[str, Metric] = {}
        for policy, collector in self._collectors.items():
            for family in collector.collect():
                samples = [
                    sample._replace(labels={"policy": policy, **sample.labels}) for sample in family.samples
                ]
                kept = families.setdefault(family.name, family)
                kept.samples = samples if kept is family else [*kept.samples, *samples]
        yield from families.values()


class _Collector:
    """What prometheus_client asks at each scrape."""

    def __init__(self, read: Read | None, service: ServiceCounts | None) -> None:
        self._read = read
        self._service = service
        self._busy: dict[tuple[str, str], float] = {}

    def describe(self) -> Iterable[Metric]:
        """Nothing: else the registry would read the training to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families of this moment."""
        reading = None if self._read is None else self._read()
        refused: dict[str, int] = {}
        if reading is not None:
            yield from _training(reading)
            yield from _workers(reading.nodes)
            yield self._busy_seconds(reading)
            refused |= _first(reading.refused, _MOST_REASONS)
        if (service := self._service) is not None:
            yield from _service(service)
            for reason, count in _first(service.refused, _MOST_REASONS).items():
                refused[reason] = refused.get(reason, 0) + count
        yield _labeled(
            "counter",
            "stoker_refused",
            "What was not accepted: by the invalid field, the problem's type, or after-end.",
            ("reason",),
            {(reason,): count for reason, count in refused.items()},
        )

    def _busy_seconds(self, reading: TrainingReading) -> Metric:
        """What the state clocks show, without the moments that a change of state in mid-reading misplaces.

        A counter that falls, if only by a microsecond, is one that began anew to Prometheus.
        """
        busy = self._busy
        for part, states in reading.busy_s.items():
            for state, seconds in states.items():
                busy[part, state] = max(seconds, busy.get((part, state), 0.0))
        about = "Time that a part has spent in a state; the states of a part add up to all of its time."
        return _labeled("counter", "stoker_busy_seconds", about, ("part", "state"), busy)


def _training(reading: TrainingReading) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    labels = {name: encodable(value) for name, value in reading.labels.items()}
    yield _labeled(
        "gauge", "stoker_run_info", "The training; always 1.", tuple(labels), {tuple(labels.values()): 1}
    )
    for field, (name, about) in _COUNTERS.items():
        if reading.offline and field in _OF_ENVIRONMENTS:
            continue
        yield CounterMetricFamily(name, about, value=getattr(reading, field))
    for field, (name, about) in _GAUGES.items():
        if (value := getattr(reading, field)) is not None:
            yield GaugeMetricFamily(name, about, value=value)
    for field, (name, about) in _HISTOGRAMS.items():
        found: Buckets = getattr(reading, field)
        buckets = [(_bound(bound), count) for bound, count in found.cumulative()]
        yield HistogramMetricFamily(name, about, buckets=buckets, sum_value=found.total)
    for field, (name, about) in _BY_ACTOR.items():
        values = {(statistic,): value for statistic, value in reading.by_actor.get(field, {}).items()}
        yield _labeled("gauge", name, about, ("statistic",), values)
    for name, label, values, about in (
        ("stoker_actors", "state", reading.actors, "Actors, each of them in one state."),
        ("stoker_staleness_opt_steps", "statistic", reading.staleness, "Policy lag of learned transitions."),
        ("stoker_train", "name", _numbers(reading.train, _MOST_TRAIN), "Metrics of the last update."),
        ("stoker_user", "name", _numbers(reading.user, _MOST_USER), "Last values of session.store."),
    ):
        yield _labeled(
            "gauge", name, about, (label,), {(encodable(key),): value for key, value in values.items()}
        )


def _workers(nodes: tuple[NodeReading, ...]) -> Iterator[Metric]:
    """The workers of a cluster by node; those beyond the first ones are pooled, so that no series falls."""
    named = [encodable(node.node) for node in nodes]
    shown = [name if name in ("", *named[:_MOST_NODES]) else "other" for name in named]
    for field, (name, about) in _BY_NODE.items():
        counts: dict[tuple[str, ...], float] = {}
        for key, node in zip(shown, nodes, strict=True):
            if node.node:
                counts[key,] = counts.get((key,), 0) + getattr(node, field)
        yield _labeled("counter", name, about, ("node",), counts)
    states: dict[tuple[str, ...], float] = {}
    for key, node in zip(shown, nodes, strict=True):
        for state in ("playing", "starting", "waiting", "ended"):
            states[key, state] = states.get((key, state), 0) + getattr(node, state)
    about = "Workers on a cluster, by node and state; those that wait have no node."
    yield _labeled("gauge", "stoker_workers", about, ("node", "state"), states)


def _service(counts: ServiceCounts) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    requests = {(route, str(code)): n for (route, code), n in counts.requests.copy().items()}
    known = dict(islice(requests.items(), _MOST_ROUTES))
    if others := sum(requests.values()) - sum(known.values()):
        known["other", ""] = others
    about = "Requests, by route and by HTTP status or WebSocket close code."
    yield _labeled("counter", "stoker_service_requests", about, ("route", "code"), known)
    about = "Records that were sent again, and answered as before."
    yield CounterMetricFamily("stoker_service_duplicates", about, value=counts.duplicates)
    about = "Policies that were to replace the acting one."
    swaps = {(result,): n for result, n in counts.swaps.copy().items()}
    yield _labeled("counter", "stoker_swaps", about, ("result",), swaps)
    actors = {(state,): n for state, n in counts.actors().items()}
    yield _labeled("gauge", "stoker_service_actors", "Actors of the service, by state.", ("state",), actors)


def _labeled(
    kind: str, name: str, about: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]
) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    family: Any = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(
        name, about, labels=labels
    )
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _first(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """The first counts; those that came later are pooled, so that no series ever falls."""
    found = list(dict(counts).items())
    kept = {encodable(name): count for name, count in found[:most]}
    if others := sum(count for _, count in found[most:]):
        kept["other"] = kept.get("other", 0) + others
    return kept


def _numbers(values: Mapping[str, Any], most: int) -> dict[str, float]:
    """The first numbers of a mapping."""
    found = ((key, value) for key, value in dict(values).items() if isinstance(value, (int, float)))
    return dict(islice(found, most))


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else f"{bound:.10g}"
