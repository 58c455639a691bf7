from __future__ import annotations

import math

import msgspec
import pytest

from stoker.stats import EvalReport


@pytest.mark.parametrize(
    ("report", "printed"),
    [
        (
            EvalReport(100_000, 20, {"episode_reward": 487.25, "episode_length": 487.0, "epsilon": 0.05}),
            "=== Eval @ step 100000 (20 episodes) ===\nepisode_length: 487.000\nepisode_reward: 487.250\n"
            "epsilon: 0.050",
        ),
        (EvalReport(0, 0, {}), "=== Eval @ step 0 (0 episodes) ==="),
        (
            EvalReport(1, 1, {"b": math.nan, "a": -0.00049}),
            "=== Eval @ step 1 (1 episodes) ===\na: -0.000\nb: nan",
        ),
    ],
)
def test_print(report: EvalReport, printed: str) -> None:
    assert str(report) == printed


def test_json_round_trip() -> None:
    report = EvalReport(5, 2, {"a": 1.0})
    row = msgspec.json.encode(report)
    assert row == b'{"total_steps":5,"n_episodes":2,"stats":{"a":1.0}}'
    assert msgspec.json.decode(row, type=EvalReport) == report
