"""Actors on a real Ray cluster: what they play arrives once, whatever dies."""

from __future__ import annotations

import importlib
import os
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
import ray
from portable_parts import PortableAgent
from ray_parts import NotedEnv, noted_steps, pids_in, started_cluster

from stoker import TrainingSession, run_actors
from stoker.actors import StepMetrics
from stoker.distributed import Cluster, RayPlace
from stoker.errors import ConfigError

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300, method="thread")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster with room for three workers of one CPU."""
    with started_cluster(3) as address, Cluster.connect(address) as cluster:
        yield cluster


@pytest.fixture
def place(cluster: Cluster) -> Iterator[RayPlace]:
    with RayPlace(cluster, envs_per_worker=2) as place:
        yield place


async def test_a_killed_worker_is_replaced_and_its_lost_steps_are_known(
    place: RayPlace, tmp_path: Path
) -> None:
    agent = PortableAgent()
    killed: set[int] = set()

    async def kill_one(step: StepMetrics) -> None:
        if step.total_steps in (100, 300):
            os.kill(pid := min(pids_in(tmp_path) - killed), signal.SIGKILL)
            killed.add(pid)

    async with TrainingSession(agent, max_steps=600) as session:
        await run_actors(session, partial(NotedEnv, tmp_path), 4, place=place, on_step=kill_one)
    learned = [step.next_observation[0] for step in agent.experiences]
    assert len(learned) == len(set(learned)) == 600
    assert set(learned) <= set(noted_steps(tmp_path))
    place.close()
    workers = place.workers()
    assert sum(worker.incarnation for worker in workers) == 4
    n_lost = sum(worker.lost_steps for worker in workers)
    assert sum(worker.steps for worker in workers) + n_lost == len(noted_steps(tmp_path))
    assert n_lost <= 2 * 2 * 128


async def test_a_worker_without_room_waits_while_others_play_and_joins(
    cluster: Cluster, tmp_path: Path
) -> None:
    class Holder:
        def hold(self) -> None: ...

    n_cpus = await anyio.to_thread.run_sync(lambda: sum(node.n_cpus for node in cluster.nodes()))
    holder = ray.remote(num_cpus=n_cpus - 1)(Holder).remote()
    await anyio.to_thread.run_sync(ray.get, holder.hold.remote())
    waited_for: list[str] = []

    async def free_the_room(step: StepMetrics) -> None:
        workers = place.workers()
        if not waited_for:
            waited_for.extend(worker.why for worker in workers if worker.state == "waiting" and worker.why)
            if waited_for:
                ray.kill(holder)
        if waited_for and all(worker.steps for worker in workers):
            tasks.cancel_scope.cancel()

    with RayPlace(cluster, envs_per_worker=1) as place:
        async with TrainingSession(PortableAgent()) as session, anyio.create_task_group() as tasks:
            await run_actors(session, partial(NotedEnv, tmp_path), 2, place=place, on_step=free_the_room)
    assert re.match(r"(1 worker waits|2 workers wait) for 1 CPU each; free CPUs: 0 of ", waited_for[0])


async def test_a_factory_that_workers_cannot_import_is_refused_with_their_traceback(
    place: RayPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "only_here.py"
    module.write_text("from stoker.testing import ChainEnv as factory\nclass Env(factory): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    factory = importlib.import_module("only_here").Env
    module.unlink()
    async with TrainingSession(PortableAgent()) as session:
        with pytest.raises(ConfigError, match="ModuleNotFoundError: No module named 'only_here'") as refusal:
            await run_actors(session, factory, 4, place=place)
    assert "Traceback" in refusal.value.__notes__[0]
    assert [worker.incarnation for worker in place.workers()] == [1, 1]


@pytest.mark.faults
async def test_environments_that_kill_their_process_end_the_training_after_a_few(place: RayPlace) -> None:
    async with TrainingSession(PortableAgent()) as session:
        with pytest.raises(
            ConfigError, match="5 processes in a row have ended before they had played a step"
        ):
            await run_actors(session, os.abort, 2, place=place)
    assert [worker.incarnation for worker in place.workers()] == [5]
