"""How many steps per second do more workers give, and which limit comes first?

The constants of ``scaling_model`` are measured here, each part by itself. Then trainings with 1, 2, 4 and 8
workers are predicted and measured, with environments that wait for 10 ms and with ones that compute: the
model shall be within 20 % of each. A simulation of environments, messages and deaths of workers takes the
same constants to 10,000 environments, where nothing can be measured here.

On a machine with other work, the processors that a training got are measured with it, and the check is one of
the processor time for each step; ``loaded`` says so. ``--only=ray --workers=1,2`` makes a part of the checks.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial

import anyio
import torch

from benchmarks.measure import QUICK, machine
from benchmarks.scaling_constants import CASES, Case, costs_of
from benchmarks.scaling_envs import Steps
from benchmarks.scaling_model import Costs, Layout, predict
from benchmarks.scaling_runs import (
    RAY_DELAY_S,
    Measured,
    central_costs,
    on_ray,
    played_remotely,
    ray_costs,
    trained,
)
from benchmarks.scaling_simulation import simulate

PLACES = ("stoker actor", "ray") if QUICK else ("stoker actor", "ray", "processes")
CASE = CASES["DQN"]
ENVS = {"waits": (Steps(wait_s=0.01), 8), "computes": (Steps(loops=100_000), 1)}
"""10 ms of waiting, or some milliseconds of a processor; and how many of them a worker has."""
CLOSE = 0.20
SIZES = (100, 1_000) if QUICK else (100, 1_000, 10_000)
SIMULATED_S = 1.0 if QUICK else 3.0


@dataclass(frozen=True)
class Check:
    """A prediction and its measurement."""

    place: str
    env: str
    n_workers: int
    predicted: float
    first: str
    measured: Measured

    @property
    def error(self) -> float:
        """How far the prediction is off."""
        return self.predicted / self.measured.steps_per_s - 1

    @property
    def line(self) -> str:
        """A row of the table."""
        found = self.measured
        return (
            f"  {self.place:<13} {self.env:<9} {self.n_workers:>3} {self.predicted:>9,.0f} "
            f"{found.steps_per_s:>9,.0f} {self.error:>+6.0%}  {self.first:<14} {found.cores:>5.2f} "
            f"{found.learner_s * 1e6:>8,.0f} {found.worker_s * 1e6:>8,.0f}"
        )


HEAD = (
    f"  {'place':<13} {'each step':<9} {'n':>3} {'predicted':>9} {'measured':>9} {'error':>6}  "
    f"{'first limit':<14} {'cores':>5} {'learner':>8} {'workers':>8} us"
)


def checks(places: list[str], workers: list[int], *, is_loaded: bool) -> Iterator[Check]:
    """Each place, each kind of environment, each number of workers."""
    with ExitStack() as stack:
        for place in places:
            measure, costs_for = _place(stack, place)
            for name, (env, envs_per_worker) in ENVS.items():
                each = 1 if place == "processes" else envs_per_worker
                costs = costs_for(env)
                for n_workers in workers:
                    found = measure(env, n_workers, each)
                    cores = max(found.cores, found.got) if is_loaded else found.cores
                    layout = Layout(
                        n_envs=n_workers * each,
                        n_workers=n_workers,
                        updates_per_step=CASE.updates_per_step,
                        sync_interval=0 if place == "stoker actor" else CASE.sync_interval,
                        per_node=place == "ray",
                        batch_s=RAY_DELAY_S if place == "ray" else 0.02,
                        is_central=place == "stoker actor",
                        learner_cores=cores,
                        beside_learner=n_workers,
                        latency_s=0.0,
                    )
                    said = predict(costs, layout)
                    yield Check(place, name, n_workers, said.steps_per_s, said.first, found)


def _place(
    stack: ExitStack, place: str
) -> tuple[Callable[[Steps, int, int], Measured], Callable[[Steps], Costs]]:
    """How to measure a training there, and what its parts cost there."""
    own = partial(costs_of, CASE)
    match place:
        case "stoker actor":
            return partial(played_remotely, CASE), lambda env: central_costs(own(env), CASE, env)
        case "ray":
            from stoker.distributed import Cluster

            cluster = stack.enter_context(Cluster.connect("local", timeout_s=180.0, local_cpus=16))
            return partial(on_ray, CASE, cluster), lambda env: ray_costs(own(env), CASE, env, cluster)
        case _:
            return partial(_in_processes, CASE), own


def _in_processes(case: Case, env: Steps, n_workers: int, envs_per_worker: int) -> Measured:
    return anyio.run(partial(trained, case, env, n_workers * envs_per_worker, n_workers, "processes"))


def beyond(costs_by_case: dict[str, Costs]) -> Iterator[str]:
    """What model and simulation say of more environments than this machine can hold."""
    head = f"  {'agent':<12} {'envs':>6} {'workers':>7} {'model':>8} {'simulated':>9}"
    yield f"{head} {'':>6}  limits, in steps per second"
    for name, costs in costs_by_case.items():
        case = CASES[name]
        for n_envs in SIZES:
            layout = Layout(
                n_envs=n_envs,
                n_workers=n_envs // 10,
                updates_per_step=case.updates_per_step,
                sync_interval=case.sync_interval,
                per_node=True,
                batch_s=RAY_DELAY_S,
                learner_cores=16,
            )
            said = predict(costs, layout)
            found = simulate(costs, layout, seconds=SIMULATED_S, deaths_per_s=layout.n_workers / 3600)
            order = sorted(said.limits, key=lambda limit: said.limits[limit])
            limits = ", ".join(f"{limit} {said.limits[limit]:,.0f}" for limit in order[:3])
            yield (
                f"  {name:<12} {n_envs:>6,} {layout.n_workers:>7,} {said.steps_per_s:>8,.0f} "
                f"{found.steps_per_s:>9,.0f} {said.steps_per_s / found.steps_per_s - 1:>+6.0%}  {limits}"
            )


def main() -> int:
    """Measure constants, check the model, go beyond."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    options: dict[str, str] = {}
    for word in sys.argv[1:]:
        name, _, value = word.removeprefix("--").partition("=")
        options[name] = value
    places = [place for place in options.get("only", "").split(",") if place] or list(PLACES)
    workers = [int(n) for n in options.get("workers", "1,2,4,8").split(",")]
    is_loaded = os.getloadavg()[0] > 1.5
    load = " (loaded)" if is_loaded else ""
    print(f"\nscaling: steps per second, predicted and measured{load}\n  {machine()}")
    print(HEAD)
    found: list[Check] = []
    for check in checks(places, workers, is_loaded=is_loaded):
        found.append(check)
        print(check.line, flush=True)
    n_close = sum(abs(check.error) <= CLOSE for check in found)
    worst = max((abs(check.error) for check in found), default=0.0)
    print(f"  {n_close} of {len(found)} within {CLOSE:.0%}; the worst is {worst:.0%} off")
    costs = {name: costs_of(case, Steps(case.kind, wait_s=0.01)) for name, case in CASES.items()}
    print("\nscaling: what this machine's constants give with more machines, for environments of 10 ms")
    for name, each in costs.items():
        told = {key: f"{value:.3g}" for key, value in asdict(each).items() if value}
        print(f"  {name}: {' '.join(f'{key}={value}' for key, value in told.items())}")
    for line in beyond(costs):
        print(line, flush=True)
    if "json" in options:
        rows = [{**asdict(check), "error": check.error} for check in found]
        print(json.dumps({"question": "scaling", "rows": rows, "machine": machine(), "loaded": is_loaded}))
    print(f"  {time.perf_counter() - began:.0f} s")
    return int(n_close < len(found))


if __name__ == "__main__":
    sys.exit(main())
