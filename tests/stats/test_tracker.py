from __future__ import annotations

import io
import math
import statistics
import threading
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from stoker.errors import ConfigError
from stoker.stats import (
    EpisodeRecord,
    Last,
    Max,
    Mean,
    Min,
    RollingMean,
    StatsTracker,
    Std,
    WindowStats,
    extra,
    length,
    total_reward,
)
from stoker.types import ActorId, EpisodeStatus

NAN = math.nan

actor_ids = st.one_of(st.integers(0, 3), st.sampled_from(["0", "1", "a"]))
episodes = st.lists(st.tuples(actor_ids, st.floats(-1e6, 1e6), st.integers(0, 500)), max_size=40)


def record(reward: float, steps: int = 1, **extras: float) -> EpisodeRecord:
    return EpisodeRecord(reward, steps, EpisodeStatus.TERMINATED, extras)


def every_stat() -> StatsTracker:
    return (
        StatsTracker(window=3)
        .with_stat("best", total_reward, Max())
        .with_stat("worst", total_reward, Min())
        .with_stat("spread", total_reward, Std())
        .with_stat("recent_length", length, RollingMean(2))
        .with_stat("epsilon", extra("epsilon"), Last())
    )


def reloaded(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class Count:
    """An aggregator of a user's own, without state."""

    def __init__(self) -> None:
        self.n = 0

    def update(self, value: float) -> None:
        assert type(value) is float
        self.n += 1

    def value(self) -> float:
        return float(self.n)

    def reset(self) -> None:
        self.n = 0


def test_default_stats() -> None:
    stats = StatsTracker()
    assert repr(stats.summary()) == repr({"episode_reward": NAN, "episode_length": NAN})
    stats.update(record(10.0, 4))
    stats.update(record(20.0, 8))
    assert stats.summary() == {"episode_reward": 15.0, "episode_length": 6.0}


def test_empty_tracks_nothing_but_the_window() -> None:
    stats = StatsTracker.empty(window=1)
    stats.update(record(1.0, 3))
    stats.update(record(5.0, 7))
    assert stats.summary() == {}
    assert stats.window() == WindowStats(2, 5.0, 5.0, 5.0, 7.0, 10)


def test_builder_chains_and_each_stat_has_its_source_and_aggregator() -> None:
    stats = every_stat()
    for reward, steps, epsilon in [(4.0, 10, 0.9), (8.0, 20, 0.8), (0.0, 40, 0.7)]:
        stats.update(record(reward, steps, epsilon=epsilon))
    assert stats.summary() == {
        "episode_reward": 4.0,
        "episode_length": pytest.approx(70 / 3),
        "best": 8.0,
        "worst": 0.0,
        "spread": pytest.approx(math.sqrt(32 / 3)),
        "recent_length": 30.0,
        "epsilon": 0.7,
    }


def test_absent_or_not_finite_extra_is_skipped() -> None:
    stats = (
        StatsTracker.empty()
        .with_stat("mean", extra("loss"), Mean())
        .with_stat("std", extra("loss"), Std())
        .with_stat("max", extra("loss"), Max())
        .with_stat("last", extra("loss"), Last())
    )
    for loss in (None, 1.0, NAN, math.inf, 3.0, -math.inf):
        stats.update(record(0.0, 1, **({} if loss is None else {"loss": loss})))
    assert stats.summary() == {"mean": 2.0, "std": 1.0, "max": 3.0, "last": 3.0}
    assert stats.window().n_episodes == 6


def test_window_forgets_but_its_count_does_not() -> None:
    stats = StatsTracker(window=2)
    assert repr(stats.window()) == repr(WindowStats(0, NAN, NAN, NAN, NAN))
    seen: list[WindowStats] = []
    for reward, steps in [(10.0, 1), (-4.0, 3), (2.0, 5)]:
        stats.update(record(reward, steps))
        seen.append(stats.window())
    assert seen == [
        WindowStats(1, 10.0, 10.0, 10.0, 1.0, 1),
        WindowStats(2, 3.0, 10.0, -4.0, 2.0, 4),
        WindowStats(3, -1.0, 2.0, -4.0, 4.0, 9),
    ]


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(-1000, 1000), st.integers(0, 1000)), min_size=1))
def test_window_is_that_of_the_last_episodes(size: int, played: list[tuple[int, int]]) -> None:
    stats = StatsTracker(window=size)
    for reward, steps in played:
        stats.update(record(reward, steps))
    rewards, lengths = zip(*played[-size:], strict=True)
    assert stats.window() == WindowStats(
        len(played),
        statistics.fmean(rewards),
        max(rewards),
        min(rewards),
        statistics.fmean(lengths),
        sum(steps for _, steps in played),
    )


def test_speeds_are_those_of_the_window_and_of_timed_episodes() -> None:
    stats = StatsTracker(window=3)
    for number, (actor_id, at) in enumerate([("a", 1.0), ("b", 2.0), ("a", 3.0), ("b", 6.0), ("a", 5.0)]):
        stats.update(record(0.0, 10 * number), actor_id, at)
    assert stats.window("a").steps_per_s == (20 + 40) / (5.0 - 1.0)
    assert stats.window("b").steps_per_s == 30 / (6.0 - 2.0)
    assert stats.window().steps_per_s == (30 + 40) / (5.0 - 3.0)
    assert stats.windows() == {"b": stats.window("b"), "a": stats.window("a")}
    assert stats.windows(1) == {"a": stats.window("a")}
    stats.restart_speeds()
    stats.update(record(0.0, 7), "a", 8.0)
    stats.update(record(0.0, 9), "a")  # not timed
    assert stats.window("a").steps_per_s == stats.window().steps_per_s == 0.0
    stats.update(record(0.0, 6), "a", 10.0)
    assert stats.window("a").steps_per_s == 3.0
    assert stats.window("a").n_steps == 82
    assert StatsTracker().windows() == {}


def test_not_finite_reward_is_skipped_everywhere() -> None:
    stats = StatsTracker()
    for reward in [1.0, NAN, 3.0]:
        stats.update(record(reward))
    assert stats.summary()["episode_reward"] == 2.0
    assert stats.window() == WindowStats(3, 2.0, 3.0, 1.0, 1.0, 3)


def test_custom_function_and_aggregator() -> None:
    def solved(of: EpisodeRecord) -> float | None:
        return None if of.status is EpisodeStatus.TRUNCATED else of.total_reward > 10

    stats = StatsTracker.empty().with_stat("solved", solved, Mean()).with_stat("n", solved, Count())
    stats.update(record(20.0))
    stats.update(record(5.0))
    stats.update(EpisodeRecord(50.0, 1, EpisodeStatus.TRUNCATED))
    assert stats.summary() == {"solved": 0.5, "n": 2.0}


def test_a_number_beyond_the_largest_float_is_skipped() -> None:
    stats = StatsTracker.empty().with_stat("huge", lambda _: 10**400, Mean())
    stats.update(record(1.0))
    assert math.isnan(stats.summary()["huge"])


@pytest.mark.parametrize("result", ["1.0", [1.0], 1j, np.zeros(2), torch.zeros(2), Decimal("sNaN")])
def test_source_that_returns_no_number_is_named_and_nothing_counted(result: Any) -> None:
    stats = StatsTracker().with_stat("odd", lambda _: result, Mean())
    with pytest.raises(ConfigError, match="stat 'odd': its source returned .*, not a number"):
        stats.update(record(1.0), actor_id=3)
    assert stats.window().n_episodes == 0
    assert math.isnan(stats.summary()["episode_reward"])


def test_source_that_raises_is_named_and_nothing_counted() -> None:
    stats = StatsTracker().with_stat("odd", lambda of: of.extras["absent"], Mean())
    with pytest.raises(ConfigError, match="stat 'odd': its source raised KeyError: 'absent'"):
        stats.update(record(1.0))
    assert stats.window().n_episodes == 0


@pytest.mark.parametrize("name", ["episode_reward", "mine"])
def test_duplicate_name_is_refused(name: str) -> None:
    stats = StatsTracker().with_stat("mine", total_reward, Max())
    with pytest.raises(ConfigError, match=name):
        stats.with_stat(name, length, Min())
    stats.update(record(3.0, 9))
    assert stats.summary() == {"episode_reward": 3.0, "episode_length": 9.0, "mine": 3.0}


@pytest.mark.parametrize(
    ("source", "aggregator", "words"),
    [("epsilon", Mean(), r"extra\(key\)"), (total_reward, Mean, r"Mean\(\)"), (total_reward, 3, "=3 is not")],
)
def test_what_is_no_source_or_aggregator_is_refused(source: Any, aggregator: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        StatsTracker().with_stat("mine", source, aggregator)


def test_stat_after_the_first_episode_is_refused() -> None:
    stats = StatsTracker()
    stats.update(record(1.0))
    with pytest.raises(ConfigError, match="'late'"):
        stats.with_stat("late", length, Max())


@pytest.mark.parametrize(
    "arguments", [{"window": 0}, {"window": 1.5}, {"max_actors": 0}, {"max_actors": True}]
)
def test_sizes_are_checked(arguments: dict[str, Any]) -> None:
    (setting,) = arguments
    with pytest.raises(ConfigError, match=setting):
        StatsTracker(**arguments)
    with pytest.raises(ConfigError, match=setting):
        StatsTracker.empty(**arguments)


def test_aggregator_given_stays_the_callers() -> None:
    mine = Max()
    mine.update(99.0)
    first = StatsTracker.empty().with_stat("best", total_reward, mine)
    second = StatsTracker.empty().with_stat("best", total_reward, mine)
    first.update(record(1.0))
    assert first.summary() == {"best": 1.0}
    assert math.isnan(second.summary()["best"])
    assert mine.value() == 99.0


@given(episodes)
def test_views_of_interleaved_actors_do_not_mix(played: list[tuple[ActorId, float, int]]) -> None:
    stats = every_stat()
    alone: dict[ActorId, StatsTracker] = {}
    for actor_id, reward, steps in played:
        stats.update(record(reward, steps), actor_id)
        alone.setdefault(actor_id, every_stat()).update(record(reward, steps))
    for actor_id, own in alone.items():
        assert repr(stats.summary(actor_id)) == repr(own.summary())
        assert stats.window(actor_id) == own.window()
    assert set(stats.actors()) == set(alone)
    if played:
        rewards = [reward for _, reward, _ in played]
        assert stats.summary()["episode_reward"] == pytest.approx(
            statistics.fmean(rewards), rel=1e-12, abs=1e-9
        )
        assert stats.window().n_episodes == len(played)


def test_unknown_actor_reads_nan() -> None:
    stats = StatsTracker()
    stats.update(record(1.0), actor_id=0)
    assert repr(stats.summary("0")) == repr({"episode_reward": NAN, "episode_length": NAN})
    assert repr(stats.window("0")) == repr(WindowStats(0, NAN, NAN, NAN, NAN))
    assert stats.actors() == [0]


def test_views_are_bounded_and_the_least_recently_updated_goes() -> None:
    stats = StatsTracker(max_actors=2)
    for actor_id, reward in [("a", 1.0), ("b", 2.0), ("a", 3.0), ("c", 4.0)]:
        stats.update(record(reward), actor_id)
    assert stats.actors() == ["a", "c"]
    assert math.isnan(stats.summary("b")["episode_reward"])
    assert stats.summary("a")["episode_reward"] == 2.0
    assert stats.summary()["episode_reward"] == 2.5
    stats.update(record(10.0), "b")  # back again, from nothing
    assert stats.summary("b")["episode_reward"] == 10.0
    assert stats.actors() == ["c", "b"]


def test_reset_forgets_all_and_keeps_the_stats() -> None:
    stats = every_stat()
    stats.update(record(5.0, 2, epsilon=0.5), "a")
    stats.reset()
    assert repr(stats.summary()) == repr(every_stat().summary())
    assert repr(stats.window()) == repr(every_stat().window())
    assert stats.actors() == []
    stats.update(record(7.0, 3), "a")
    assert stats.summary("a")["best"] == 7.0


def test_fresh_is_empty_alike_and_independent() -> None:
    stats = every_stat()
    stats.update(record(5.0, 2), "a")
    other = stats.fresh()
    assert repr(other.summary()) == repr(every_stat().summary())
    assert other.actors() == []
    for reward in [1.0, 2.0, 3.0, 4.0]:
        other.update(record(reward), "b")
    assert other.window().mean_reward == 3.0  # the window of 3 came along
    assert stats.summary()["best"] == 5.0
    assert stats.actors() == ["a"]


@given(episodes, episodes)
def test_state_mid_sequence_ends_as_the_uninterrupted(
    before: list[tuple[ActorId, float, int]], after: list[tuple[ActorId, float, int]]
) -> None:
    stats, resumed = every_stat(), every_stat()
    for actor_id, reward, steps in before:
        stats.update(record(reward, steps, epsilon=reward), actor_id)
    resumed.update(record(123.0), "gone")  # what it had before is replaced
    resumed.load_state_dict(reloaded(stats.state_dict()))
    assert resumed.actors() == stats.actors()
    for actor_id, reward, steps in after:
        stats.update(record(reward, steps), actor_id)
        resumed.update(record(reward, steps), actor_id)
    assert resumed.actors() == stats.actors()
    for actor_id in [None, *stats.actors()]:
        assert repr(resumed.summary(actor_id)) == repr(stats.summary(actor_id))
        assert repr(resumed.window(actor_id)) == repr(stats.window(actor_id))


def test_ids_and_values_of_numpy_load_weights_only() -> None:
    stats = every_stat()
    stats.update(record(np.float32(1.5), np.int64(4), epsilon=np.float64(0.5)), np.int64(1))  # type: ignore[arg-type]
    stats.update(record(2.5, 4), "1")
    stats.update(record(3.5, 4), 1)
    resumed = every_stat()
    resumed.load_state_dict(reloaded(stats.state_dict()))
    assert resumed.actors() == ["1", 1]
    assert resumed.summary(1)["episode_reward"] == 2.5
    assert resumed.summary("1")["episode_reward"] == 2.5
    assert resumed.summary()["epsilon"] == 0.5


def test_state_of_other_stats_keeps_what_matches() -> None:
    then = StatsTracker().with_stat("dropped", total_reward, Max()).with_stat("remade", total_reward, Max())
    then.update(record(5.0, 7), "a")
    now = StatsTracker().with_stat("added", total_reward, Min()).with_stat("remade", total_reward, Min())
    now.load_state_dict(then.state_dict())
    for actor_id in [None, "a"]:
        assert repr(now.summary(actor_id)) == repr(
            {"episode_reward": 5.0, "episode_length": 7.0, "added": NAN, "remade": NAN}
        )
    now.update(record(1.0, 9), "a")
    assert now.summary("a") == {"episode_reward": 3.0, "episode_length": 8.0, "added": 1.0, "remade": 1.0}


def test_aggregator_without_state_starts_empty() -> None:
    stats = StatsTracker.empty().with_stat("n", total_reward, Count()).with_stat("best", total_reward, Max())
    stats.update(record(2.0))
    resumed = stats.fresh()
    resumed.load_state_dict(reloaded(stats.state_dict()))
    assert resumed.summary() == {"n": 0.0, "best": 2.0}


def test_state_of_more_actors_keeps_the_latest() -> None:
    stats = StatsTracker()
    for actor_id in [1, 2, 3, 1]:
        stats.update(record(float(actor_id)), actor_id)
    resumed = StatsTracker(max_actors=2)
    resumed.load_state_dict(stats.state_dict())
    assert resumed.actors() == [3, 1]
    assert resumed.summary() == stats.summary()


def test_state_of_another_window_keeps_the_newest() -> None:
    stats = StatsTracker(window=4)
    for reward in [1.0, 2.0, 3.0, 4.0, 5.0]:
        stats.update(record(reward))
    resumed = StatsTracker(window=2)
    resumed.load_state_dict(stats.state_dict())
    assert resumed.window() == WindowStats(5, 4.5, 5.0, 4.0, 1.0, 5)


def test_failed_load_changes_nothing() -> None:
    stats = StatsTracker()
    stats.update(record(4.0), "a")
    broken = stats.state_dict()
    broken["actors"]["b"] = {"stats": {}}
    stats.update(record(6.0), "a")
    with pytest.raises(KeyError):
        stats.load_state_dict(broken)
    assert stats.summary("a")["episode_reward"] == 5.0
    assert stats.actors() == ["a"]


def test_another_thread_may_read_at_any_time() -> None:
    stats = StatsTracker(window=5, max_actors=50).with_stat("spread", total_reward, Std())
    reading, stop = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                for actor_id in [None, *stats.actors()]:
                    stats.summary(actor_id)
                    stats.window(actor_id)
                stats.state_dict()
                reading.set()
        except BaseException as error:  # noqa: BLE001 - asserted on below
            errors.append(error)

    reader = threading.Thread(daemon=True, target=read)
    reader.start()
    assert reading.wait(30)
    for number in range(5_000):
        stats.update(record(float(number)), number % 70)
        if number % 500 == 499:
            stats.reset()
    stop.set()
    reader.join()
    assert errors == []
