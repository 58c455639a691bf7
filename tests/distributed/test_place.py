"""Actors on a real Ray cluster: what they play arrives once, whatever dies."""

from __future__ import annotations

import importlib
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import ray
from portable_parts import PortableAgent, Right
from ray_parts import NotedEnv, noted_steps, noted_vector, pids_in, started_cluster

from stoker import Experience, Trainer, TrainerConfig, TrainingSession, run_actors, run_vector_actors
from stoker.actors import StepMetrics
from stoker.distributed import Cluster, RayPlace
from stoker.errors import ConfigError
from stoker.trainer import Progress

on_asyncio = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"], indirect=True
)
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300, method="thread")]


def holding(n_cpus: float) -> Any:
    """An actor that takes CPUs of the cluster. Blocks until it has them."""

    class Holder:  # sent by value, as the cluster cannot import this module
        def hold(self) -> None: ...

    holder = ray.remote(num_cpus=n_cpus)(Holder).remote()
    ray.get(holder.hold.remote())
    return holder


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
    n_noted = len(noted_steps(tmp_path))  # a kill may come between an environment's note and its return
    assert n_noted - 2 <= sum(worker.steps for worker in workers) + n_lost <= n_noted
    assert n_lost <= 2 * 2 * 128


class HeavyAgent(PortableAgent):
    """Has weights that are a megabyte large."""

    def policy(self) -> Any:
        return Right(self.opts, width=360)


@pytest.mark.parametrize("kind", [PortableAgent, HeavyAgent])
async def test_small_and_large_weights_reach_the_workers(
    place: RayPlace, tmp_path: Path, kind: type[PortableAgent]
) -> None:
    agent = kind()
    async with TrainingSession(agent, max_steps=400) as session:
        await run_actors(session, partial(NotedEnv, tmp_path), 4, place=place)
    acted_with = [(step.policy_version, step.policy_extras["opts"]) for step in agent.experiences]
    assert all(version == opts for version, opts in acted_with), "these weights chose that action"
    assert acted_with[-1][0] > 100, "new ones have come meanwhile"


class KillingAgent(PortableAgent):
    """Kills a process that plays once it has learned so many steps, and another one after so many more."""

    def __init__(self, notes: Path, n_steps: int, n_kills: int) -> None:
        super().__init__()
        self._notes = notes
        self._n_steps = n_steps
        self._n_kills = n_kills
        self.killed: set[int] = set()

    def observe(self, experiences: Sequence[Experience]) -> None:
        super().observe(experiences)
        n_killed = len(self.killed)
        if n_killed < self._n_kills and len(self.experiences) >= self._n_steps * (n_killed + 1):
            os.kill(pid := min(pids_in(self._notes) - self.killed), signal.SIGKILL)
            self.killed.add(pid)


@on_asyncio
async def test_vector_environments_of_killed_workers_are_played_by_others(
    cluster: Cluster, tmp_path: Path
) -> None:
    agent = KillingAgent(tmp_path, 100, 2)
    with RayPlace(cluster, envs_per_worker=2) as place:
        async with TrainingSession(agent, max_steps=600) as session:
            make = partial(noted_vector, tmp_path, 2)
            await run_vector_actors(session, make, range(4), place=place, workers=2)
    assert len(agent.killed) == 2
    learned = [step.next_observation[0] for step in agent.experiences]
    assert len(learned) == len(set(learned)) == 600
    assert {step.actor_id for step in agent.experiences} == {0, 1, 2, 3}
    assert set(learned) <= set(noted_steps(tmp_path))
    workers = place.workers()
    assert len([worker for worker in workers if worker.steps]) == 2
    assert sum(worker.incarnation for worker in workers) == 2 + 2
    known = sum(worker.steps + worker.lost_steps for worker in workers)
    # A process may die after the first of its two environments has done a step of a round.
    assert 0 <= len(noted_steps(tmp_path)) - known <= 2


@on_asyncio
async def test_no_worker_plays_before_the_least_number_has_started(cluster: Cluster, tmp_path: Path) -> None:
    n_cpus = await anyio.to_thread.run_sync(lambda: sum(node.n_cpus for node in cluster.nodes()))
    holder = await anyio.to_thread.run_sync(holding, n_cpus - 1)
    seen: list[int] = []

    def look(session: TrainingSession) -> None:
        while sum(bool(worker.node) for worker in session.health().workers) != 1:
            time.sleep(0.05)
        # Whatever the first worker was sent is done when a process that is started now answers.
        later = holding(0)
        seen.append(len(pids_in(tmp_path)))
        ray.kill(later)
        ray.kill(holder)

    async def look_aside(progress: Progress) -> None:
        await anyio.to_thread.run_sync(look, progress.session)

    config = TrainerConfig(
        actors="ray", cluster=cluster.address, workers="2..3", envs_per_worker=1, max_steps=300
    )
    agent = PortableAgent()
    result = await Trainer(agent, partial(NotedEnv, tmp_path), config).train(watch=look_aside)
    assert seen == [0]
    assert result.total_steps == 300
    assert len({step.actor_id for step in agent.experiences}) >= 2


async def test_a_worker_without_room_waits_while_others_play_and_joins(
    cluster: Cluster, tmp_path: Path
) -> None:
    n_cpus = await anyio.to_thread.run_sync(lambda: sum(node.n_cpus for node in cluster.nodes()))
    holder = await anyio.to_thread.run_sync(holding, n_cpus - 1)
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
