"""What a session shows of the workers of a cluster: counts by node never fall, and changes are events."""

from __future__ import annotations

from pathlib import Path

import pytest
from reported import status_of
from scraping import scraped, value

from stoker import DQN, DQNConfig, TrainingRun, TrainingSession
from stoker.runs.events import WorkersChanged
from stoker.session.workers import WorkerReports
from stoker.telemetry.prometheus import Exposition
from stoker.testing import ChainEnv


def test_counts_stay_with_the_node_where_they_were_made() -> None:
    reports, workers = WorkerReports(), [status_of(0, steps=10), status_of(1, node="b", steps=5)]
    reports.add(lambda: tuple(workers))
    a, b = reports.by_node()
    assert (a.node, a.playing, a.steps, b.node, b.steps) == ("a", 1, 10, "b", 5)

    # Worker 0 dies on a, and waits: what it lost was on a.
    workers[0] = status_of(0, node="", steps=10, lost_steps=3, incarnation=2, state="waiting", why="1 CPU")
    a, b, nowhere = reports.by_node()
    assert (a.playing, a.steps, a.lost_steps, a.restarts) == (0, 10, 3, 1)
    assert (nowhere.node, nowhere.waiting, nowhere.why) == ("", 1, "1 CPU")
    assert reports.waits() == ["1 of 2 workers wait for a place on the cluster: 1 CPU"]

    # It goes on on b.
    workers[0] = status_of(0, node="b", steps=10, lost_steps=3, incarnation=2)
    reports.by_node()
    workers[0] = status_of(0, node="b", steps=17, lost_steps=3, incarnation=2)
    a, b = reports.by_node()
    assert (a.steps, a.lost_steps, b.playing, b.steps, b.lost_steps) == (10, 3, 2, 12, 0)
    assert reports.waits() == []


@pytest.mark.anyio
async def test_they_are_in_health_readings_metrics_and_events(tmp_path: Path) -> None:
    env = ChainEnv()
    agent = DQN(env.observation_space, env.action_space, DQNConfig(hidden_sizes=(8,)), seed=0)
    run = await TrainingRun.create("workers", root=tmp_path)
    workers = [status_of(0, steps=10), status_of(1, node="", state="waiting", why="1 CPU")]
    async with TrainingSession(agent, run) as session:
        session.report_workers(lambda: tuple(workers))
        assert session.health().workers == session.readings().workers == tuple(workers)
        assert session.health().waits == ("1 of 2 workers wait for a place on the cluster: 1 CPU",)
        scrape = scraped(Exposition(session.telemetry))
        assert value(scrape, "stoker_worker_steps_total", node="a") == 10
        assert value(scrape, "stoker_workers", node="a", state="playing") == 1
        assert value(scrape, "stoker_workers", node="", state="waiting") == 1
        workers[1] = status_of(1, node="b", lost_steps=2, incarnation=2)
    rows = [row.event for row in await run.read_events() if row.kind == "workers_changed"]
    last = {row.node: row for row in rows if isinstance(row, WorkersChanged)}
    assert (last["b"].playing, last["b"].lost_steps, last["a"].steps) == (1, 2, 10)
    assert last["a"].sentence == "workers on a: 1 playing"


@pytest.mark.anyio
async def test_beyond_the_first_nodes_series_are_pooled() -> None:
    env = ChainEnv()
    agent = DQN(env.observation_space, env.action_space, DQNConfig(hidden_sizes=(8,)), seed=0)
    async with TrainingSession(agent) as session:
        session.report_workers(lambda: tuple(status_of(k, node=f"node{k}", steps=1) for k in range(100)))
        scrape = scraped(Exposition(session.telemetry))
    assert value(scrape, "stoker_worker_steps_total", node="other") == 92
    assert len(scrape) < 200
