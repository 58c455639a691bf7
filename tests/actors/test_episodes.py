"""How often an environment may fail: a table against a fake clock."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.actors.episodes import FailureCount, FailureLimit
from stoker.errors import ActorFailed, ConfigError, UnexpectedExit

CAUSE = RuntimeError("simulator crashed")


# limit, when the failures happen (s), the pauses that follow (s); one pause fewer: the last is one too many
CASES: list[tuple[str, dict[str, Any], list[float], list[float]]] = [
    ("the first ends it", {"failures": 1}, [0], []),
    ("the third in a row ends it", {"failures": 3}, [0, 1, 2], [0.1, 0.2]),
    ("pauses double", {"failures": 6}, [0, 1, 2, 3, 4], [0.1, 0.2, 0.4, 0.8, 1.6]),
    (
        "up to the longest",
        {"failures": 9, "longest_delay_s": 0.5},
        [0, 1, 2, 3, 4],
        [0.1, 0.2, 0.4, 0.5, 0.5],
    ),
    (
        "old ones are forgotten",
        {"failures": 3, "window_s": 10.0},
        [0, 1, 11.5, 12, 30],
        [0.1, 0.2, 0.1, 0.2, 0.1],
    ),
    ("at the edge they count", {"failures": 3, "window_s": 10.0}, [0, 5, 10], [0.1, 0.2]),
    ("just beyond it not", {"failures": 3, "window_s": 10.0}, [0, 5, 10.001, 16], [0.1, 0.2, 0.2, 0.2]),
    ("rare failures never end it", {"failures": 2, "window_s": 1.0}, [0, 2, 4, 6, 8], [0.1] * 5),
    ("without pauses", {"failures": 4, "first_delay_s": 0.0}, [0, 0, 0], [0.0, 0.0, 0.0]),
]


@pytest.mark.parametrize(
    ("limit", "times", "pauses"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_failures_against_a_limit(limit: dict[str, Any], times: list[float], pauses: list[float]) -> None:
    clock = iter(times)
    count = FailureCount("robot", FailureLimit(**limit), lambda: next(clock))
    assert [count.add(CAUSE) for _ in pauses] == pytest.approx(pauses)
    if len(pauses) < len(times):
        with pytest.raises(
            ActorFailed,
            match=r"^actor 'robot': its environment failed (\d+ times within .* s, at last )?with Run",
        ) as caught:
            count.add(CAUSE)
        assert caught.value.__cause__ is CAUSE
        assert caught.value.failures == FailureLimit(**limit).failures
        assert caught.value.actor_id == "robot"
        assert "RuntimeError: simulator crashed" in str(caught.value)


def test_an_environment_that_wants_to_end_the_process_gets_no_other_try() -> None:
    count = FailureCount("robot", FailureLimit(failures=1000))
    cause = UnexpectedExit("env.step raised SystemExit(0)")
    with pytest.raises(ActorFailed, match="actor 'robot': .* env.step raised SystemExit") as caught:
        count.add(cause)
    assert caught.value.__cause__ is cause


def test_limits_that_cannot_be_used_are_refused() -> None:
    for settings, message in [
        ({"failures": 0}, "failures=0"),
        ({"failures": -1}, "failures=-1"),
        ({"window_s": 0.0}, "window_s=0"),
        ({"window_s": float("nan")}, "window_s=nan"),
        ({"first_delay_s": -0.1}, "first_delay_s=-0.1"),
        ({"longest_delay_s": -1.0}, "longest_delay_s=-1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            FailureLimit(**settings)  # type: ignore[arg-type]
