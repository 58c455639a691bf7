"""Actors on a Ray cluster: on many machines, with the learner and its run directory on one."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.distributed.cluster import Cluster as Cluster
    from stoker.distributed.place import RayPlace as RayPlace
    from stoker.session.workers import WorkerStatus as WorkerStatus
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
