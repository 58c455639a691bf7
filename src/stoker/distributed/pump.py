"""The one thread of a training that talks to its workers on a cluster.

It waits for one queue, with answers of Ray, which arrive as callbacks, and workers that have something to
send. Each process is asked for its next batch as soon as the last one is here; the commands of a few
milliseconds go out together. All calls of Ray are made here, so none holds an event loop.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Sequence
from functools import partial

import msgspec

from stoker.distributed.calls import Answer, Events, RayCalls
from stoker.distributed.cluster import Cluster
from stoker.distributed.head import HeadWatch
from stoker.distributed.nodes import refusal_of, words_of
from stoker.distributed.parcels import Batch, Delivery, Hello
from stoker.distributed.versions import Versions, difference
from stoker.distributed.workers import Incarnation, RayWorker
from stoker.errors import ConfigError

_logger = logging.getLogger("stoker.distributed")

_POLL_S = 1.0
"""A process without messages answers after this time."""

_START_S = 120.0
"""A process that has room and has not started after this time never will."""

_QUIET_S, _SILENT_S = 3.0, 8.0
"""After so long without an answer a process's node is asked, and after so long without one it is given up."""

_LINGER_S = 0.005
"""Commands of a worker that go out less than this after its last ones are collected."""

_TICK_S = 0.5
_LOOK_S = 2.0
"""How often the cluster is asked what workers wait for."""

_COUNT_S = 60.0
"""How long the count of a process that has ended is waited for."""

_CLOSE_S = 8.0
"""How long environments may take to close."""

_batches = msgspec.msgpack.Decoder(Batch)
_hellos = msgspec.msgpack.Decoder(Hello)


class _Loss:
    """A process that has ended, whose count of played steps is being read."""

    def __init__(self, worker: RayWorker, incarnation: Incarnation, why: str, until: float) -> None:
        self.worker = worker
        self.incarnation = incarnation
        self.why = why
        self.until = until
        self.most = incarnation.most_in_flight


class Pump:
    """Starts processes for workers, carries what goes between them and their links, and starts them again.

    Args:
        cluster: where they run.
        name: tells this training's processes from all others.
        worker_cpus: CPUs of a worker.
        min_workers: so many must have started before the first links play.
        workers: all workers; others may be appended.
        lock: guards the workers and their links.
    """

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        worker_cpus: float,
        min_workers: int,
        workers: Sequence[RayWorker],
        lock: threading.Lock,
    ) -> None:
        self._min_workers = min_workers
        self._workers = workers
        self._lock = lock
        self._events: Events = queue.SimpleQueue()
        self.calls: RayCalls = RayCalls(cluster, name, worker_cpus, self._events)
        self._head = HeadWatch(cluster.address, partial(self.calls.ask_head, _QUIET_S), time.monotonic())
        self._due: dict[RayWorker, float] = {}  # when what it has to send goes out
        self._sent_at: dict[RayWorker, float] = {}
        self._losses: list[_Loss] = []
        self._has_begun = False
        self._tick_at = self._looked_at = 0.0
        self._said = ""
        self._is_looking = False
        self._closing_until: float | None = None
        self._played_since_barren = False
        self._thread = threading.Thread(target=self._run, name="stoker-cluster", daemon=True)
        self._thread.start()

    def wake(self, worker: RayWorker) -> None:
        """A worker has something to send; from any thread."""
        self._events.put(partial(self._plan, worker))

    def close(self, timeout_s: float) -> None:
        """End all links and processes; blocks until that is done, or for that time."""
        self._events.put(self._begin_close)
        self._thread.join(timeout_s)

    # The thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self.calls.is_connected and not self._is_closed(time.monotonic()):
                self._turn()
        except Exception as error:
            _logger.exception("the connection to the workers has failed")
            refusal = ConfigError(
                f"the connection to the workers has failed ({type(error).__name__}: {error})"
            )
            refusal.__cause__ = error
            with self._lock:
                for worker in self._workers:
                    worker.refuse(refusal)
        finally:
            self._end()

    def _turn(self) -> None:
        """Wait for one event, handle it with all others that are there, and do what is due."""
        next_at = min([self._tick_at, *self._due.values()])
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=max(0.0, next_at - time.monotonic()))
            for _ in range(self._events.qsize()):
                event()
                event = self._events.get_nowait()
            event()
        now = time.monotonic()
        for worker, due_at in list(self._due.items()):
            if due_at <= now:
                del self._due[worker]
                self._deliver(worker, now)
        if now >= self._tick_at:
            self._tick_at = now + _TICK_S
            self._tick(now)

    def _tick(self, now: float) -> None:
        for worker in list(self._workers):
            with self._lock:
                worker.note_state(now)
            if worker.start_at is not None and now >= worker.start_at:
                worker.start_at = None
                self._plan(worker)
            if (incarnation := worker.now) is not None:
                self._check(worker, incarnation, now)
        for loss in [loss for loss in self._losses if now >= loss.until]:
            self._count(loss, None)
        self._head.tick(now)
        if now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            self._look()

    # Starting -----------------------------------------------------------------------------------------

    def _plan(self, worker: RayWorker) -> None:
        """Have what a worker has to send go out soon, and a process started if it has none."""
        if worker.now is None:
            if worker.start_at is None and worker.is_wanted and not worker.is_closed:
                self._start(worker)
            return
        at = 0.0 if worker.is_urgent else self._sent_at.get(worker, 0.0) + _LINGER_S
        self._due[worker] = min(at, self._due.get(worker, at))

    def _start(self, worker: RayWorker) -> None:
        now = time.monotonic()
        worker.n_incarnations += 1
        number = worker.n_incarnations
        actor = self.calls.start(worker.index, number)
        worker.now = incarnation = Incarnation(number, actor, now)
        self._looked_at = min(self._looked_at, now - _LOOK_S + _TICK_S)
        self.calls.hello(actor, partial(self._on_hello, worker, incarnation))

    def _on_hello(self, worker: RayWorker, incarnation: Incarnation, answer: Answer) -> None:
        if incarnation.is_dead:
            return
        try:
            hello = _hellos.decode(answer.result())
        except Exception as error:  # noqa: BLE001 - each of them ends the process
            self._on_failure(worker, incarnation, error)
            return
        if (differs := difference(Versions.here(), hello.versions)) is not None:
            self._refuse(worker, ConfigError(f"node {hello.node} cannot play for this training: {differs}"))
            return
        with self._lock:
            incarnation.hello, incarnation.heard_at = hello, time.monotonic()
            worker.waits_for = ""
        _logger.info("worker %d plays on node %s (process %d)", worker.index, hello.node, hello.pid)
        self._poll(worker, incarnation)
        self._begin_if_enough()
        self._due[worker] = 0.0

    def _begin_if_enough(self) -> None:
        if self._has_begun:
            return
        with self._lock:
            wanted = [worker for worker in self._workers if worker.is_wanted]
        ready = [worker for worker in wanted if worker.now is not None and worker.now.hello is not None]
        if len(ready) >= min(self._min_workers, len(wanted)):
            self._has_begun = True
            self._due.update(dict.fromkeys(ready, 0.0))

    def _look(self) -> None:
        """Find out what the workers that have not started wait for."""
        pending = [worker for worker in self._workers if worker.is_starting]
        if pending and not self._is_looking:
            self._is_looking = True
            self.calls.ask_shortage(len(pending), self._on_shortage)

    def _on_shortage(self, shortage: str | None) -> None:
        self._is_looking = False
        with self._lock:
            for worker in self._workers:
                worker.waits_for = shortage or "" if worker.is_starting else ""
        if shortage is not None and shortage != self._said:
            _logger.warning("%s", shortage)
        self._said = shortage or ""

    # Messages -----------------------------------------------------------------------------------------

    def _poll(self, worker: RayWorker, incarnation: Incarnation) -> None:
        self.calls.poll(incarnation.actor, _POLL_S, partial(self._on_batch, worker, incarnation))

    def _on_batch(self, worker: RayWorker, incarnation: Incarnation, answer: Answer) -> None:
        try:
            data = answer.result()
        except Exception as error:  # noqa: BLE001 - each of them ends the process
            if not incarnation.is_dead:
                self._on_failure(worker, incarnation, error)
            return
        if not incarnation.is_dead:
            incarnation.heard_at = time.monotonic()
            self._poll(worker, incarnation)
        try:
            batch = _batches.decode(data)
            with self._lock:
                n_steps = worker.accept(incarnation, batch)
        except msgspec.DecodeError as error:
            self._lose(worker, incarnation, f"its process sent an invalid message ({error})")
            return
        self._played_since_barren |= n_steps > 0

    # Commands -----------------------------------------------------------------------------------------

    def _deliver(self, worker: RayWorker, now: float) -> None:
        incarnation = worker.now
        if incarnation is None or incarnation.hello is None:
            return
        with self._lock:
            delivery, weights = worker.take_delivery(incarnation, with_new=self._has_begun)
        if delivery == Delivery():
            return
        self._sent_at[worker] = now
        then = partial(self._on_delivered, worker, incarnation)
        self.calls.deliver(incarnation.actor, delivery, weights, then)

    def _on_delivered(self, worker: RayWorker, incarnation: Incarnation, answer: Answer) -> None:
        error = answer.exception()
        if error is not None and not incarnation.is_dead:
            self._on_failure(worker, incarnation, error)

    # Ends ---------------------------------------------------------------------------------------------

    def _on_failure(self, worker: RayWorker, incarnation: Incarnation, error: BaseException) -> None:
        """A call of a process failed: it has ended, or could not start, or has an error."""
        if incarnation.hello is None and (refusal := refusal_of(error)) is not None:
            self._refuse(worker, refusal)
        else:
            self._lose(worker, incarnation, words_of(error))

    def _refuse(self, worker: RayWorker, error: ConfigError) -> None:
        incarnation = worker.now
        with self._lock:
            worker.refuse(error)
        if incarnation is not None:
            self.calls.kill(incarnation.actor)

    def _lose(self, worker: RayWorker, incarnation: Incarnation, why: str) -> None:
        now = time.monotonic()
        loss = _Loss(worker, incarnation, why, now + _COUNT_S)
        with self._lock:
            worker.lose(incarnation, why, now, may_give_up=not self._played_since_barren)
        self._played_since_barren = False
        self.calls.kill(incarnation.actor)
        if worker.start_at is not None and worker.start_at <= now:
            worker.start_at = None
            self._plan(worker)
        hello = incarnation.hello
        if hello is None:
            _logger.warning("worker %d could not start: %s", worker.index, why)
            return
        self._losses.append(loss)
        neighbors = (other.now for other in self._workers if other is not worker)
        helper = next((near for near in neighbors if near is not None and near.is_on(hello.node_id)), None)
        self.calls.count_played(hello, None if helper is None else helper.actor, partial(self._count, loss))

    def _count(self, loss: _Loss, total: int | None) -> None:
        """Report the end of a process that has played ``total`` steps; None: that is not known."""
        if loss not in self._losses:
            return
        self._losses.remove(loss)
        worker, incarnation = loss.worker, loss.incarnation
        if total is None:
            n_lost, lost = loss.most, f"at most {loss.most} steps are lost"
            with self._lock:
                worker.why = f"{loss.why}; {lost}"
        else:
            n_lost = total - incarnation.received
            lost = f"{n_lost} {'step is' if n_lost == 1 else 'steps are'} lost"
        with self._lock:
            worker.lost_steps += n_lost
        hello = incarnation.hello
        where = "" if hello is None else f" on node {hello.node}"
        printed = "" if hello is None or not hello.output_path else f"; it printed to {hello.output_path}"
        _logger.warning("worker %d%s was lost: %s; %s%s", worker.index, where, loss.why, lost, printed)

    def _check(self, worker: RayWorker, incarnation: Incarnation, now: float) -> None:
        """Give up a process that does not start or cannot go on.

        One that only holds its interpreter, and so does not answer, is left alone while its node answers.
        """
        with self._lock:
            stuck = worker.stuck(incarnation, now)
        hello = incarnation.hello
        if stuck is not None:
            self._lose(worker, incarnation, stuck)
            return
        if hello is None:
            if worker.waits_for:
                incarnation.heard_at = now
            elif now - incarnation.heard_at >= _START_S:
                self._lose(worker, incarnation, f"its process did not start within {_START_S:.0f} s")
            return
        if now - incarnation.heard_at < _QUIET_S:
            return
        unseen_s = now - max(incarnation.heard_at, incarnation.node_seen_at)
        if unseen_s >= _SILENT_S:
            self._lose(worker, incarnation, f"its node has not answered for {unseen_s:.0f} s")
        elif unseen_s >= _QUIET_S and not incarnation.is_node_asked:
            incarnation.is_node_asked = True
            self.calls.ask_node(hello.node_id, _QUIET_S, partial(self._on_probe, incarnation))

    def _on_probe(self, incarnation: Incarnation, is_alive: bool) -> None:
        incarnation.is_node_asked = False
        if is_alive:
            incarnation.node_seen_at = time.monotonic()

    # Closing ------------------------------------------------------------------------------------------

    def _begin_close(self) -> None:
        if self._closing_until is not None:
            return
        self._closing_until = time.monotonic() + _CLOSE_S
        with self._lock:
            for worker in self._workers:
                worker.stop_links()
        self._tick_at = 0.0

    def _is_closed(self, now: float) -> bool:
        if self._closing_until is None:
            return False
        if now >= self._closing_until:
            return True
        return not self._losses and not any(worker.is_wanted for worker in self._workers)

    def _end(self) -> None:
        """End the processes, once their links have ended or time is up."""
        with self._lock:
            ended = [(worker, worker.now) for worker in self._workers if worker.now is not None]
            for worker in self._workers:
                worker.close("its place was closed")
        totals = self.calls.finish([incarnation.actor for _, incarnation in ended])
        for (worker, incarnation), total in zip(ended, totals, strict=True):
            if total is not None:
                worker.lost_steps += total - incarnation.received
