"""Numbers that documents give for limits and times of the code are those of the code."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

SAID: list[tuple[str, str, dict[str, Any]]] = [
    (
        "docs/environments.md",
        "three of the last 20 steps take longer than 2 ms each, and than 40 ms together",
        {"envs.stepping:SLOW_STEPS": 3, "envs.stepping:SLOW_WINDOW": 20, "envs.stepping:SLOW_STEP_S": 2e-3},
    ),
    (
        "docs/environments.md",
        "batches of at most 16 steps or 20 ms",
        {"actors.worker:Assignment.batch_steps": 16, "actors.worker:Assignment.max_delay_s": 0.02},
    ),
    (
        "docs/promises.md",
        "loses up to 16 steps that it had not sent",
        {"actors.worker:Assignment.batch_steps": 16},
    ),
    ("docs/cluster.md", "its credit, 128 steps", {"actors.worker:Assignment.window_steps": 64}),  # twice that
    ("docs/scaling.md", "`n * 64 / (20 ms + round trip)`", {"actors.worker:Assignment.window_steps": 64}),
    (
        "docs/cluster.md",
        "when five starts in a row brought it no further. Between two starts there is 1 s, and twice as much "
        "each time the last one brought nothing, up to a minute",
        {
            "distributed.supervising:_MOST_RESTARTS": 5,
            "distributed.supervising:_LEAST_DELAY_S": 1.0,
            "distributed.supervising:_MOST_DELAY_S": 60.0,
        },
    ),
    ("docs/cluster.md", "begin 15 s after the old one's last sign of life", {"runs.lease:LEASE_S": 15.0}),
    (
        "docs/runs.md",
        "a counter that goes up every 3 s. Who finds a lease that was not given back watches the counter "
        "for 15 s",
        {"runs.lease:LEASE_S": 15.0, "runs.lease:_RENEWALS": 5},
    ),
    (
        "docs/runs.md",
        "durable within half a second (`flush_interval_s`), or earlier if 4 MiB are waiting",
        {
            "session.config:SessionConfig.flush_interval_s": 0.5,
            "session.config:SessionConfig.flush_bytes": 4 << 20,
        },
    ),
    (
        "docs/runs.md",
        "A segment is closed at 16 MiB",
        {"session.config:SessionConfig.journal_segment_bytes": 16 << 20},
    ),
    (
        "docs/runs.md",
        "lines of more than 8 MiB, and extras and metrics beyond the first 1,000 names",
        {"writer.reading:_LONGEST_BYTES": 8 << 20, "runs.tables:_MOST_NAMES": 1000},
    ),
    (
        "docs/runs.md",
        "rewritten at most once a second (`metadata_interval_s`)",
        {"session.config:SessionConfig.metadata_interval_s": 1.0},
    ),
    ("docs/runs.md", "the first 60 events within a minute", {"session.eventlog:EventLimit.most": 60}),
    (
        "docs/architecture.md",
        "at most 60 events of each kind a minute",
        {"session.eventlog:EventLimit.most": 60},
    ),
    ("docs/architecture.md", "directly from the queue, for up to 5 ms", {"session.engine:AWAY_S": 5e-3}),
    ("docs/architecture.md", "if it is short (below 2 ms)", {"session.acting:SLOW_PASS_S": 2e-3}),
    ("docs/promises.md", "open decisions of 10,000 actors", {"lru:MAX_ACTORS": 10_000}),
    ("docs/services.md", "the 10,000 ids that ended an episode last", {"lru:MAX_ACTORS": 10_000}),
    (
        "docs/services.md",
        "the service keeps numbers for 4,096 actors at a time",
        {"service.limits:Limits.actors": 4096},
    ),
    ("docs/services.md", "(300 s): `Limits(", {"service.limits:Limits.actor_timeout_s": 300.0}),
    (
        "docs/serving.md",
        "`--max-message-bytes` (1 MiB), 1,024 records, 16 levels",
        {
            "service.limits:Limits.message_bytes": 1 << 20,
            "service.limits:Limits.records": 1024,
            "service.limits:Limits.depth": 16,
        },
    ),
    (
        "docs/serving.md",
        "| 64 of an actor, 1,024 in all |",
        {"service.limits:Limits.credit_per_actor": 64, "service.limits:Limits.credit": 1024},
    ),
    (
        "docs/serving.md",
        "| a first message, a head, a body | 5 s, 10 s, 30 s |",
        {
            "service.limits:Limits.hello_s": 5.0,
            "service.limits:Limits.head_s": 10.0,
            "service.limits:Limits.body_s": 30.0,
        },
    ),
    (
        "docs/serving.md",
        "| a client that does not read its answers | 10 s |",
        {"service.limits:Limits.send_s": 10.0},
    ),
    ("docs/clients.md", "at most 4,096 per actor", {"client.delivery:_MOST_KEPT": 4096}),
    (
        "docs/dashboard.md",
        "a curve keeps at most 2,000 points",
        {"dashboard.report:_MOST_POINTS": 2000},
    ),
    (
        "docs/dashboard.md",
        "newest 300, the best 100 and the worst 100 of each kind, of the events the newest 500",
        {"dashboard.report:_NEWEST": 300, "dashboard.report:_BEST": 100, "dashboard.report:_EVENTS": 500},
    ),
    ("docs/dashboard.md", "A report holds up to 200 runs", {"dashboard.report:MOST_RUNS": 200}),
    (
        "docs/metrics.md",
        "at most 50 of each per second",
        {"telemetry.opentelemetry:_INTERVAL_NS": 20_000_000},
    ),
    (
        "docs/explain.md",
        "writes the last minute, in windows of a quarter of a second",
        {"telemetry.clocks:HISTORY_S": 60.0, "telemetry.sampling:_NOTES_S": 0.25},
    ),
    (
        "docs/policies.md",
        "actions must be equal, numbers within 1e-5",
        {"policies.exporting:_TOLERANCE": 1e-5, "policies.exporting:_N_VECTORS": 256},
    ),
    (
        "docs/faq.md",
        "checks it against the agent on 256 observations",
        {"policies.exporting:_N_VECTORS": 256},
    ),
    ("docs/faq.md", "From 16 environments on", {"trainer.vectorizing:LEAST_ENVS": 16}),
    (
        "docs/faq.md",
        "an environment that is silent for 60 s is named",
        {
            "session.config:SessionConfig.actor_timeout_s": 60.0,
            "session.config:SessionConfig.stall_timeout_s": 120.0,
        },
    ),
    (
        "docs/agents.md",
        "takes 2,048 steps of each environment if the training then has 32 updates or more",
        {"trainer.durations:_LEAST_ROLLOUT": 2048, "trainer.durations:_LEAST_UPDATES": 32},
    ),
    ("docs/training.md", "ten networks learn at once", {"policies.fqe:_MEMBERS": 10}),
    (
        "docs/many-agents.md",
        "`R += 16 (S - E)`; an opponent keeps the rating of the learner at its step, and the first one has "
        "1000",
        {"multi.standings:ELO_K": 16.0, "multi.standings:FIRST_RATING": 1000.0},
    ),
    ("docs/many-agents.md", "the share of the score in the last 50 games", {"multi.standings:_RECENT": 50}),
    (
        "docs/recorders.md",
        "Params longer than 500 characters are cut",
        {"recorders.mlflow:_LONGEST_PARAM": 500},
    ),
]


def value_of(name: str) -> Any:
    """A constant of a module, the default of a struct's field, or that of a constructor's argument."""
    module, _, path = name.partition(":")
    found = import_module(f"stoker.{module}")
    owner, _, field = path.partition(".")
    thing = getattr(found, owner)
    return inspect.signature(thing).parameters[field].default if field else thing


@pytest.mark.parametrize(("page", "text", "values"), SAID, ids=lambda value: str(value)[:40])
def test_a_number_of_a_page_is_that_of_the_code(page: str, text: str, values: dict[str, Any]) -> None:
    assert text in " ".join((ROOT / page).read_text().split())
    assert {name: value_of(name) for name in values} == values
