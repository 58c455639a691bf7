"""What a scrape of a real training holds: the run's own counters, and nothing that grows with the actors."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from scraping import Scrape, counters_that_fell, parsed, scraped, value

from stoker import EpisodeStatus, Experience, TrainingRun, TrainingSession, run_actors
from stoker.errors import InvalidExperience, MissingDependency, SessionClosed
from stoker.runs.metadata import read_metadata
from stoker.telemetry import Buckets, ServiceCounts
from stoker.telemetry.prometheus import Exposition
from stoker.testing import ChainEnv, FakeAgent

COUNTERS = {"total_steps": "stoker_env_steps_total", "total_episodes": "stoker_episodes_total"}


def step(actor_id: int | str = 0, reward: float = 1.0) -> Experience:
    return Experience(None, 0, reward, None, EpisodeStatus.CONTINUING, actor_id)


@pytest.mark.anyio
async def test_counters_never_fall_and_are_those_of_the_metadata_at_the_end_of_each_attempt(
    tmp_path: Path,
) -> None:
    scrapes: list[Scrape] = []
    run = await TrainingRun.create("counted", root=tmp_path)
    for max_steps in (200, 500):
        session = TrainingSession(
            FakeAgent(), run, max_steps=max_steps, checkpoint_freq=100, flush_interval_s=0.01
        )
        expose, ended = Exposition(session.telemetry), threading.Event()

        def scrape_on(expose: Exposition = expose, ended: threading.Event = ended) -> None:
            while not ended.wait(0.005):
                scrapes.append(scraped(expose))

        async with session:
            thread = threading.Thread(target=scrape_on)
            thread.start()
            await run_actors(session, ChainEnv, 4, seed=0)
        ended.set()
        thread.join()
        scrapes.append(scraped(expose))
        metadata = read_metadata(run.directory)
        assert metadata.total_steps == max_steps
        for field, name in COUNTERS.items():
            assert value(scrapes[-1], name) == getattr(metadata, field)
        assert value(scrapes[-1], "stoker_opt_steps_total") == session.opt_steps
        assert value(scrapes[-1], "stoker_checkpoints_total") > 1
        assert value(scrapes[-1], "stoker_session_running") == 0
        run = await TrainingRun.resume(run.directory)
    steps = [value(scrape, "stoker_env_steps_total") for scrape in scrapes]
    assert len({*steps}) > 3, "it was scraped on the way"
    assert steps == sorted(steps), "also from one attempt to the next"


@pytest.mark.anyio
async def test_no_counter_falls_while_a_training_runs() -> None:
    async with TrainingSession(FakeAgent(), max_steps=500, queue_capacity=8) as session:
        expose, fallen, ended = Exposition(session.telemetry), list[str](), threading.Event()

        def scrape_on() -> None:
            before = scraped(expose)
            while not ended.wait(0.005):
                now = scraped(expose)
                fallen.extend(counters_that_fell(before, now))
                before = now

        thread = threading.Thread(target=scrape_on)
        thread.start()
        await run_actors(session, ChainEnv, 16, seed=0)
        ended.set()
        thread.join()
        scrape = scraped(expose)
    assert fallen == []
    assert value(scrape, "stoker_act_seconds_count") == session.n_forward_passes
    assert value(scrape, "stoker_act_batch_size_bucket", le="+Inf") == session.n_forward_passes
    assert value(scrape, "stoker_act_batch_size_sum") >= 500
    assert value(scrape, "stoker_act_seconds_sum") > 0
    assert value(scrape, "stoker_observe_wait_seconds_count") > 0, "16 actors wait for a queue of 8"
    assert value(scrape, "stoker_busy_seconds_total", part="learner", state="observing") > 0


@pytest.mark.anyio
async def test_a_run_counts_what_a_kill_leaves(tmp_path: Path) -> None:
    run = await TrainingRun.create("durable", root=tmp_path)
    async with TrainingSession(FakeAgent(), run, flush_interval_s=3600) as session:
        for _ in range(50):
            await session.observe(step())
        await session.barrier()
        reading = session.telemetry()
        assert (session.total_steps, reading.total_steps, reading.total_opt_steps) == (50, 0, 0)
        assert reading.durable_lag_s is not None
        assert reading.durable_lag_s > 0
        await session.flush()
        reading = session.telemetry()
        assert (reading.total_steps, reading.total_opt_steps) == (50, session.opt_steps)
        assert reading.durable_lag_s == 0
        assert reading.commit_s.cumulative()[-1][1] == 1


@pytest.mark.anyio
async def test_how_much_actors_differ_is_aggregated_and_readings_have_each_of_them() -> None:
    n_actors, n_looked_at = 300, 100
    async with TrainingSession(FakeAgent(), opt_interval=0) as session:
        for actor_id in (*range(n_actors), 299):
            await session.observe(step(actor_id))
            await session.on_episode(float(actor_id), 1, EpisodeStatus.TRUNCATED, actor_id=actor_id)
        await session.barrier()
        scrape, readings = scraped(Exposition(session.telemetry)), session.readings()
    over = {
        name: value(scrape, "stoker_actor_episode_reward", statistic=name)
        for name in ("min", "median", "max")
    }
    assert over == {"min": n_actors - n_looked_at, "median": (200 + 299) / 2, "max": 299.0}
    assert value(scrape, "stoker_actor_episode_length", statistic="median") == 1.0
    speed = value(scrape, "stoker_actor_steps_per_second", statistic="max")
    assert speed == readings.actors[299].steps_per_s > 0
    assert list(readings.actors) == list(range(n_actors))
    last = readings.actors[299]
    assert (last.n_episodes, last.n_steps, last.mean_reward, last.max_reward) == (2, 2, 299.0, 299.0)
    assert readings.window.n_episodes == n_actors + 1
    assert readings.window.steps_per_s > 0


@pytest.mark.anyio
async def test_the_number_of_series_is_that_of_a_single_actor() -> None:
    series: dict[int, set[Any]] = {}
    for n_actors in (1, 10_000):
        async with TrainingSession(FakeAgent(), opt_interval=0) as session:
            for actor_id in range(n_actors):
                await session.observe(step(actor_id))
            await session.flush()
            scrape = scraped(Exposition(session.telemetry, ServiceCounts()))
            assert value(scrape, "stoker_actors", state="playing") == n_actors
            series[n_actors] = {*scrape}
    assert series[1] == series[10_000]
    assert len(series[1]) < 200


@pytest.mark.anyio
async def test_an_actor_is_in_one_state() -> None:
    async with TrainingSession(FakeAgent(), actor_timeout_s=1e-6) as session:
        for actor_id in range(3):
            await session.observe(step(actor_id))
        await session.on_episode(1.0, 1, EpisodeStatus.TERMINATED, actor_id=2)
        await session.flush()
        states = session.telemetry().actors
        assert states == {"idle": 1, "playing": 0, "acting": 0, "observing": 0, "silent": 2}


@pytest.mark.anyio
async def test_what_is_refused_is_counted_by_its_reason(tmp_path: Path) -> None:
    run = await TrainingRun.create("refused", root=tmp_path)
    async with TrainingSession(FakeAgent(), run, max_steps=1) as session:
        for _ in range(3):
            with pytest.raises(InvalidExperience):
                await session.observe(step(reward=float("nan")))
        for _ in range(3):
            await session.observe(step())
        scrape = scraped(Exposition(session.telemetry))
        assert value(scrape, "stoker_refused_total", reason="reward") == 3
        assert value(scrape, "stoker_refused_total", reason="after-end") == 2
    rows = (run.directory / "events.jsonl").read_text()
    assert '"field":"reward","count":3' in rows, "the event log counts what is new since its last row"


@pytest.mark.anyio
async def test_own_values_are_shown_up_to_a_hundred_names(caplog: pytest.LogCaptureFixture) -> None:
    async with TrainingSession(FakeAgent()) as session:
        session.store({"speed": 1.0, "note": "not a number"})
        session.store({"speed": 2.5, 'a "b"\n\udc80': float("nan")})
        for k in range(200):
            session.store({f"car {k}": k})
        session.store({"speed": 3.5})
        scrape = scraped(Exposition(session.telemetry))
    assert value(scrape, "stoker_user", name="speed") == 3.5
    assert sum(name == "stoker_user" for name, _ in scrape) == 100
    [warning] = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "'car 98'" in warning


@pytest.mark.anyio
async def test_a_session_that_is_not_open_has_no_metrics() -> None:
    session = TrainingSession(FakeAgent())
    with pytest.raises(SessionClosed):
        session.telemetry()


def test_a_service_is_shown_without_a_training() -> None:
    counts = ServiceCounts(lambda: {"connected": 2})
    counts.requests["/v1/step", 200] += 5
    counts.duplicates += 1
    counts.refused["gap"] += 2
    counts.swaps["taken"] += 1
    scrape = scraped(Exposition(None, counts))
    assert value(scrape, "stoker_service_requests_total", route="/v1/step", code="200") == 5
    assert value(scrape, "stoker_service_duplicates_total") == 1
    assert value(scrape, "stoker_refused_total", reason="gap") == 2
    assert value(scrape, "stoker_swaps_total", result="taken") == 1
    assert value(scrape, "stoker_service_actors", state="connected") == 2


def test_routes_and_reasons_beyond_the_usual_ones_are_pooled() -> None:
    counts = ServiceCounts()
    expose = Exposition(None, counts)
    before = scraped(expose)
    for k in range(1000):
        counts.requests[f"/{k}", 404] += 1
        counts.refused[f"reason {k}"] += 1
        scrape = scraped(expose) if k % 100 == 0 else before
        assert counters_that_fell(before, scrape) == []
        before = scrape
    scrape = scraped(expose)
    assert len(scrape) < 100
    assert value(scrape, "stoker_service_requests_total", route="other", code="") == 960
    assert value(scrape, "stoker_refused_total", reason="other") == 976


@pytest.mark.anyio
async def test_openmetrics_is_spoken_where_it_is_asked_for() -> None:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    async with TrainingSession(FakeAgent()) as session:
        body, content_type = Exposition(session.telemetry)("application/openmetrics-text;version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert "stoker_env_steps" in names


@pytest.mark.anyio
async def test_a_training_on_a_data_set_has_no_environment_steps() -> None:
    async with TrainingSession(FakeAgent(), offline=True, opt_interval=0) as session:
        await session.observe(step())
        await session.optimize(3)
        await session.flush()
        assert session.telemetry().total_steps == 3
        scrape = scraped(Exposition(session.telemetry))
        assert "give nothing" not in str(session.explain())
    assert value(scrape, "stoker_opt_steps_total") == 3
    assert not [series for series, _ in scrape if series.startswith(("stoker_env_steps", "stoker_episodes"))]


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingDependency, match=r"prometheus-client .* 'stoker\[prometheus\]'"):
        Exposition()


def test_a_value_is_counted_in_the_first_bucket_that_holds_it() -> None:
    found = Buckets((1.0, 2.0))
    for added in (0.5, 1.0, 1.5, 7.0):
        found.add(added)
    assert found.cumulative() == [(1.0, 2), (2.0, 3), (float("inf"), 4)]
    assert found.total == 10.0
    assert found.scaled(10).cumulative() == [(10.0, 2), (20.0, 3), (float("inf"), 4)]
    by_powers = Buckets.of_powers([1, 2, 3, 4, 5], (1, 3), 9.0)
    assert by_powers.cumulative() == [(2.0, 3), (8.0, 10), (float("inf"), 15)]


def test_a_counter_that_falls_is_found() -> None:
    high, low = parsed("a_total 2\nb 5\n"), parsed("a_total 1\nb 4\n")
    assert counters_that_fell(high, low) == ["a_total"]
    assert counters_that_fell(low, high) == []


@pytest.mark.anyio
async def test_the_series_of_several_policies_have_the_name_of_theirs() -> None:
    red, blue = TrainingSession(FakeAgent(), opt_interval=0), TrainingSession(FakeAgent())
    async with red, blue:
        for session, n_steps in ((red, 2), (blue, 3)):
            for actor_id in range(n_steps):
                await session.observe(step(actor_id))
            await session.barrier()
        scrape = scraped(Exposition({"red": red.telemetry, "blue": blue.telemetry, "later": lambda: None}))
        alone = scraped(Exposition(blue.telemetry))
    assert value(scrape, "stoker_env_steps_total", policy="red") == 2
    assert value(scrape, "stoker_env_steps_total", policy="blue") == 3
    assert {labels for _, labels in scrape if ("policy", "later") in labels} == set()
    of_blue = {
        (name, labels - {("policy", "blue")}) for name, labels in scrape if ("policy", "blue") in labels
    }
    assert of_blue == set(alone)
    assert all(any(key == "policy" for key, _ in labels) for _, labels in scrape)
