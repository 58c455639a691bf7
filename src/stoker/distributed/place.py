"""A ``Place`` on a Ray cluster: actors play in processes that Ray places on the nodes, and starts there.

Ray carries messages and places processes; nothing that a session has accepted depends on it.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from stoker.actors.episodes import EnvFactory
from stoker.actors.messages import described
from stoker.actors.places import Link
from stoker.actors.worker import Assignment, OwnPolicy
from stoker.distributed.cluster import Cluster
from stoker.distributed.link import RayLink
from stoker.distributed.pump import Pump
from stoker.distributed.workers import RayWorker
from stoker.errors import ConfigError
from stoker.exits import Closing
from stoker.plain import finite_float
from stoker.session.workers import WorkerStatus
from stoker.types import ActorId

_DELAY_S = 0.1
"""The longest time between two messages of an actor that plays ahead; the end of an episode is sent at once.
Messages of few steps cost the training more than they are worth to it, and the way there and back is long: so
an actor also has twice the credit that it has in a process beside the training."""

_CLOSED_S = 15.0
"""How long ``close`` takes at most."""


class RayPlace(Closing):
    """Workers on a Ray cluster, each of them a process that plays for several actors.

    Actors are assigned to workers in blocks, in the order in which they begin: the first ``envs_per_worker``
    to worker 0, the next ones to worker 1. They stay there, whichever process plays the worker. A vector
    environment counts as its sub-environments and is never divided.

    A worker that dies is replaced at once. Its actors lose their running episodes, and of the steps that
    were played those that had not arrived, at most their credit; ``workers`` reports how many those were.
    That is no failure of an environment and is not limited, unless five processes of a worker in a row end
    before they have played a step while no other worker plays either: then the actors fail. If the cluster
    has no room for a worker, its actors wait until there is.

    The environment's factory is pickled by ``ray.cloudpickle``: one that is defined in a script, a lambda or
    a closure is sent by value; one of a module by name, and the module must be importable on each node.

    Nothing that a session has accepted depends on the cluster. If its head is gone for a minute, Ray ends the
    processes of the cluster, and this one: a resume continues the run.

    Leaving the place as a context manager closes it.

    Args:
        cluster: a connection, which stays open when this is closed; or the address of a cluster, as for
            ``Cluster.connect``, which blocks until it is connected.
        envs_per_worker: how many environments a worker plays.
        worker_cpus: how many CPUs of its node Ray reserves for a worker; may be a fraction, or 0.
        min_workers: so many workers must have started before the first of them play; fewer if that many are
            enough for all actors. None: 1.
        max_workers: the most workers; None: as many as the actors need.

    Raises:
        ConfigError: A setting is invalid, or the cluster cannot be reached.
    """

    def __init__(
        self,
        cluster: Cluster | str = "auto",
        *,
        envs_per_worker: int = 8,
        worker_cpus: float = 1.0,
        min_workers: int | None = None,
        max_workers: int | None = None,
    ) -> None:
        counts = {"envs_per_worker": envs_per_worker, "min_workers": min_workers, "max_workers": max_workers}
        for name, value in counts.items():
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name}={value!r}: give an int of at least 1")
        if finite_float("worker_cpus", worker_cpus) < 0:
            raise ConfigError(f"worker_cpus={worker_cpus!r}: give a number of at least 0")
        if min_workers is not None and max_workers is not None and min_workers > max_workers:
            raise ConfigError(f"min_workers={min_workers} is above max_workers={max_workers}")
        self._envs_per_worker = envs_per_worker
        self._max_workers = max_workers
        self._is_own = isinstance(cluster, str)
        if isinstance(cluster, str):
            local_cpus = None if max_workers is None else max_workers * worker_cpus
            cluster = Cluster.connect(cluster, local_cpus=local_cpus)
        self._cluster = cluster
        self._lock = threading.Lock()
        self._workers: list[RayWorker] = []
        self._worker_of: dict[ActorId, RayWorker] = {}
        self._factory: tuple[EnvFactory, bytes] | None = None
        self._is_closed = False
        name = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._pump = Pump(self._cluster, name, worker_cpus, min_workers or 1, self._workers, self._lock)

    def check(self, factory: EnvFactory, policy: OwnPolicy) -> None:
        """See ``Place``."""
        for what, value, way_out in (
            ("factory", factory, "give a function, and let it make what cannot be pickled"),
            ("policy", policy.policy, "its class must be picklable"),
        ):
            try:
                pickled(value)
            except Exception as error:
                raise ConfigError(
                    f"the {what} {value!r} cannot be sent to a worker ({described(error)}): {way_out}; "
                    "or use place='threads'"
                ) from error

    def link(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy) -> Link:
        """See ``Place``.

        Raises:
            ConfigError: All workers have their actors, and there may be no more; or the place is closed.
        """
        if self._is_closed:
            raise ConfigError("the RayPlace is closed: make a new one")
        load = pickled((factory, policy))
        assignment = msgspec.structs.replace(
            assignment,
            window_steps=2 * assignment.window_steps,
            batch_steps=2 * assignment.batch_steps,
            max_delay_s=_DELAY_S,
        )
        with self._lock:
            worker = self._worker_for(assignment)
        return RayLink(assignment, load, worker)

    def workers(self) -> tuple[WorkerStatus, ...]:
        """How the workers stand; from any thread."""
        now = time.monotonic()
        with self._lock:
            return tuple(worker.status(now) for worker in self._workers)

    def close(self) -> None:
        """Close the environments and end the processes. Idempotent; blocks, for 15 s at most.

        Links that still play end first. If the place has connected to the cluster itself, that ends, too.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._pump.close(_CLOSED_S)
        if self._is_own:
            self._cluster.close()

    def _worker_for(self, assignment: Assignment) -> RayWorker:
        """The worker that an actor belongs to, from its first link on."""
        worker = self._worker_of.get(assignment.actor_id)
        if worker is not None:
            return worker
        width = len(assignment.actor_ids) or 1
        if not self._workers or (last := self._workers[-1]).width + width > self._envs_per_worker:
            if len(self._workers) == self._max_workers:
                n_actors = len(self._worker_of)
                raise ConfigError(
                    f"max_workers={self._max_workers}: they play {n_actors} actors, and there are more; "
                    f"raise it or envs_per_worker={self._envs_per_worker}"
                )
            last = RayWorker(len(self._workers), self._lock, self._pump.wake)
            self._workers.append(last)
        last.width += width
        self._worker_of[assignment.actor_id] = last
        return last


def pickled(value: Any) -> bytes:
    """A value as Ray sends it: what is defined in the program itself by value, the rest by name."""
    import ray.cloudpickle

    dumps: Callable[[Any], bytes] = getattr(ray.cloudpickle, "dumps")  # noqa: B009 - it has no types
    return dumps(value)
