"""The stall detector: what stands still is found once, what moves is not, a stopped process is no stall."""

from __future__ import annotations

import time

import anyio
import pytest

from stoker.stalls import Activity, StallDetector


def looks(*found: tuple[float, dict[str, Activity]]) -> list[list[tuple[str, float]]]:
    """What a detector with a limit of 10 s finds at these looks."""
    detector = StallDetector(10.0)
    return [detector.stalled(activities, now) for now, activities in found]


def test_an_activity_that_does_not_move_is_found_once() -> None:
    still = {"disk": Activity("syncing", 5.0)}
    assert looks((6.0, still), (15.0, still), (16.0, still)) == [[], [("disk", 10.0)], []]
    assert looks((15.0, still), (16.0, {}), (17.0, still)) == [[("disk", 10.0)], [], [("disk", 12.0)]]


def test_one_that_moves_or_begins_again_has_its_whole_time_again() -> None:
    def writing(since: float, n_bytes: int) -> dict[str, Activity]:
        return {"disk": Activity("writing", since, n_bytes)}

    assert looks(
        (5.0, writing(0.0, 1)),
        (11.0, writing(0.0, 2)),  # moved
        (20.0, writing(0.0, 2)),
        (21.0, writing(0.0, 2)),  # stuck
        (22.0, writing(0.0, 3)),  # moved
        (32.0, writing(0.0, 3)),  # stuck again
        (33.0, writing(32.5, 3)),  # another one
        (42.5, writing(32.5, 3)),
    ) == [[], [], [], [("disk", 10.0)], [], [("disk", 10.0)], [], [("disk", 10.0)]]


def test_one_may_stand_still_while_others_move() -> None:
    def at(now: float) -> tuple[float, dict[str, Activity]]:
        return now, {"a": Activity("a", 0.0, now), "b": Activity("b", 0.0), "c": Activity("c", now)}

    assert looks(at(9.0), at(10.0), at(11.0)) == [[], [("b", 10.0)], []]


@pytest.mark.anyio
async def test_a_process_that_was_stopped_starts_all_limits_anew() -> None:
    detector = StallDetector(10.0, interval_s=0.2)
    now = await detector.next_look()
    still = {"disk": Activity("syncing", now - 20.0)}
    assert [key for key, _ in detector.stalled(still, now)] == ["disk"]

    async def stop_the_process() -> None:
        time.sleep(0.6)  # noqa: ASYNC251 - nothing else runs meanwhile, as in a process that is stopped

    detector = StallDetector(10.0, interval_s=0.01)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_the_process)
        now = await detector.next_look()
    assert detector.stalled(still, now) == detector.stalled(still, now + 9.0) == []
    assert detector.stalled(still, now + 10.0) == [("disk", 10.0)]
