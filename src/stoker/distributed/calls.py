"""What a training asks of Ray: processes, their answers, and the state of nodes.

No call waits. Each answer is handed to a function on the thread that takes the events, in one queue with all
others.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from stoker.actors.messages import Weights, encode_message
from stoker.distributed.cluster import Cluster
from stoker.distributed.head import head_answers
from stoker.distributed.host import Host
from stoker.distributed.nodes import node_answers
from stoker.distributed.parcels import Delivery, Hello
from stoker.distributed.played import read_total
from stoker.importing import required

_logger = logging.getLogger("stoker.distributed")
_ray = required("ray", "ray")
_strategies = required("ray.util.scheduling_strategies", "ray", "ray")

T = TypeVar("T")
Answer = Future[Any]
Events = queue.SimpleQueue[Callable[[], None]]

_FINISH_S = 2.0
"""How long processes may take to report their counts at the end."""

_INLINE_BYTES = 64 * 1024
"""Weights of at most this size are sent in the call; larger ones once to each node."""

_encoder = msgspec.msgpack.Encoder()


class RayCalls:
    """Calls of Ray by one training, on the thread that takes its events.

    Args:
        cluster: where its processes run.
        name: tells them from all others.
        worker_cpus: CPUs of each.
        events: where the answers go, as functions to call.
    """

    def __init__(self, cluster: Cluster, name: str, worker_cpus: float, events: Events) -> None:
        self._cluster = cluster
        self._name = name
        self._worker_cpus = worker_cpus
        self._events = events
        self._node_id = str(_ray.get_runtime_context().get_node_id())
        # One thread each: polls wait, commands must not, and both must stay in order.
        self._host = _ray.remote(concurrency_groups={"poll": 1, "commands": 1})(Host)
        self._carried_weights: WeakKeyDictionary[Weights, Any] = WeakKeyDictionary()

    @property
    def is_connected(self) -> bool:
        """Whether this process is connected to a cluster; if not, a call would connect it to any."""
        return bool(_ray.is_initialized())

    # Processes ----------------------------------------------------------------------------------------

    def start(self, worker: int, number: int) -> Any:
        """Ask for a process, the ``number``-th of a worker; Ray's handle of it."""
        return self._host.options(
            num_cpus=self._worker_cpus, scheduling_strategy="SPREAD", max_restarts=0, max_task_retries=0
        ).remote(f"{self._name}-{worker}-{number}", sys.path)

    def hello(self, actor: Any, then: Callable[[Answer], None]) -> None:
        """Its ``Hello``, as bytes."""
        self._call(actor.hello.remote(), then)

    def poll(self, actor: Any, wait_s: float, then: Callable[[Answer], None]) -> None:
        """Its next batch, as bytes."""
        self._call(actor.poll.options(concurrency_group="poll").remote(wait_s), then)

    def deliver(
        self, actor: Any, delivery: Delivery, weights: Weights | None, then: Callable[[Answer], None]
    ) -> None:
        """Send it commands, and weights if it does not have them yet."""
        arguments = [_encoder.encode(delivery)] + ([] if weights is None else [self._carried(weights)])
        self._call(actor.deliver.options(concurrency_group="commands").remote(*arguments), then)

    def _carried(self, weights: Weights) -> Any:
        """Encoded weights, made once for each version: the bytes if they are few, or else Ray's reference."""
        carried = self._carried_weights.get(weights)
        if carried is None:
            carried = np.frombuffer(encode_message(weights), np.uint8)
            if carried.nbytes > _INLINE_BYTES:
                carried = _ray.put(carried)
            self._carried_weights[weights] = carried
        return carried

    def kill(self, actor: Any) -> None:
        """End a process, if it has not ended."""
        _ray.kill(actor)

    def finish(self, actors: Sequence[Any]) -> list[int | None]:
        """End processes; the steps that each has played, None: unknown. Blocks for 2 s at most."""
        if not self.is_connected:
            return [None] * len(actors)
        answers = [actor.finish.remote() for actor in actors]
        if answers:
            _ray.wait(answers, num_returns=len(answers), timeout=_FINISH_S)
        totals: list[int | None] = []
        for actor, answer in zip(actors, answers, strict=True):
            try:
                totals.append(_ray.get(answer, timeout=0))
            except _ray.exceptions.RayError:  # it is late, has ended, or has never started
                totals.append(None)
            _ray.kill(actor)
        return totals

    # Nodes --------------------------------------------------------------------------------------------

    def count_played(self, hello: Hello, helper: Any | None, then: Callable[[int | None], None]) -> None:
        """The steps that a process has played which has ended; None: its node does not answer.

        Args:
            hello: that of the process.
            helper: another process of its node, which answers at once; a task may need a new one first.
            then: gets the steps.
        """
        if hello.node_id == self._node_id:
            then(read_total(hello.played_path))
        elif helper is None:
            self._count_by_task(hello, then)
        else:
            count = helper.count.options(concurrency_group="commands").remote(hello.played_path)
            self._call(count, partial(self._on_count, partial(self._count_by_task, hello, then), then))

    def _count_by_task(self, hello: Hello, then: Callable[[int | None], None]) -> None:
        task: Any = _ray.remote(read_total).options(
            num_cpus=0,
            scheduling_strategy=_strategies.NodeAffinitySchedulingStrategy(hello.node_id, soft=False),
        )
        count = task.remote(hello.played_path)
        self._call(count, partial(self._on_count, partial(then, None), then))

    def _on_count(
        self, otherwise: Callable[[], None], then: Callable[[int | None], None], answer: Answer
    ) -> None:
        if (error := answer.exception()) is not None:
            _logger.debug("the count of a process could not be read: %r", error)
            otherwise()
        else:
            then(answer.result())

    def ask_head(self, timeout_s: float, then: Callable[[bool], None]) -> None:
        """Whether the cluster's head answers."""
        self._aside(partial(head_answers, self._cluster.address, timeout_s), then)

    def ask_node(self, node_id: str, timeout_s: float, then: Callable[[bool], None]) -> None:
        """Whether a node answers."""
        self._aside(partial(node_answers, node_id, timeout_s), then)

    def ask_shortage(self, n_workers: int, then: Callable[[str | None], None]) -> None:
        """What that many workers wait for; None: nothing."""
        self._aside(partial(self._shortage, n_workers), then)

    def _shortage(self, n_workers: int) -> str | None:
        try:
            return self._cluster.shortage(self._worker_cpus, n_workers)
        except Exception as error:  # noqa: BLE001 - Ray raises any; those that wait are told
            return f"the cluster does not say what is free ({type(error).__name__}: {error})"

    # Answers ------------------------------------------------------------------------------------------

    def _call(self, call: Any, then: Callable[[Answer], None]) -> None:
        def hand_on(future: Answer) -> None:
            self._events.put(partial(then, future))

        call.future().add_done_callback(hand_on)

    def _aside(self, function: Callable[[], T], then: Callable[[T], None]) -> None:
        """Call something that may block, on a thread of its own."""

        def run() -> None:
            result = function()
            self._events.put(partial(then, result))

        threading.Thread(target=run, name="stoker-cluster-aside", daemon=True).start()
