"""What does accepting one event cost, until an agent that does nothing has consumed it?

Against an ``asyncio.Queue``, an anyio memory stream, and the floor: awaiting a coroutine that appends. The
session is measured twice: with an agent that is only fed (``opt_interval=0``), and with one that is asked to
learn after each event, which is the default. And how much memory does an idle actor take?
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import torch

from benchmarks.measure import QUICK, Idle, held_bytes, repeated, report
from stoker import EpisodeStatus, Experience, TrainingSession

N_EVENTS = 40_000 if QUICK else 200_000
N_IDLE = 10_000
RUNS = 3 if QUICK else 5
Put = Callable[[Any], Awaitable[None]]


def n_events(n_producers: int) -> int:
    """Enough of them that starting the producers does not count."""
    return max(N_EVENTS, (500 if n_producers >= 10_000 else 100) * n_producers)


async def produce(put: Put, n_producers: int) -> None:
    async def producer(actor_id: int) -> None:
        experience = Experience(None, 0, 1.0, None, EpisodeStatus.CONTINUING, actor_id)
        for _ in range(n_events(n_producers) // n_producers):
            await put(experience)

    async with anyio.create_task_group() as producers:
        for actor_id in range(n_producers):
            producers.start_soon(producer, actor_id)


async def session(n_producers: int) -> None:
    async with TrainingSession(Idle(), opt_interval=0) as training:
        await produce(training.observe, n_producers)


async def session_that_learns(n_producers: int) -> None:
    async with TrainingSession(Idle()) as training:
        await produce(training.observe, n_producers)


async def asyncio_queue(n_producers: int) -> None:
    queue: asyncio.Queue[Any] = asyncio.Queue(1024)

    async def consume() -> None:
        while await queue.get() is not None:
            pass

    consumer = asyncio.create_task(consume())
    await produce(queue.put, n_producers)
    await queue.put(None)
    await consumer


async def memory_stream(n_producers: int) -> None:
    send, receive = anyio.create_memory_object_stream[Any](1024)

    async def consume() -> None:
        async for _ in receive:
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        async with send:
            await produce(send.send, n_producers)


async def floor(n_producers: int) -> None:
    events: list[Any] = []

    async def append(event: Any) -> None:
        events.append(event)

    await produce(append, n_producers)


def cost_us(contender: Callable[[int], Awaitable[None]], n_producers: int) -> float:
    async def main() -> float:
        started = time.perf_counter()
        await contender(n_producers)
        return (time.perf_counter() - started) / n_events(n_producers) * 1e6

    return anyio.run(main)


def bytes_per_idle_actor() -> float:
    """What 10,000 actors take that have each begun an episode and then wait for their environments."""

    async def main() -> float:
        async with TrainingSession(Idle()) as training, anyio.create_task_group() as actors:

            async def actor(actor_id: int) -> None:
                await training.on_episode_start(actor_id)
                await training.observe(Experience(None, 0, 1.0, None, EpisodeStatus.CONTINUING, actor_id))
                await anyio.sleep_forever()

            before = held_bytes()
            for actor_id in range(N_IDLE):
                actors.start_soon(actor, actor_id)
            while training.total_steps < N_IDLE:
                await training.flush()
            taken = held_bytes() - before
            actors.cancel_scope.cancel()
        return taken / N_IDLE

    return anyio.run(main)


def main() -> None:
    torch.set_num_threads(1)
    contenders = {
        "stoker session": session,
        "stoker session, asked to learn": session_that_learns,
        "asyncio.Queue": asyncio_queue,
        "anyio memory stream": memory_stream,
        "floor (append)": floor,
    }
    at_8 = 0.0
    for n_producers in (1, 8, 64, 1_024) if QUICK else (1, 8, 64, 1_024, 10_000):
        rows = repeated(
            {name: lambda c=c, n=n_producers: cost_us(c, n) for name, c in contenders.items()},
            RUNS if n_producers < 10_000 else 1,
        )
        median = {name: statistics.median(values) for name, values in rows.items()}
        ours = median["stoker session"]
        ratios = {
            "memory stream / stoker": median["anyio memory stream"] / ours,
            "asyncio.Queue / stoker": median["asyncio.Queue"] / ours,
            "stoker / floor": ours / median["floor (append)"],
        }
        if n_producers == 8:
            at_8 = ours
        if n_producers > 8:
            ratios["stoker / stoker at 8 producers"] = ours / at_8
        title = f"Accepting an event, {n_producers:,} concurrent producers, until consumed"
        report(title, "us per event", rows, ratios)
    report(
        f"An idle actor, one of {N_IDLE:,}: its task, and what the session keeps of it",
        "bytes",
        repeated({"stoker session": bytes_per_idle_actor}, 1),
        {},
    )


if __name__ == "__main__":
    main()
