"""How long is the event loop held up while DQN learns flat out?

The overshoot of a 1 ms sleep in a service's loop, while a session trains on it with rows, journal and
checkpoints: from eight environments, and from tasks that never suspend by themselves. Against SB3, whose
``learn`` runs in a thread of the same process, and against an idle loop.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Awaitable, Callable

import anyio
import gymnasium
import numpy as np
import torch

from benchmarks.measure import QUICK, report
from stoker import DQN, DQNConfig, EpisodeStatus, Experience, TrainingRun, TrainingSession, train
from stoker.trainer import agent_for, config_from

N_STEPS = 3_000 if QUICK else 15_000
SLEEP_S = 1e-3
SETTLE_S = 0.05  # the sleep that making the agent held up must be over before counting begins


async def overshoots_ms(until: Callable[[Callable[[], None]], Awaitable[None]]) -> list[float]:
    """Sleep 1 ms again and again while something else goes on; how much longer each one took."""
    found: list[float] = []
    async with anyio.create_task_group() as tasks:

        async def sleeper() -> None:
            while True:
                started = time.perf_counter()
                await anyio.sleep(SLEEP_S)
                found.append((time.perf_counter() - started - SLEEP_S) * 1e3)

        tasks.start_soon(sleeper)
        await until(found.clear)
        tasks.cancel_scope.cancel()
    return found


async def training(begin: Callable[[], None]) -> None:
    config = config_from(
        {"env": "CartPole-v1", "total_timesteps": N_STEPS, "eval_freq": 0, "checkpoint_freq": 1000}
    )
    with tempfile.TemporaryDirectory() as root:
        run = await TrainingRun.create("bench", root=root)
        agent = agent_for(config)
        await anyio.sleep(SETTLE_S)
        begin()
        await train(config, run, agent=agent)


async def training_from_the_unresting(begin: Callable[[], None]) -> None:
    """Eight tasks that have their transitions ready and only ever await ``observe``."""
    env = gymnasium.make("CartPole-v1")
    agent = DQN(env.observation_space, env.action_space, DQNConfig(learning_starts=100), seed=0)
    observations = np.random.default_rng(0).standard_normal((101, 4), np.float32)

    async def push(session: TrainingSession, actor_id: int) -> None:
        while not session.is_done:
            for i in range(100):
                status = EpisodeStatus.CONTINUING if i < 99 else EpisodeStatus.TERMINATED
                await session.observe(
                    Experience(observations[i], i % 2, 1.0, observations[i + 1], status, actor_id)
                )
            await session.on_episode(100.0, 100, EpisodeStatus.TERMINATED, actor_id=actor_id)

    with tempfile.TemporaryDirectory() as root:
        run = await TrainingRun.create("bench", root=root)
        await anyio.sleep(SETTLE_S)
        begin()
        async with (
            TrainingSession(agent, run, max_steps=N_STEPS, checkpoint_freq=1000) as session,
            anyio.create_task_group() as tasks,
        ):
            for actor_id in range(8):
                tasks.start_soon(push, session, actor_id)


async def idle(begin: Callable[[], None]) -> None:
    begin()
    await anyio.sleep(2.0)


async def sb3_in_a_thread(begin: Callable[[], None]) -> None:
    from stable_baselines3 import DQN as SB3DQN

    model = SB3DQN(
        "MlpPolicy", "CartPole-v1", learning_rate=3e-4, learning_starts=1000, batch_size=64, train_freq=1,
        gradient_steps=1, policy_kwargs={"net_arch": [64, 64]}, device="cpu", seed=0,
    )  # fmt: skip
    await anyio.sleep(SETTLE_S)
    begin()
    thread = threading.Thread(target=model.learn, args=(N_STEPS,))
    thread.start()
    while thread.is_alive():  # noqa: ASYNC110 - a peer that offers nothing to wait for
        await anyio.sleep(0.05)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    torch.set_num_threads(1)
    contenders = {
        "stoker": training,
        "stoker, unresting tasks": training_from_the_unresting,
        "idle loop": idle,
    }
    notes: list[str] = []
    try:
        import stable_baselines3  # noqa: F401

        contenders["Stable-Baselines3 in a thread"] = sb3_in_a_thread
    except ImportError:
        notes.append("Stable-Baselines3 is not installed: pip install 'stoker[bench]'")
    rows: dict[str, list[float]] = {}
    for name, contender in contenders.items():
        found = anyio.run(overshoots_ms, contender)
        for label, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            rows[f"{name}, {label}"] = [percentile(found, share)]
    ratios = {}
    for label in ("p50", "p99", "max"):
        peer = rows.get(f"Stable-Baselines3 in a thread, {label}")
        if peer:
            ratios[f"Stable-Baselines3 / stoker, {label}"] = peer[0] / rows[f"stoker, {label}"][0]
    report("Overshoot of a 1 ms sleep while DQN learns flat out", "ms", rows, ratios, notes)


if __name__ == "__main__":
    main()
