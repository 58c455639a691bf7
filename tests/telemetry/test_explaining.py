"""What limits a training, from the shares alone; a trace of windows; profiles from records."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stoker.telemetry import Profile, chrome_trace, explained, profile_of_records


def profile(loop: dict[str, float], learner: dict[str, float], **more: Any) -> Profile:
    """A profile of 10 s at 1,000 steps/s; shares that are not given are waiting."""
    shares = {
        "loop": {"waiting": 1 - sum(loop.values()), **loop},
        "learner": {"waiting": 1 - sum(learner.values()), **learner},
        "inference": {"idle": 1.0},
        "writer": {"idle": 1.0},
        **more.pop("shares", {}),
    }
    return Profile(seconds=10, shares=shares, steps_per_s=1000, **more)


BUSY = {"learning": 0.9, "observing": 0.07}
LOCK = {"lock_held": 0.9, "other_cpus": 1.0, "cpus": 1.5}


@pytest.mark.parametrize(
    ("found", "culprit", "speedup"),
    [
        (profile({"running": 0.55}, BUSY), "learner", 1 / 0.55),
        (profile({"running": 0.1}, BUSY), "learner", 2 / 0.97),
        (profile({"running": 0.1}, {"learning": 0.6, "handover": 0.3}), "learner", 1 / 0.6),
        (profile({"running": 0.9}, {"learning": 0.3}), "event loop", 1 / 0.45),
        (profile({"blocked": 0.8, "running": 0.1}, {"learning": 0.2}), "event loop", 1 / 0.45),
        (profile({"running": 0.1}, BUSY, **LOCK), "interpreter lock", None),
        # The same thread, without the lock: numpy releases it.
        (profile({"running": 0.1}, BUSY, **{**LOCK, "lock_held": 0.05}), "learner", 2 / 0.97),
        (
            profile(
                {"running": 0.1},
                {"learning": 0.2},
                actors=8,
                shares={"actors": {"stepping": 0.9, "acting": 0.1}},
            ),
            "environments",
            2.0,
        ),
        (
            profile(
                {"running": 0.1},
                {"learning": 0.7},
                actors=8,
                shares={"actors": {"stepping": 0.9, "acting": 0.1}},
            ),
            "environments",
            1 / 0.7,
        ),
        (
            profile(
                {"running": 0.85},
                {"learning": 0.2},
                actors=8,
                shares={"actors": {"stepping": 0.1, "acting": 0.9}},
            ),
            "environments",
            1 / 0.425,
        ),
        (
            profile(
                {"running": 0.1},
                {"learning": 0.2},
                actors=1,
                shares={"actors": {"stepping": 0.9, "acting": 0.1}},
            ),
            "actors",
            2.0,
        ),
        (
            profile({"running": 0.1}, {"saving": 0.5, "learning": 0.3}, shares={"writer": {"idle": 0.2}}),
            "disk",
            1 / 0.3,
        ),
        (profile({}, {}), "none", None),
    ],
)
def test_the_part_that_limits_a_training_and_what_it_gives(
    found: Profile, culprit: str, speedup: float | None
) -> None:
    bottleneck = explained(found).bottleneck
    assert bottleneck.culprit == culprit
    assert bottleneck.speedup == (None if speedup is None else pytest.approx(speedup))


def test_too_few_processors_are_named_beside_the_bottleneck() -> None:
    found = explained(profile({"starved": 0.5, "running": 0.1}, BUSY, cpus=0.6))
    assert [finding.culprit for finding in found.findings] == ["learner", "processors"]


def test_a_verdict_in_sentences() -> None:
    text = str(explained(profile({"running": 0.55}, BUSY)))
    assert "The learner is the bottleneck: it is busy 97 % of the time" in text
    assert "(learning 90 %, observing 7.0 %)" in text
    assert "at most 1.8x, for the event loop is busy 55 %; more environments give nothing" in text
    assert "--opt-interval" in text
    offline = [
        str(explained(profile({"running": share}, one), offline=True))
        for share, one in ((0.5, BUSY), (0, {}))
    ]
    for word in ("--opt-interval", "--num-envs", "environments", "0 steps/s"):
        assert not [text for text in offline if word in text]
    assert "--opt-interval" in text


def test_records_give_the_profile_that_they_were_made_of() -> None:
    found = profile({"running": 0.55}, BUSY, queue_fill=0.5, queue_capacity=16.0, actors=3.0)
    record = {**found.metrics(), "time/fps": 1000.0, "time/total_timesteps": 5.0, "train/loss": 1.0}
    again = profile_of_records([{"eval/mean_reward": 1.0}, record])
    assert again is not None
    assert {part: pytest.approx(shares) for part, shares in again.shares.items()} == found.shares
    assert msgspec.structs.replace(again, shares=found.shares) == found
    assert profile_of_records([{"eval/mean_reward": 1.0}]) is None


def test_records_count_by_the_length_of_their_periods() -> None:
    short, long = profile({"running": 1.0}, {}), profile({}, {})
    first = {**msgspec.structs.replace(short, seconds=1).metrics(), "time/fps": 400.0}
    second = {**msgspec.structs.replace(long, seconds=3).metrics(), "time/fps": 4.0}
    found = profile_of_records([first, second])
    assert found is not None
    assert found.shares["loop"] == {"waiting": pytest.approx(0.75), "running": pytest.approx(0.25)}
    assert found.steps_per_s == pytest.approx(103)


def test_a_trace_joins_neighbors_of_one_state_and_counts_every_window() -> None:
    learning = profile({}, {"learning": 0.8})
    windows = [(0.0, learning), (10.0, learning), (20.0, profile({}, {"learning": 0.1})), (40.0, learning)]
    events = chrome_trace(windows, "cartpole")["traceEvents"]
    learner = next(event["tid"] for event in events if event["args"].get("name") == "learner")
    spans = [event for event in events if event["ph"] == "X" and event["tid"] == learner]
    assert [(span["name"], span["ts"], span["dur"]) for span in spans] == [
        ("learning", 0, 20e6),
        ("waiting", 20e6, 10e6),
        ("learning", 40e6, 10e6),
    ]
    assert spans[0]["args"] == {"seconds in it": pytest.approx(16)}
    shares = [event["args"] for event in events if event["ph"] == "C" and event["name"] == "learner %"]
    assert [share["learning"] for share in shares] == [80, 80, 10, 80]
