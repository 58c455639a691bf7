"""The batch queue: order, bound, exactness under cancellation, fairness."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint
from hypothesis import given, settings, strategies as st

from stoker.queues import BatchQueue
from stoker.threads import DedicatedThread, call_soon_here

pytestmark = pytest.mark.anyio


async def test_takes_everything_there_in_one_go_in_order() -> None:
    queue = BatchQueue[int](8)
    for i in range(5):
        assert queue.offer(i)
    assert await queue.take() == [0, 1, 2, 3, 4]
    assert len(queue) == 0


async def test_take_waits_for_the_first_item() -> None:
    queue = BatchQueue[int](8)
    taken: list[list[int]] = []

    async def consume() -> None:
        taken.append(await queue.take())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            await wait_all_tasks_blocked()
            assert taken == []
            await queue.put(7)
    assert taken == [[7]]


def test_items_that_go_in_together_use_up_the_room() -> None:
    queue = BatchQueue[int](8)
    assert queue.offer_together(range(6))
    assert [queue.offer(item) for item in (6, 7, 8)] == [True, True, False]
    assert queue.take_now() == list(range(8))


async def test_each_take_wakes_a_few_of_the_waiting_producers_at_first() -> None:
    queue = BatchQueue[int](64)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as producers:
            for number in range(200):
                producers.start_soon(queue.put, number)
            for n_before, n_left in ((136, 128), (72, 64)):
                await wait_all_tasks_blocked()
                assert queue.n_waiting == n_before
                assert len(await queue.take()) == 64
                assert queue.n_waiting == n_left, "eight are called, and these call the next ones"
            await wait_all_tasks_blocked()
            n_taken = 128
            while n_taken < 200:
                n_taken += len(await queue.take())


async def test_places_in_a_full_queue_go_to_those_who_waited_longest() -> None:
    queue = BatchQueue[int](2)
    done: list[int] = []

    async def produce(item: int) -> None:
        await queue.put(item)
        done.append(item)

    async with anyio.create_task_group() as tasks:
        for i in range(5):
            tasks.start_soon(produce, i)
            await wait_all_tasks_blocked()
        assert done == [0, 1]
        assert queue.n_waiting == 3
        assert not queue.offer(99), "a later producer must not overtake"
        assert await queue.take() == [0, 1]
        await wait_all_tasks_blocked()
        assert sorted(done) == [0, 1, 2, 3]
        assert sorted(await queue.take()) == [2, 3], "woken together, they enter in any order"
        assert await queue.take() == [4]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio runs tasks that are woken together in any order
async def test_a_producer_that_was_called_and_found_no_room_keeps_its_place() -> None:
    queue: BatchQueue[str] = BatchQueue(2, size_of=len)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for item in ("1", "2", "too long for the room", "b", "c", "d", "e"):
                tasks.start_soon(queue.put, item, len(item))
                await wait_all_tasks_blocked()
            assert await queue.take() == [
                "1",
                "2",
            ]  # calls the next two, of which the first takes all the room
            await wait_all_tasks_blocked()
            assert await queue.take() == ["too long for the room"]
            await wait_all_tasks_blocked()
            assert await queue.take() == ["b", "c"]
            await wait_all_tasks_blocked()
            assert await queue.take() == ["d", "e"]


async def test_items_that_are_put_one_by_one_keep_their_sizes() -> None:
    queue: BatchQueue[str] = BatchQueue(4, size_of=len)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(queue.put_many, ["of a size beyond the capacity", "b"])
            await wait_all_tasks_blocked()
            assert (len(queue), queue.n_waiting) == (29, 1)
            assert await queue.take() == ["of a size beyond the capacity"]
    assert queue.take_now() == ["b"]


async def test_room_is_given_to_producers_once_though_the_consumer_takes_again_before_they_run() -> None:
    queue = BatchQueue[int](2)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(queue.put, number)
                await wait_all_tasks_blocked()
            assert queue.take_now() == [0, 1]
            for _ in range(2):
                queue.refill()
                assert queue.n_waiting == 2, "two are called: there is room for two"
            await wait_all_tasks_blocked()
            assert sorted(await queue.take()) == [2, 3]
            await wait_all_tasks_blocked()
            assert sorted(queue.take_now()) == [4, 5]


async def test_a_producer_that_never_suspends_lets_others_run() -> None:
    queue = BatchQueue[int](10_000, yield_every=16)
    turns = 0
    finished = False

    async def other() -> None:
        nonlocal turns
        while not finished:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        await checkpoint()
        before = turns
        for i in range(1600):
            await queue.put(i)
        finished = True
    assert turns - before >= 90, "about one turn for each 16 of 1600 items"


async def test_a_cancelled_producer_is_wholly_out_and_its_place_goes_on() -> None:
    queue = BatchQueue[str](1)
    await queue.put("first")
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(queue.put, "second")
            await wait_all_tasks_blocked()
            async with anyio.create_task_group() as inner:
                inner.start_soon(queue.put, "third")
                await wait_all_tasks_blocked()
                scope.cancel()
        assert await queue.take() == ["first"]
        assert await queue.take() == ["second"]
    assert len(queue) == 0


async def test_a_cancelled_producer_leaves_its_place_to_the_one_behind_it() -> None:
    queue = BatchQueue[str](1)
    await queue.put("first")
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as inner:
                    inner.start_soon(queue.put, "cancelled")
                    await wait_all_tasks_blocked()
                    tasks.start_soon(queue.put, "next")
                    await wait_all_tasks_blocked()
                    scope.cancel()
            assert queue.n_waiting == 1
            assert await queue.take() == ["first"]
        assert await queue.take() == ["next"]


async def test_a_closed_queue_with_room_refuses_too() -> None:
    queue = BatchQueue[int](8)
    assert queue.offer(1)
    queue.close()
    assert (queue.offer(2), queue.offer_together([2, 3]), queue.has_credit()) == (False, False, False)
    with pytest.raises(anyio.ClosedResourceError):
        await queue.put(2)
    assert await queue.take() == [1]


async def test_a_producer_that_yields_while_the_queue_is_closed_puts_nothing() -> None:
    queue = BatchQueue[int](8, yield_every=1)
    assert queue.offer(1)
    refused: list[Exception] = []

    async def put() -> None:
        try:
            await queue.put(2)
        except anyio.ClosedResourceError as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put)
        await checkpoint()
        queue.close()
    assert (queue.take_now(), len(refused)) == ([1], 1)


async def test_a_producer_that_waits_since_the_last_take_gets_in_with_the_next() -> None:
    queue = BatchQueue[int](1)
    await queue.put(1)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(queue.put, 2)
            await wait_all_tasks_blocked()
            assert queue.take_now() == [1]  # without a refill, as where nobody waited yet
            assert await queue.take() == [2]


async def test_what_was_consumed_before_the_queue_was_made_counts() -> None:
    queue: BatchQueue[int] = BatchQueue(8, consumed=lambda: 7)
    assert queue.count(int) == 7
    assert queue.offer(1)
    assert queue.count(int) == 8


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_producer_cancelled_after_it_was_woken_hands_its_place_on() -> None:
    """asyncio's own cancellation can hit between being woken and running; then the item is out."""
    queue = BatchQueue[str](1)
    await queue.put("first")
    victim = asyncio.create_task(queue.put("cancelled"))
    heir = asyncio.create_task(queue.put("next"))
    await wait_all_tasks_blocked()
    assert await queue.take() == ["first"]  # wakes the victim ...
    victim.cancel()  # ... which is cancelled before it runs
    with pytest.raises(asyncio.CancelledError):
        await victim
    with anyio.fail_after(5):
        await heir
    assert await queue.take() == ["next"]


async def test_close_refuses_new_items_and_gives_out_the_old() -> None:
    queue = BatchQueue[int](1)
    await queue.put(1)
    errors: list[Exception] = []

    async def wait_for_room() -> None:
        try:
            await queue.put(2)
        except LookupError as error:
            errors.append(error)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_room)
            tasks.start_soon(wait_for_room)
            await wait_all_tasks_blocked()
            queue.close(lambda: LookupError("gone"))
    assert len(errors) == 2
    assert errors[0] is not errors[1], "each waiter gets its own exception"
    with pytest.raises(LookupError, match="gone"):
        await queue.put(3)
    assert await queue.take() == [1]
    assert await queue.take() == []


async def test_a_consumer_that_wants_more_waits_for_the_last_of_it_and_wakes_nobody_before() -> None:
    queue = BatchQueue[int](100, linger_s=60)
    taken: list[list[int]] = []

    async def consume() -> None:
        taken.append(await queue.take(5))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            await wait_all_tasks_blocked()
            for number in range(4):
                await queue.put(number)
                await wait_all_tasks_blocked()
                assert (taken, queue.n_waiting) == ([], 0)
            await queue.put(4)
            await queue.put(5)
    assert taken in ([[0, 1, 2, 3, 4]], [[0, 1, 2, 3, 4, 5]])


async def test_a_consumer_that_wants_more_is_hurried_or_closed() -> None:
    queue = BatchQueue[str](100, linger_s=60)
    taken: list[list[str]] = []

    async def consume() -> None:
        taken.append(await queue.take(5))

    async def consumed(*calls: Callable[[], object]) -> list[str]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            await wait_all_tasks_blocked()
            for call in calls:
                result = call()
                if isinstance(result, Awaitable):
                    await result
        return taken.pop()

    with anyio.fail_after(10):
        assert await consumed(lambda: queue.put("a"), queue.hurry) == ["a"], "before it has seen the item"
        assert await consumed(lambda: queue.put("b"), wait_all_tasks_blocked, queue.hurry) == ["b"]
        assert await consumed(queue.hurry, lambda: queue.put("c")) == ["c"]
        await queue.put("d")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await consume()
        assert await consumed(queue.hurry) == ["d"], "a cancelled consumer loses nothing"
        assert await consumed(lambda: queue.put("e"), wait_all_tasks_blocked, queue.close) == ["e"]
        assert await queue.take(5) == []


async def test_a_consumer_that_wants_more_gives_up_after_a_while() -> None:
    queue = BatchQueue[int](100)
    await queue.put(1)
    with anyio.fail_after(30):
        assert await queue.take(5) == [1]


async def test_a_small_or_full_queue_is_taken_at_once() -> None:
    with anyio.fail_after(30):
        for capacity, n_items in [(1, 1), (4, 1), (20, 5), (20, 20)]:
            queue = BatchQueue[int](capacity, linger_s=60)
            for number in range(n_items):
                await queue.put(number)
            assert await queue.take(1_000) == list(range(n_items))


async def test_close_ends_a_waiting_consumer() -> None:
    queue = BatchQueue[int](1)
    ended = False

    async def consume() -> None:
        nonlocal ended
        assert await queue.take() == []
        ended = True

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            await wait_all_tasks_blocked()
            queue.close()
    assert ended


async def test_a_consumer_in_a_thread_takes_everything_once_and_in_order() -> None:
    queue = BatchQueue[tuple[int, int]](32, yield_every=8)
    call_soon = call_soon_here()
    n_producers, n_items = 20, 500
    taken: list[tuple[int, int]] = []
    thread = DedicatedThread("stoker-test")

    def drain() -> None:
        while batch := queue.take_now():
            taken.extend(batch)
            if queue.n_waiting:
                call_soon(queue.refill)

    async def consume() -> None:
        while batch := await queue.take():
            taken.extend(batch)
            await thread.run(drain)

    async def produce(producer: int) -> None:
        for item in range(n_items):
            await queue.put((producer, item))
            assert len(queue) <= queue.capacity

    with anyio.fail_after(30):
        async with anyio.create_task_group() as consumer:
            consumer.start_soon(consume)
            async with anyio.create_task_group() as producers:
                for i in range(n_producers):
                    producers.start_soon(produce, i)
            queue.close()
    thread.close()
    assert len(taken) == n_producers * n_items
    for i in range(n_producers):
        assert [item for producer, item in taken if producer == i] == list(range(n_items))


def test_the_sizes_count_of_what_is_in_also_if_appended_without_a_check() -> None:
    looked_at: list[str] = []

    def size_of(item: str) -> int:
        looked_at.append(item)
        return len(item)

    queue: BatchQueue[str] = BatchQueue(100, size_of=size_of)
    queue.append("a")
    queue.expect_sizes()
    queue.append("three")
    assert len(queue) == 6
    assert queue.take_now() == ["a", "three"]
    del looked_at[:]
    queue.append("b")
    assert (len(queue), looked_at) == (1, []), "single items are only counted once no others are in"


async def test_an_item_of_a_size_that_came_since_the_take_makes_producers_wait_for_the_next() -> None:
    queue: BatchQueue[str] = BatchQueue(4, size_of=len)
    returned: list[str] = []

    async def put(item: str) -> None:
        await queue.put(item, len(item))
        returned.append(item)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            assert queue.offer("a")
            assert queue.take_now() == ["a"]
            assert queue.offer("of a size beyond the capacity", 29)
            assert (len(queue), queue.fill, queue.n_waiting) == (29, 1.0, 0)
            for item in ("b", "another beyond it", "c"):
                tasks.start_soon(put, item)
                await anyio.wait_all_tasks_blocked()
            queue.refill()  # behind that take: there is no room
            await anyio.wait_all_tasks_blocked()
            assert (returned, queue.n_waiting) == ([], 3)
            taken = [await queue.take()]
            while len(returned) < 3:
                await anyio.wait_all_tasks_blocked()
                taken.append(await queue.take() if len(queue) else [])
    first, *others = [item for items in [*taken, queue.take_now()] for item in items]
    assert first == "of a size beyond the capacity"
    assert sorted(others) == ["another beyond it", "b", "c"], (
        "trio runs tasks that are woken together in any order"
    )
    assert queue.count(str) == 0, "the consumer says that it has processed none"


async def test_many_waiting_producers_are_called_in_rounds_and_none_is_left_out() -> None:
    """More producers than places, each with more items than its share: all come in at an even pace."""
    queue = BatchQueue[int](64)
    n_producers, n_items = 300, 40
    done = [0] * n_producers

    async def produce(producer: int) -> None:
        for _ in range(n_items):
            await queue.put(producer)
            done[producer] += 1

    with anyio.fail_after(30):
        async with anyio.create_task_group() as producers:
            for i in range(n_producers):
                producers.start_soon(produce, i)
            n_taken = 0
            while n_taken < n_producers * n_items:
                batch = await queue.take()
                assert len(batch) <= queue.capacity
                n_taken += len(batch)
                if max(done) == n_items:
                    continue
                # Each round of calls gives everybody a share of at most a turn.
                assert max(done) - min(done) <= 2 * queue.capacity


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_consumer_is_woken_after_one_who_was_called_is_cancelled() -> None:
    queue = BatchQueue[str](1)
    await queue.put("first")
    victim = asyncio.create_task(queue.put("cancelled"))
    await wait_all_tasks_blocked()
    assert queue.take_now() == ["first"]
    queue.refill()  # calls the victim ...
    victim.cancel()  # ... which is cancelled before it runs
    consumer = asyncio.create_task(queue.take())
    with pytest.raises(asyncio.CancelledError):
        await victim
    await wait_all_tasks_blocked()
    with anyio.fail_after(5):
        await queue.put("next")
        assert await consumer == ["next"]


@given(
    n_producers=st.integers(1, 40),
    n_items=st.integers(1, 30),
    capacity=st.integers(1, 8),
    yield_every=st.integers(1, 5),
    cancel=st.sets(st.integers(0, 11)),
    pauses=st.lists(st.booleans(), min_size=1, max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_every_item_is_in_exactly_if_put_returned(
    n_producers: int, n_items: int, capacity: int, yield_every: int, cancel: set[int], pauses: list[bool]
) -> None:
    """Any mix of producers, cancelled at any point: what put returned for is taken, once, in order."""

    async def main() -> None:
        queue = BatchQueue[tuple[int, int]](capacity, yield_every=yield_every)
        accepted: dict[int, list[int]] = {i: [] for i in range(n_producers)}
        taken: dict[int, list[int]] = {i: [] for i in range(n_producers)}
        scopes = [anyio.CancelScope() for _ in range(n_producers)]

        async def produce(producer: int) -> None:
            with scopes[producer]:
                for item in range(n_items):
                    await queue.put((producer, item))
                    accepted[producer].append(item)
                    if pauses[item % len(pauses)]:
                        await checkpoint()

        async def consume() -> None:
            rounds = 0
            while batch := await queue.take():
                assert len(batch) <= capacity
                for producer, item in batch:
                    taken[producer].append(item)
                rounds += 1
                for victim in cancel:
                    if victim < n_producers and rounds == 1 + victim % 3:
                        scopes[victim].cancel()

        async with anyio.create_task_group() as consumer:
            consumer.start_soon(consume)
            async with anyio.create_task_group() as producers:
                for i in range(n_producers):
                    producers.start_soon(produce, i)
            queue.close()
        assert taken == accepted

    anyio.run(main, backend="asyncio")
    anyio.run(main, backend="trio")
