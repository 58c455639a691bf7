"""Reports of workers, as a place on a cluster gives them."""

from __future__ import annotations

from typing import Any

from stoker.session.workers import WorkerStatus


def status_of(worker: int, **changes: Any) -> WorkerStatus:
    """A worker that plays on the node ``a``, unless the changes say otherwise."""
    values: dict[str, Any] = {
        **dict.fromkeys(("steps", "lost_steps", "late_batches"), 0),
        "worker": worker,
        "node": "a",
        "incarnation": 1,
        "state": "playing",
        "n_actors": 2,
        "actor_ids": (2 * worker, 2 * worker + 1),
        "since_s": 0.0,
        "why": "",
    }
    return WorkerStatus(**{**values, **changes})
