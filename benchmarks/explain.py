"""Does ``explain`` predict what a faster part gives? Three planted bottlenecks, then each twice as fast.

Exits with 1 if another culprit is named, or a prediction differs by more than 15 % from what is measured.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio

from benchmarks.measure import QUICK, Idle, report
from stoker import TrainingSession, run_actors
from stoker.telemetry import Explanation
from stoker.testing import AsyncChainEnv

SECONDS = 1.5 if QUICK else 5.0
RUNS = 1 if QUICK else 5
CLOSE = 0.15


class Learner(Idle):
    """Waits so long for each optimization step, as for an accelerator."""

    def __init__(self, learn_s: float) -> None:
        super().__init__()
        self._learn_s = learn_s

    def learn(self) -> Mapping[str, float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        time.sleep(self._learn_s)
        return {}

    def policy(self) -> Any:
        return Idle()


async def trained(learn_s: float, step_s: float, n_actors: int) -> Explanation:
    """Train for a while, and explain the second half of it."""
    async with TrainingSession(Learner(learn_s), queue_capacity=64) as session:
        with anyio.move_on_after(SECONDS):
            await run_actors(session, partial(AsyncChainEnv, latency=step_s), n_actors, seed=0)
        return session.explain(SECONDS / 2)


PLANTED: dict[str, tuple[str, tuple[float, float, int], tuple[float, float, int]]] = {
    "learner": ("learner", (4e-3, 1e-3, 16), (2e-3, 1e-3, 16)),
    "environments": ("environments", (1e-4, 10e-3, 8), (1e-4, 10e-3, 16)),
    "too few actors": ("actors", (1e-4, 5e-3, 1), (1e-4, 5e-3, 2)),
}
"""The culprit, and what to train with it, and with it twice as fast: s per learn, s per step, and actors."""


def main() -> int:
    """Train each several times, as planted and twice as fast."""
    rows: dict[str, list[float]] = {}
    ratios: dict[str, float] = {}
    notes: list[str] = []
    run: Callable[..., Explanation] = partial(anyio.run, trained)
    is_right = True
    for name, (culprit, planted, faster) in PLANTED.items():
        pairs = [
            (run(*planted), run(*faster)) for _ in range(RUNS)
        ]  # in turn: a drift of the machine hits both
        before = [found.profile.steps_per_s for found, _ in pairs]
        after = [found.profile.steps_per_s for _, found in pairs]
        predicted = statistics.median(found.bottleneck.speedup or 0.0 for found, _ in pairs)
        measured = statistics.median(after) / statistics.median(before)
        rows[name], rows[f"{name}, twice as fast"] = before, after
        ratios[f"{name}: predicted"], ratios[f"{name}: measured"] = predicted, measured
        is_right &= all(found.bottleneck.culprit == culprit for found, _ in pairs)
        is_right &= abs(predicted / measured - 1) <= CLOSE
        notes.append(f"{name}: {pairs[0][0].bottleneck.text}")
    report("Does explain predict what a faster part gives?", "steps/s", rows, ratios, notes)
    return not is_right


if __name__ == "__main__":
    sys.exit(main())
