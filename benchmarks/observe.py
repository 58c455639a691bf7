"""What does accepting one event cost, until an agent that does nothing has consumed it?

Against an ``asyncio.Queue``, an anyio memory stream, and the floor: awaiting a coroutine that appends.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import torch

from benchmarks.measure import QUICK, repeated, report
from stoker import EpisodeStatus, Experience, TrainingSession
from stoker.testing import FakeAgent

N_EVENTS = 40_000 if QUICK else 200_000
RUNS = 3 if QUICK else 5
Put = Callable[[Any], Awaitable[None]]


class Idle(FakeAgent):
    """An agent that does nothing, not even remember."""

    def observe(self, experiences: Any) -> None:
        self.total_steps += len(experiences)

    def learn(self) -> None:
        return None


async def produce(put: Put, n_producers: int) -> None:
    async def producer(actor_id: int) -> None:
        experience = Experience(None, 0, 1.0, None, EpisodeStatus.CONTINUING, actor_id)
        for _ in range(N_EVENTS // n_producers):
            await put(experience)

    async with anyio.create_task_group() as producers:
        for actor_id in range(n_producers):
            producers.start_soon(producer, actor_id)


async def session(n_producers: int) -> None:
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
        return (time.perf_counter() - started) / N_EVENTS * 1e6

    return anyio.run(main)


def main() -> None:
    torch.set_num_threads(1)
    contenders = {
        "stoker session": session,
        "asyncio.Queue": asyncio_queue,
        "anyio memory stream": memory_stream,
        "floor (append)": floor,
    }
    for n_producers in (1, 8, 64, 1024):
        rows = repeated(
            {name: lambda c=c, n=n_producers: cost_us(c, n) for name, c in contenders.items()}, RUNS
        )
        median = {name: statistics.median(values) for name, values in rows.items()}
        ours = median["stoker session"]
        report(
            f"Accepting an event, {n_producers} concurrent producers, until consumed",
            "us per event",
            rows,
            {
                "memory stream / stoker": median["anyio memory stream"] / ours,
                "asyncio.Queue / stoker": median["asyncio.Queue"] / ours,
                "stoker / floor": ours / median["floor (append)"],
            },
        )


if __name__ == "__main__":
    main()
