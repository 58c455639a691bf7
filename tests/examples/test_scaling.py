"""The model of docs/scaling.md: what can be said of it without measuring anything."""

from __future__ import annotations

import dataclasses

import pytest
from benchmarks.scaling_model import Costs, Layout, closed_queue, predict
from benchmarks.scaling_simulation import simulate

COSTS = Costs(
    step_s=120e-6, message_s=20e-6, update_s=250e-6, publish_s=300e-6, send_s=60e-6, turn_s=100e-6,
    load_s=15e-6, wait_s=0.0105, step_bytes=79.0, weights_bytes=3e5, journal_bytes=60.0,
)  # fmt: skip
LAYOUT = Layout(
    n_envs=40, n_workers=4, updates_per_step=0.25, sync_interval=100, per_node=True, learner_cores=16.0
)


def test_a_closed_queue_has_the_throughput_of_the_textbook() -> None:
    assert closed_queue(1, 2.0, [1.0]) == pytest.approx(1 / 3), "one customer never waits"
    assert closed_queue(2, 0.0, [1.0, 1.0]) == pytest.approx(2 / 3), "two queues in a ring: n / (n + k - 1)"
    assert closed_queue(500, 2.0, [0.5, 1.0]) == pytest.approx(1.0), "many: the slower queue is the limit"


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, "environments"),
        ({"n_envs": 200, "n_workers": 20}, "learner"),
        ({"n_envs": 200, "n_workers": 20, "sync_interval": 1}, "learner"),
        ({"latency_s": 1.0}, "credit"),
        ({"network_bytes_per_s": 1e5}, "network"),
    ],
)
def test_the_model_and_the_simulation_agree(changes: dict[str, float], first: str) -> None:
    layout = dataclasses.replace(LAYOUT, **changes)
    said = predict(COSTS, layout)
    assert said.first == first
    found = simulate(COSTS, layout, seconds=8.0 if first == "credit" else 3.0)
    assert said.steps_per_s == pytest.approx(found.steps_per_s, rel=0.1)
