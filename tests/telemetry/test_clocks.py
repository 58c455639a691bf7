"""State clocks: always in one state, nothing unaccounted, whoever reads and whenever."""

from __future__ import annotations

import threading
import time

import pytest

from stoker.telemetry import Clocks, StateClock, TimeTally


def test_the_states_add_up_to_the_time_that_passed() -> None:
    began = time.perf_counter_ns()
    clock = StateClock(("waiting", "working"))
    first = clock.enter(1)
    second = clock.enter(0)
    totals = clock.totals_ns()
    assert totals[1] == second - first
    assert 0 < sum(totals) <= time.perf_counter_ns() - began


def test_readers_in_other_threads_find_nothing_unaccounted_and_nothing_twice() -> None:
    clock, has_ended = StateClock(("a", "b", "c")), threading.Event()

    def change() -> None:
        state = 0
        while not has_ended.is_set():
            state = (state + 1) % 3
            clock.enter(state)

    changing = threading.Thread(target=change, daemon=True)
    changing.start()
    started = time.perf_counter_ns()
    before = sum(clock.totals_ns())
    begun = time.perf_counter_ns()
    try:
        for _ in range(5000):
            earliest = time.perf_counter_ns()
            totals = clock.totals_ns()
            latest = time.perf_counter_ns()
            # At the time of a reading all states together are exactly as old as the clock.
            assert earliest - begun <= sum(totals) - before <= latest - started
    finally:
        has_ended.set()
        changing.join()


def test_a_stopped_clock_counts_nothing_until_a_state_is_entered() -> None:
    clock = StateClock(("a", "b"), is_running=False)
    assert clock.totals_ns() == [0, 0]
    clock.enter(1)
    clock.stop()
    stopped = clock.totals_ns()
    assert stopped[0] == 0 < stopped[1]
    assert clock.totals_ns() == stopped


def test_a_part_of_several_clocks_is_their_sum_also_of_those_that_ended() -> None:
    clocks = Clocks()
    one, other = TimeTally(("a", "b")), TimeTally(("a", "b"))
    clocks.add("actors", one)
    clocks.add("actors", other)
    one.report((1.0, 2.0))
    other.report((3.0, 4.0))
    assert clocks.read().seconds == {"actors": {"a": pytest.approx(4.0), "b": pytest.approx(6.0)}}
    clocks.retire("actors", one)
    other.restart()
    other.report((0.5, 0.0))
    assert clocks.read().seconds == {"actors": {"a": pytest.approx(4.5), "b": pytest.approx(6.0)}}


def test_a_profile_is_of_the_time_between_two_readings() -> None:
    clocks, tally, steps = Clocks(), TimeTally(("a", "b")), [100.0]
    clocks.add("actors", tally)
    clocks.count(steps=lambda: steps[0])
    tally.report((5.0, 5.0))
    before = clocks.read()
    tally.report((6.0, 8.0))
    steps[0] = 300.0
    profile = clocks.read().since(before)
    assert profile.shares == {"actors": {"a": pytest.approx(0.25), "b": pytest.approx(0.75)}}
    assert profile.steps_per_s * profile.seconds == pytest.approx(200)
