"""Actors on a real Ray cluster: what they play arrives once, whatever dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from portable_parts import PortableAgent
from ray_parts import NotedEnv, noted_steps, pids_in, started_cluster

from stoker import TrainingSession, run_actors
from stoker.actors import StepMetrics
from stoker.distributed import Cluster, RayPlace

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
    assert n_lost <= 2 * 2 * 64
