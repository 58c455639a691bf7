"""How many steps per second does a training make whose environments play on a Ray cluster?

Two nodes on this machine, each with room for one worker. 64 environments that wait for 10 ms in each step,
over two workers: nobody learns; DQN learns once for 64 steps; PPO learns from rollouts of 2,048. Beside the
ideal, which is environments over latency. Beside RLlib with as many environments over its own env runners,
one after the other in each (its default) and vectorized in processes: STOKER_RLLIB names the Python of an
environment that has ray[rllib] 2.60. And beside the loop that people write themselves
(``peers/ray_loop.py``).

Then two environments that compute for a millisecond per step: a worker for each, against processes and
tasks. All of stoker's have rows and journal. Its start is from a ``RayPlace``, with Ray connected, to the
first step.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import gymnasium
import ray
import torch
from ray.cluster_utils import Cluster

from benchmarks.measure import QUICK, repeated, report
from benchmarks.peers.cluster_envs import LATENCY_S, Waiting, burning
from benchmarks.peers.ray_loop import loop_rate
from stoker import DQN, PPO, DQNConfig, PPOConfig, TrainingRun, TrainingSession, run_actors
from stoker.distributed import RayPlace

N_ENVS, N_WORKERS = 64, 2
WARMUP_S, MEASURED_S = (1.0, 3.0) if QUICK else (3.0, 8.0)
RUNS = 1 if QUICK else 3
START_S = 120.0
"""By then the first step has arrived, or the benchmark fails."""
TARGETS = [
    "targets: 0.9 of the ideal; 1.5 times RLlib's steps; a start within 3 s of a connected Ray",
]
PEER = Path(__file__).parent / "peers" / "rllib_steps.py"
SPACES: tuple[Any, Any] = Waiting.observation_space, Waiting.action_space

starts: dict[str, list[float]] = {}
"""Seconds from the beginning of each contender, its Ray connected, to its first step."""


class RLlib(NamedTuple):
    """A setting of RLlib that is tried, with ``N_ENVS`` environments in all."""

    vectorize: str
    runners: int
    fragment: int

    def __str__(self) -> str:
        return f"RLlib, {self.runners} env runners, {self.vectorize}"


SETTINGS = (RLlib("sync", 2, 4), RLlib("async", 2, 16), RLlib("async", 8, 16))


# The contenders ---------------------------------------------------------------------------------------


@contextmanager
def connected() -> Generator[str]:
    """The address of the cluster that STOKER_CLUSTER names, or of one of two nodes here; Ray is connected."""
    named = os.environ.get("STOKER_CLUSTER", "")
    cluster = Cluster()
    try:
        if not named:
            for _ in range(2):
                cluster.add_node(
                    num_cpus=1, include_dashboard=False, no_monitor=True, include_log_monitor=False
                )
        ray.init(named or cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield named or cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def agent_for(learn: str, env: gymnasium.Env[Any, Any] | None = None) -> Any:
    spaces = SPACES if env is None else (env.observation_space, env.action_space)
    if learn == "ppo":
        return PPO(*spaces, PPOConfig(rollout_steps=2_048, batch_size=64), seed=0)
    return DQN(*spaces, DQNConfig(learning_starts=1_000), seed=0)


async def played(
    name: str, agent: Any, place: Any, factory: Callable[[], Any], n: int, interval: int
) -> float:
    """Steps per second that are consumed, once the training is warm."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=".") as root:  # a disk; the system's /tmp may be memory
        run = await TrainingRun.create("bench", root=root)
        settings: dict[str, Any] = {"opt_interval": interval, "queue_capacity": 16 * n}
        async with TrainingSession(agent, run, **settings) as session, anyio.create_task_group() as tasks:
            tasks.start_soon(partial(run_actors, session, factory, n, place=place, stepping="inline", seed=0))
            with anyio.fail_after(START_S):
                while not session.total_steps:  # noqa: ASYNC110 - a call after each step would cost steps
                    await anyio.sleep(0.005)
            starts.setdefault(name, []).append(time.perf_counter() - began)
            await anyio.sleep(WARMUP_S)
            started, first = time.perf_counter(), session.total_steps
            await anyio.sleep(MEASURED_S)
            rate = (session.total_steps - first) / (time.perf_counter() - started)
            tasks.cancel_scope.cancel()
    return rate


def on_cluster(name: str, agent: Any, factory: Callable[[], Any], n: int, interval: int) -> float:
    async def main(address: str) -> float:
        place = RayPlace(address, envs_per_worker=n // N_WORKERS, max_workers=N_WORKERS)
        try:
            return await played(name, agent, place, factory, n, interval)
        finally:
            place.close()

    with connected() as address:
        return anyio.run(main, address)


def stoker_rate(name: str, learn: str) -> float:
    return on_cluster(name, agent_for(learn), Waiting, N_ENVS, 0 if learn == "none" else N_ENVS)


def rllib_rate(python: str, setting: RLlib, learn: str) -> float:
    asked = {
        "env": "waiting", "learn": learn, "vectorize": setting.vectorize, "runners": setting.runners,
        "envs": N_ENVS // setting.runners, "fragment": setting.fragment,
        "warmup_s": WARMUP_S, "seconds": MEASURED_S,
    }  # fmt: skip
    words = [python, "-W", "ignore", str(PEER), json.dumps(asked)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    starts.setdefault(str(setting), []).append(found["start_s"])
    return float(found["rate"])


def plain_rate(name: str, learn: str, *, in_threads: bool) -> float:
    with connected():
        rate, start_s = loop_rate(
            Waiting, N_WORKERS, N_ENVS // N_WORKERS, 16 if in_threads else 4, in_threads=in_threads,
            learns=learn == "dqn", warmup_s=WARMUP_S, seconds=MEASURED_S,
        )  # fmt: skip
    starts.setdefault(name, []).append(start_s)
    return rate


def computing_rate(place: str) -> float:
    """Two environments that compute, each in its own process or both in this one."""
    agent = agent_for("dqn", burning())
    if place == "ray":
        return on_cluster("computing", agent, burning, N_WORKERS, N_WORKERS)
    return anyio.run(played, place, agent, place, burning, N_WORKERS, N_WORKERS)


# The questions ----------------------------------------------------------------------------------------


def compare(learn: str, title: str, python: str) -> None:
    ours, threads, in_turn = "stoker", "a loop on Ray, threads", "a loop on Ray, in turn"
    contenders: dict[str, Callable[[], float]] = {ours: partial(stoker_rate, ours, learn)}
    if python:
        contenders |= {str(one): partial(rllib_rate, python, one, learn) for one in SETTINGS}
    if learn != "ppo":
        contenders[threads] = partial(plain_rate, threads, learn, in_threads=True)
        contenders[in_turn] = partial(plain_rate, in_turn, learn, in_threads=False)
    starts.clear()
    rows = repeated(contenders, RUNS)
    median = {name: statistics.median(values) for name, values in rows.items()}
    rows["ideal: environments / latency"] = [ideal := N_ENVS / LATENCY_S]
    ratios = {f"{ours} / ideal": median[ours] / ideal}
    ratios |= {f"{ours} / {name}": median[ours] / value for name, value in median.items() if name != ours}
    notes = [f"{name}: the first step after {statistics.median(s):.1f} s" for name, s in starts.items()]
    if not python:
        notes.append("RLlib is left out: STOKER_RLLIB=PYTHON names one that has it")
    report(
        f"{N_ENVS} environments that wait for {LATENCY_S * 1e3:.0f} ms, over {N_WORKERS} workers, {title}",
        "environment steps per second", rows, ratios, [*notes, *TARGETS],
    )  # fmt: skip


def compute() -> None:
    places = ("ray", "processes", "tasks")
    rows = repeated({place: partial(computing_rate, place) for place in places}, RUNS)
    median: Mapping[str, float] = {name: statistics.median(values) for name, values in rows.items()}
    ratios = {f"ray / {name}": median["ray"] / median[name] for name in places[1:]}
    report(
        f"{N_WORKERS} environments that compute for 1 ms per step, while DQN learns",
        "environment steps per second", rows, ratios,
    )  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    python = os.environ.get("STOKER_RLLIB", "")
    asked = {"none": "nobody learns", "dqn": "while DQN learns", "ppo": "while PPO learns"}
    named = [word for word in sys.argv[1:] if not word.startswith("-")]
    for learn, title in asked.items():
        if not named or learn in named:
            compare(learn, title, python)
    if not named or "compute" in named:
        compute()


if __name__ == "__main__":
    main()
