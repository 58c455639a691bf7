"""Real trainings for the benchmark of scaling: steps per second and processor times by number of workers."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
import httpx2

from benchmarks.measure import QUICK
from benchmarks.scaling_constants import Case, alone
from benchmarks.scaling_envs import Steps
from benchmarks.scaling_model import Costs
from benchmarks.servers import cpu_of, serving, with_children
from stoker import ActorGroup, TrainingRun, TrainingSession

MEASURED_S = 1.5 if QUICK else 6.0
START_S = 240.0
RAY_DELAY_S = 0.1
"""How long an environment on a cluster collects steps for a message."""
NEVER = 10**9
"""Steps between two updates, for a training that does not learn."""
SPIN = """
import sys, time
began, n = time.process_time(), 0
end = time.perf_counter() + float(sys.argv[1])
while time.perf_counter() < end:
    for _ in range(20000): pass
    n += 1
print(n, time.process_time() - began)
"""


@dataclass(frozen=True)
class Measured:
    """A training, measured.

    Attributes:
        steps_per_s: which the learner accepted.
        learner_s, worker_s: processor time of the learner, and of all workers together, for each of them.
        cores: how many processors the machine gave to as many processes, at the speed of one alone.
    """

    steps_per_s: float
    learner_s: float
    worker_s: float
    cores: float

    @property
    def got(self) -> float:
        """How many processors the training had."""
        return self.steps_per_s * (self.learner_s + self.worker_s)


def capacity(n_processes: int, seconds: float = 0.4) -> float:
    """How many processors that many processes get, at the speed of one alone; no more than there are.

    The speed of a processor varies by some percent from one second to the next.
    """
    words = [sys.executable, "-c", SPIN, str(seconds)]
    alone = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    spinning = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(n_processes)]
    said = [process.communicate()[0].split() for process in spinning]
    per_cpu_s = int(alone[0]) / float(alone[1])
    return min(len(os.sched_getaffinity(0)), sum(int(n) for n, _ in said) / seconds / per_cpu_s)


async def trained(case: Case, env: Steps, n_envs: int, n_workers: int, place: Any) -> Measured:
    """A training with run and journal, from when each of its environments plays."""
    with tempfile.TemporaryDirectory(dir=".") as root:
        run = await TrainingRun.create("scaling", root=root)
        settings: dict[str, Any] = {"opt_interval": case.opt_interval, "checkpoint_freq": 0}
        async with TrainingSession(case.make(case.kind), run, **settings) as session:
            group = ActorGroup(session, env, n_envs, place=place, sync_interval=case.sync_interval, seed=0)
            found: list[Measured] = []

            async def watch() -> None:
                with anyio.fail_after(START_S):
                    while not all(report.steps > 20 for report in group.reports):  # noqa: ASYNC110
                        await anyio.sleep(0.05)
                workers = [pid for pid in with_children(os.getpid()) if pid != os.getpid()]
                before = session.total_steps, time.process_time(), sum(map(cpu_of, workers))
                began = time.perf_counter()
                await anyio.sleep(MEASURED_S)
                elapsed_s = time.perf_counter() - began
                after = session.total_steps, time.process_time(), sum(map(cpu_of, workers))
                session.stop()
                found.append(_measured(before, after, elapsed_s, n_workers))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch)
                await group.run()
    return found[0]


def on_ray(case: Case, cluster: Any, env: Steps, n_workers: int, envs_per_worker: int) -> Measured:
    """The same on a cluster."""
    from stoker.distributed import RayPlace

    place = RayPlace(
        cluster,
        envs_per_worker=envs_per_worker,
        worker_cpus=1.0,
        min_workers=n_workers,
        max_workers=n_workers,
    )
    with contextlib.closing(place):
        return anyio.run(partial(trained, case, env, n_workers * envs_per_worker, n_workers, place))


def played_remotely(case: Case, env: Steps, n_workers: int, envs_per_worker: int) -> Measured:
    """The same with `stoker serve` and that many `stoker actor` processes."""
    words = [sys.executable, "-m", "stoker"]
    simulated = ["--env", "benchmarks.scaling_envs:Simulated", "--env-kwargs", f"kind={env.kind}"]
    flags = "--agent dqn --hidden-sizes 64 64 --batch-size 64 --learning-starts 256 --initial-epsilon 0.05"
    flags += f" --opt-interval {case.opt_interval} --torch-threads 1 --port 0 --checkpoint-freq 0 --runs-dir"
    with tempfile.TemporaryDirectory(dir=".") as root, contextlib.ExitStack() as stack:
        server = stack.enter_context(serving([*words, "serve", *simulated, *flags.split(), root]))
        url = f"http://127.0.0.1:{server.port}"
        client = stack.enter_context(httpx2.Client(base_url=url, timeout=60))
        actor = [*words, "actor", "--connect", url, *simulated, f"wait_s={env.wait_s}", f"loops={env.loops}"]
        actor += ["--num-actors", str(envs_per_worker), "--stepping", "thread" if env.wait_s else "inline"]
        pids = [stack.enter_context(_process(actor)).pid for _ in range(n_workers)]
        deadline = time.monotonic() + START_S
        while _metric(client, "stoker_service_actors") < n_workers * envs_per_worker:
            assert time.monotonic() < deadline, "the actors did not start"
            time.sleep(0.1)
        before = _metric(client, "stoker_env_steps_total"), server.cpu_s(), sum(map(cpu_of, pids))
        began = time.perf_counter()
        time.sleep(MEASURED_S)
        elapsed_s = time.perf_counter() - began
        after = _metric(client, "stoker_env_steps_total"), server.cpu_s(), sum(map(cpu_of, pids))
    return _measured(before, after, elapsed_s, n_workers)


def _measured(
    before: tuple[float, float, float], after: tuple[float, float, float], elapsed_s: float, n_workers: int
) -> Measured:
    steps, learner_s, worker_s = (new - old for new, old in zip(after, before, strict=True))
    return Measured(steps / elapsed_s, learner_s / steps, worker_s / steps, capacity(n_workers + 1))


# What differs in a place --------------------------------------------------------------------------


def central_costs(own: Costs, case: Case, env: Steps) -> Costs:
    """What a step costs where the server chooses the actions: measured with one actor, without learning."""
    found = played_remotely(replace(case, opt_interval=NEVER), Steps(env.kind), 1, 1)
    env_s, wait_s = alone(env)
    return replace(
        own, step_s=found.learner_s, message_s=0.0, turn_s=found.worker_s + env_s, wait_s=wait_s, load_s=0.0
    )


def ray_costs(own: Costs, case: Case, env: Steps, cluster: Any) -> Costs:
    """What Ray adds on both sides: measured with one worker of four environments, without learning."""
    slow, n_envs = Steps(case.kind, wait_s=0.005), 4
    found = on_ray(replace(case, opt_interval=NEVER), cluster, slow, 1, n_envs)
    per_message = min(16.0, RAY_DELAY_S / slow.wait_s + 0.5)
    per_parcel = per_message + found.steps_per_s * (1 - 1 / n_envs) * 0.02
    more_s = found.learner_s - own.step_s - own.message_s / per_message
    return replace(own, parcel_s=max(0.0, more_s * per_parcel), turn_s=found.worker_s + alone(env)[0])


@contextlib.contextmanager
def _process(words: Sequence[str]) -> Generator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _metric(client: httpx2.Client, name: str) -> float:
    """The sum of a metric's series."""
    answer = client.get("/metrics")
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", answer.text, re.MULTILINE)
    return sum(map(float, found)) if answer.is_success else 0.0
