"""How many steps per second do slow, uneven environments make while DQN learns from them?

16 to 2,048 environments whose steps take heavy-tailed times, each a task in a loop of ``session.act``,
``step`` and ``session.observe``; one optimization step per round of the environments. Against Gymnasium's
``AsyncVectorEnv``, which waits for the slowest and learns nothing; against the same tasks without a session
on the same event loop (the ceiling); and against environments that lose no time at all (the ideal). Many
environments play on asyncio's own event loop and on uvloop's.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import gymnasium
import numpy as np
import torch

from benchmarks.measure import QUICK, repeated, report
from stoker import DQN, ActorGroup, EpisodeStatus, Experience, TrainingRun, TrainingSession

SIZES = (64,) if QUICK else (16, 64, 512, 2048)
MANY = 512
"""From this many environments on, the event loop matters."""
LOOPS: dict[str, dict[str, Any]] = {"asyncio": {}, "uvloop": {"use_uvloop": True}}
WARMUP_S, MEASURED_S = (0.5, 1.5) if QUICK else (1.0, 4.0)
RUNS = 2 if QUICK else 5
MOST_PROCESSES = 64
TARGETS = {(16, "asyncio"): 0.95, (64, "asyncio"): 0.95, (512, "asyncio"): 0.80, (512, "uvloop"): 0.85}
"""Of the ceiling on the same event loop. For 2,048 environments, which no core can serve, there is none."""

ALPHA, SHORTEST_S, LONGEST_S = 1.3, 2e-3, 200e-3
MEAN_S = SHORTEST_S + SHORTEST_S / (ALPHA - 1) * (1 - (SHORTEST_S / LONGEST_S) ** (ALPHA - 1))
"""The mean of a Pareto law, capped: the integral of P(latency > t) over t."""
EPISODE_STEPS = 200
OBSERVATION_SPACE = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
ACTION_SPACE = gymnasium.spaces.Discrete(2)
OBSERVATIONS = np.random.default_rng(0).standard_normal((EPISODE_STEPS + 1, 4), np.float32)


class Walk:
    """CartPole's spaces, 200 steps in an episode, and for each step how long it takes."""

    def __init__(self, seed: int) -> None:
        self._generator = random.Random(seed)
        self._steps = 0

    def latency_s(self) -> float:
        return min(LONGEST_S, SHORTEST_S * self._generator.paretovariate(ALPHA))

    def begin(self) -> tuple[Any, dict[str, Any]]:
        self._steps = 0
        return OBSERVATIONS[0], {}

    def go(self) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        return OBSERVATIONS[self._steps], 1.0, False, self._steps == EPISODE_STEPS, {}


class AwaitedEnv:
    """An environment behind a network: its steps are awaited."""

    observation_space = OBSERVATION_SPACE
    action_space = ACTION_SPACE

    def __init__(self, seed: int) -> None:
        self._walk = Walk(seed)

    async def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        del seed, options
        return self._walk.begin()

    async def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        del action
        await anyio.sleep(self._walk.latency_s())
        return self._walk.go()


class BlockingEnv(gymnasium.Env[Any, Any]):
    """The same environment, as a vector of processes takes it."""

    observation_space = OBSERVATION_SPACE
    action_space = ACTION_SPACE

    def __init__(self, seed: int) -> None:
        self._walk = Walk(seed)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        del seed, options
        return self._walk.begin()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        del action
        time.sleep(self._walk.latency_s())
        return self._walk.go()


# What each contender does, until it is cancelled -------------------------------------------------------


async def play(session: TrainingSession, actor_id: int) -> None:
    """The loop that a user writes first."""
    env = AwaitedEnv(actor_id)
    while True:
        observation, _ = await env.reset()
        total_reward, steps, status = 0.0, 0, EpisodeStatus.CONTINUING
        while not status.is_done:
            action = await session.act(observation, actor_id=actor_id)
            following, reward, terminated, truncated, _ = await env.step(action)
            status = EpisodeStatus.of(terminated, truncated)
            await session.observe(Experience(observation, action, reward, following, status, actor_id))
            observation, total_reward, steps = following, total_reward + reward, steps + 1
        await session.on_episode(total_reward, steps, status, actor_id=actor_id)


async def by_hand(session: TrainingSession, n_envs: int) -> None:
    async with anyio.create_task_group() as actors:
        for actor_id in range(n_envs):
            actors.start_soon(play, session, actor_id)


async def by_group(session: TrainingSession, n_envs: int) -> None:
    numbers = iter(range(n_envs))
    await ActorGroup(session, lambda: AwaitedEnv(next(numbers)), n_envs).run()


async def counted_rate(work: Callable[[], Any], count: Callable[[], int]) -> float:
    """Steps per second, once the work is warm."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await anyio.sleep(WARMUP_S)
        started, first = time.perf_counter(), count()
        await anyio.sleep(MEASURED_S)
        rate = (count() - first) / (time.perf_counter() - started)
        tasks.cancel_scope.cancel()
    return rate


def settings(n_envs: int) -> dict[str, int]:
    """An update and room in the queue per round of the environments; a checkpoint every few seconds."""
    return {"opt_interval": n_envs, "queue_capacity": 16 * n_envs, "checkpoint_freq": 100_000}


@asynccontextmanager
async def open_session(n_envs: int, *, on_disk: bool) -> AsyncGenerator[TrainingSession]:
    agent = DQN(OBSERVATION_SPACE, ACTION_SPACE, seed=0)
    with tempfile.TemporaryDirectory(dir=".") as root:  # a disk; the system's /tmp may be memory
        run = await TrainingRun.create("bench", root=root) if on_disk else None
        async with TrainingSession(agent, run, **settings(n_envs)) as session:
            yield session


def stoker_rate(
    play_all: Callable[..., Any], n_envs: int, loop: str = "asyncio", *, on_disk: bool = True
) -> float:
    """Steps that were consumed, not only accepted."""

    async def main() -> float:
        async with open_session(n_envs, on_disk=on_disk) as session:
            rate = await counted_rate(partial(play_all, session, n_envs), lambda: session.total_steps)
        said[loop] = (
            f"on {loop}: {session.opt_steps:,} optimization steps in {session.total_steps:,} environment "
            f"steps, {session.total_steps / session.n_forward_passes:.1f} actions per forward pass"
        )
        return rate

    return anyio.run(main, backend_options=LOOPS[loop])


def ceiling_rate(n_envs: int, loop: str) -> float:
    n_steps = 0

    async def step_on(seed: int) -> None:
        nonlocal n_steps
        env = AwaitedEnv(seed)
        while True:
            await env.reset()
            is_over = False
            while not is_over:
                _, _, _, is_over, _ = await env.step(0)
                n_steps += 1

    async def step_all() -> None:
        async with anyio.create_task_group() as actors:
            for seed in range(n_envs):
                actors.start_soon(step_on, seed)

    return anyio.run(counted_rate, step_all, lambda: n_steps, backend_options=LOOPS[loop])


def vector_rate(n_envs: int) -> float:
    envs = gymnasium.vector.AsyncVectorEnv([partial(BlockingEnv, seed) for seed in range(n_envs)])
    try:
        envs.reset()
        actions = np.zeros(n_envs, np.int64)
        begun = time.perf_counter()
        while time.perf_counter() - begun < WARMUP_S:
            envs.step(actions)
        n_steps, started = 0, time.perf_counter()
        while time.perf_counter() - started < MEASURED_S:
            envs.step(actions)
            n_steps += n_envs
        return n_steps / (time.perf_counter() - started)
    finally:
        envs.close()


said: dict[str, str] = {}


def contenders(n_envs: int) -> dict[str, Callable[[], float]]:
    """All of them; behind those on asyncio, with many environments, those on uvloop."""
    found: dict[str, Callable[[], float]] = {}
    if n_envs <= MOST_PROCESSES:
        found["AsyncVectorEnv, no learning"] = partial(vector_rate, n_envs)
    if not QUICK:
        found["stoker, ActorGroup"] = partial(stoker_rate, by_group, n_envs)
    found["stoker, no rows, no journal"] = partial(stoker_rate, by_hand, n_envs, on_disk=False)
    for loop in loops_for(n_envs):
        # Behind the one without rows: ``said`` keeps the figures of the last.
        found[f"stoker, {loop}"] = partial(stoker_rate, by_hand, n_envs, loop)
        found[f"ceiling: the tasks alone, {loop}"] = partial(ceiling_rate, n_envs, loop)
    return found


def loops_for(n_envs: int) -> list[str]:
    return [*LOOPS] if n_envs >= MANY else ["asyncio"]


def main() -> None:
    torch.set_num_threads(1)
    for n_envs in SIZES:
        said.clear()
        rows = repeated(contenders(n_envs), RUNS)
        ideal = rows["ideal: environments / latency"] = [n_envs / MEAN_S]
        median = {name: statistics.median(values) for name, values in rows.items()}
        ceilings = {loop: median[f"ceiling: the tasks alone, {loop}"] for loop in loops_for(n_envs)}
        ratios = {
            f"stoker / ceiling, {loop}": median[f"stoker, {loop}"] / ceilings[loop] for loop in ceilings
        }
        for name in ("stoker, no rows, no journal", "stoker, ActorGroup"):
            if name in median:
                ratios[f"{name} / ceiling, asyncio"] = median[name] / ceilings["asyncio"]
        if (vector := median.get("AsyncVectorEnv, no learning")) is not None:
            ratios["stoker / AsyncVectorEnv"] = median["stoker, asyncio"] / vector
        for loop, ceiling in ceilings.items():
            ratios[f"ceiling, {loop} / ideal"] = ceiling / ideal[0]
        targets = [
            f"target on {loop}: {target} of the ceiling"
            for (size, loop), target in TARGETS.items()
            if size == n_envs
        ]
        report(
            f"{n_envs} environments that take {MEAN_S * 1e3:.1f} ms on average, {SHORTEST_S * 1e3:.0f} to "
            f"{LONGEST_S * 1e3:.0f}, while DQN learns",
            "environment steps per second",
            rows,
            ratios,
            [*said.values(), *targets],
        )


if __name__ == "__main__":
    main()
