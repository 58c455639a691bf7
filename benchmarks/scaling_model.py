"""How many steps per second a training can make: a model of its limits, in closed form.

An environment waits for its simulator, then takes a turn on its worker's processor: policy, step, packing.
The worker sends what it played in messages, of which the learner accepts some ahead (credit), so that no
environment waits for the learner unless that is saturated. So the rate is the least of these limits:

    environments   n / (wait + turns), with the waiting for turns of a closed queue (exact mean value
                   analysis, Reiser and Lavenberg 1980, equations 3 to 5)
    credit         n * window / (time until credit comes back)
    learner        1 / (processor time per step: message, session, journal, share of updates and of weights)
    nodes          processors of a node / (processor time per step of all that runs there)
    disk, network  bytes per second / bytes per step

Where the learner chooses the actions (`stoker actor` without `--local-policy`), each step waits for it, and
the learner is a queue of that network, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What things take: seconds of a processor, unless named otherwise.

    Attributes:
        step_s: the learner, for each step that it accepts, besides updates.
        message_s: the learner, for each message of an environment.
        parcel_s: the learner, for what carries the messages of all environments of a worker; 0: nothing does.
        update_s: the learner, for an update.
        publish_s: the learner, for new weights, once.
        send_s: the learner, to send new weights, for each receiver.
        turn_s: the worker, for each step: its policy, the packing and the environment's own computing.
        load_s: the worker, to load new weights, for each environment.
        wait_s: how long an environment waits in a step, without a processor.
        step_bytes, weights_bytes: in messages.
        journal_bytes: of a step.
    """

    step_s: float
    message_s: float
    parcel_s: float = 0.0
    update_s: float = 0.0
    publish_s: float = 0.0
    send_s: float = 0.0
    turn_s: float
    load_s: float = 0.0
    wait_s: float = 0.0
    step_bytes: float = 0.0
    weights_bytes: float = 0.0
    journal_bytes: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What runs where.

    Attributes:
        n_envs, n_workers: environments, and the processes that share them equally.
        updates_per_step: of the learner.
        sync_interval: updates between two sets of weights for the workers; 0: they get none.
        per_node: new weights are sent to each node (Ray), not to each environment.
        is_central: the learner chooses the actions.
        learner_cores: processors of the learner's node.
        beside_learner: how many of the workers share that node.
        worker_cores, workers_per_node: processors of the other nodes, and how many workers each has.
        batch_steps, batch_s: the most steps in a message of an environment, and how long they wait for more.
        parcel_steps, parcel_s: the same for the messages of all environments of a worker together.
        window: the most steps in flight of an environment.
        away: share of their time for which workers are gone, after deaths.
        latency_s: of the network, one way.
        network_bytes_per_s, disk_bytes_per_s: of the learner's node.
    """

    n_envs: int
    n_workers: int
    updates_per_step: float = 1.0
    sync_interval: int = 0
    per_node: bool = False
    is_central: bool = False
    learner_cores: float = 2.0
    beside_learner: int = 0
    worker_cores: float = 16.0
    workers_per_node: int = 16
    batch_steps: int = 16
    batch_s: float = 0.02
    parcel_steps: int = 64
    parcel_s: float = 0.02
    window: int = 64
    away: float = 0.0
    latency_s: float = 2e-4
    network_bytes_per_s: float = 1.25e9
    disk_bytes_per_s: float = 2e8

    @property
    def n_nodes(self) -> int:
        """Nodes that have workers."""
        away = self.n_workers - self.beside_learner
        return -(-away // self.workers_per_node) + (self.beside_learner > 0)


@dataclass(frozen=True)
class Prediction:
    """What the model says.

    Attributes:
        steps_per_s: the least of the limits.
        limits: by name, in steps per second.
        busy: share of its time for which each part is busy at that rate: "learner", "worker", "learner's
            node", and of the learner's time "updates".
        messages_per_s: which the learner gets.
    """

    steps_per_s: float
    limits: Mapping[str, float]
    busy: Mapping[str, float]
    messages_per_s: float

    @property
    def first(self) -> str:
        """The limit that comes first."""
        return min(self.limits, key=lambda name: self.limits[name])


def closed_queue(n_customers: int, think_s: float, demands_s: list[float]) -> float:
    """Throughput of a closed network: customers who think, then pass queues with these demands. Exact.

    The distribution of the thinking time does not matter, that of the demands is exponential.
    """
    waiting = [0.0] * len(demands_s)
    rate = 0.0
    for n in range(1, n_customers + 1):
        times = [demand * (1 + queue) for demand, queue in zip(demands_s, waiting, strict=True)]
        rate = n / (think_s + sum(times))
        waiting = [rate * time for time in times]
    return rate


def predict(costs: Costs, layout: Layout) -> Prediction:
    """The rate of a training, by iteration: how often weights go out depends on it."""
    rate = 1.0
    for _ in range(60):
        rate = 0.5 * (rate + min(_at(costs, layout, rate)[0].values()))
    limits, learner_s, turn_s, messages = _at(costs, layout, rate)
    rate = min(limits.values())
    here = layout.beside_learner / layout.n_workers
    busy = {
        "learner": rate * learner_s,
        "updates": rate * layout.updates_per_step * costs.update_s,
        "worker": rate * turn_s / layout.n_workers,
        "learner's node": rate * (learner_s + here * turn_s) / layout.learner_cores,
    }
    return Prediction(rate, limits, busy, rate * messages)


def _at(costs: Costs, layout: Layout, rate: float) -> tuple[dict[str, float], float, float, float]:
    """Limits at about this rate, seconds of learner and of worker per step, and messages per step."""
    n, workers = layout.n_envs, layout.n_workers
    here = layout.beside_learner / workers
    # A message has what an environment makes within its delay, also if credit lets it play only in bursts.
    pace = 1 / (costs.wait_s + costs.turn_s)
    per_message = 1.0 if layout.is_central else _collected(pace, layout.batch_steps, layout.batch_s)
    others = (1 - workers / n) * rate / workers * layout.parcel_s  # what the worker's other environments add
    per_parcel = min(max(layout.parcel_steps, per_message), per_message + others)
    receivers = layout.n_nodes if layout.per_node else n
    versions = rate * layout.updates_per_step / layout.sync_interval if layout.sync_interval else 0.0
    if costs.weights_bytes:  # a slow network makes weights older, and no environment waits for them
        versions = min(versions, layout.network_bytes_per_s / costs.weights_bytes / receivers)
    loads = min(versions, rate / n / per_message)  # an environment gets weights after its messages
    sends = versions * receivers if layout.per_node else loads * n
    learner_s = (
        costs.step_s
        + costs.message_s / per_message
        + costs.parcel_s / per_parcel
        + costs.update_s * layout.updates_per_step
        + (versions * costs.publish_s + sends * costs.send_s) / rate
    )
    turn_s = costs.turn_s + costs.load_s * loads * n / rate
    limits = {"learner": 1 / learner_s}
    if layout.is_central:
        turns = [turn_s / workers] * workers
        limits["environments"] = closed_queue(n, costs.wait_s + 2 * layout.latency_s, [learner_s, *turns])
    else:
        present = workers * (1 - layout.away)
        limits["environments"] = present * closed_queue(-(-n // workers), costs.wait_s, [turn_s])
        away_s = layout.batch_s + 2 * layout.latency_s + learner_s * per_message
        limits["credit"] = n * layout.window / away_s
    limits["learner's node"] = layout.learner_cores / (learner_s + here * turn_s)
    if layout.beside_learner < workers:
        limits["workers' nodes"] = workers * layout.worker_cores / layout.workers_per_node / turn_s
    if costs.journal_bytes:
        limits["disk"] = layout.disk_bytes_per_s / costs.journal_bytes
    if costs.step_bytes:
        limits["network"] = layout.network_bytes_per_s / costs.step_bytes
    return limits, learner_s, turn_s, 1 / per_message


def _collected(pace: float, most: int, delay_s: float) -> float:
    """Steps in a message: a source of that rate sends at its first step after the delay."""
    return min(float(most), max(1.0, pace * delay_s + 0.5))
