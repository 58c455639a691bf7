"""How many environment steps per second does PPO make on CartPole, from single and from vector environments?

Eight environments with rollouts of 1,024 and minibatches of 64: each an actor by itself, and as arrays. 64 as
arrays with rollouts of 8,192 and minibatches of 1,024: without a run, with run and journal, stepped by two
worker processes, and in the environment's own vector form. 256 in the latter. Four epochs each, two networks
of [64, 64] with tanh. Against Stable-Baselines3's PPO with the same settings on its ``DummyVecEnv``; and the
update alone against its ``train()`` on a rollout of the same size.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import anyio
import gymnasium
import numpy as np
import torch

from benchmarks.measure import QUICK, repeated, report
from stoker import (
    PPO,
    ActMode,
    EpisodeStatus,
    Experience,
    PPOConfig,
    TrainingRun,
    TrainingSession,
    run_actors,
    run_vector_actors,
)

RUNS = 1 if QUICK else 5
SHAPES: dict[int, tuple[int, int]] = {8: (1_024, 64), 64: (8_192, 1_024), 256: (32_768, 4_096)}
"""By the number of environments: the steps of a rollout and of a minibatch."""


def n_steps(n_envs: int) -> int:
    return SHAPES[n_envs][0] * ((2 if QUICK else 8) if n_envs > 8 else (8 if QUICK else 40))


def make_agent(n_envs: int) -> PPO:
    env = gymnasium.make("CartPole-v1")
    rollout_steps, batch_size = SHAPES[n_envs]
    config = PPOConfig(
        rollout_steps=rollout_steps,
        batch_size=batch_size,
        n_epochs=4,
        hidden_sizes=(64, 64),
        activation="tanh",
        learning_rate=3e-4,
    )
    return PPO(env.observation_space, env.action_space, config, seed=0)


def make_vector(n_envs: int, vectorization: str) -> Any:
    return gymnasium.make_vec("CartPole-v1", n_envs, vectorization)


class Way(NamedTuple):
    """A way to train from the environments; with worker processes, each has an equal share."""

    vectorization: str | None = "sync"
    has_run: bool = False
    n_workers: int = 0


class Clock:
    """Measures from when the environments are there: a process takes seconds to import torch."""

    def __init__(self) -> None:
        self.started, self.first_steps = time.perf_counter(), 0

    async def restart_when_played(self, session: TrainingSession) -> None:
        while not session.total_steps:  # noqa: ASYNC110 - nothing says when
            await anyio.sleep(1e-3)
        self.started, self.first_steps = time.perf_counter(), session.total_steps


def stoker_rate(n_envs: int, way: Way) -> float:
    async def main() -> float:
        with contextlib.ExitStack() as stack:
            run = None
            if way.has_run:
                root = stack.enter_context(tempfile.TemporaryDirectory(dir="."))  # a disk, as /tmp may not be
                run = await TrainingRun.create("bench", root=root)
            settings = {"max_steps": n_steps(n_envs), "checkpoint_freq": 100_000}  # one every few seconds
            session = TrainingSession(make_agent(n_envs), run, **settings)
            async with session, anyio.create_task_group() as tasks:
                clock = Clock()
                if way.vectorization is None:
                    await run_actors(session, lambda: gymnasium.make("CartPole-v1"), n_envs, seed=0)
                elif not way.n_workers:
                    make = partial(make_vector, n_envs, way.vectorization)
                    await run_vector_actors(session, make, seed=0)
                else:
                    tasks.start_soon(clock.restart_when_played, session)
                    make = partial(make_vector, n_envs // way.n_workers, way.vectorization)
                    places: dict[str, Any] = {"place": "processes", "workers": way.n_workers}
                    await run_vector_actors(session, make, range(n_envs), seed=0, **places)
            return (n_steps(n_envs) - clock.first_steps) / (time.perf_counter() - clock.started)

    return anyio.run(main)


def sb3_model(n_envs: int) -> Any:
    from stable_baselines3 import PPO as SB3PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    rollout_steps, batch_size = SHAPES[n_envs]
    return SB3PPO(
        "MlpPolicy",
        DummyVecEnv([lambda: gymnasium.make("CartPole-v1")] * n_envs),
        n_steps=rollout_steps // n_envs,
        batch_size=batch_size,
        n_epochs=4,
        learning_rate=3e-4,
        policy_kwargs={"net_arch": [64, 64]},
        device="cpu",
        seed=0,
    )


def sb3_rate(n_envs: int) -> float:
    model = sb3_model(n_envs)
    started = time.perf_counter()
    model.learn(n_steps(n_envs))
    return n_steps(n_envs) / (time.perf_counter() - started)


def update_ms(n_envs: int) -> float:
    """The milliseconds of an update on a full rollout."""
    agent = make_agent(n_envs)
    policy, rng = agent.policy(), np.random.default_rng(0)
    found: list[float] = []
    for _ in range(5):
        for _ in range(SHAPES[n_envs][0] // n_envs):
            observations = rng.uniform(-0.5, 0.5, (n_envs, 4)).astype(np.float32)
            actions, extras = policy.act(list(observations), ActMode.EXPLORE)
            assert extras is not None
            agent.observe(
                [
                    Experience(
                        observations[i],
                        actions[i],
                        1.0,
                        observations[i],
                        EpisodeStatus.CONTINUING,
                        i,
                        extras[i],
                    )
                    for i in range(n_envs)
                ]
            )
        started = time.perf_counter()
        agent.learn()
        found.append(1e3 * (time.perf_counter() - started))
    return statistics.median(found)


def sb3_update_ms(n_envs: int) -> float:
    """The same of its ``train``."""
    model = sb3_model(n_envs)
    model.learn(SHAPES[n_envs][0])
    found: list[float] = []
    for _ in range(5):
        started = time.perf_counter()
        model.train()
        found.append(1e3 * (time.perf_counter() - started))
    return statistics.median(found)


def ask(
    question: str, unit: str, contenders: dict[str, Callable[[], float]], *, more_is_better: bool
) -> None:
    """Measure the contenders, and print the ratio of each of stoker's to the last, which is the peer's."""
    rows = repeated(contenders, RUNS)
    *ours, peer = rows
    ratios = {
        f"{name} / {peer}": statistics.median(rows[name]) / statistics.median(rows[peer]) for name in ours
    }
    if not more_is_better:
        ratios = {f"{peer} / {name}": 1 / ratio for name, ratio in zip(ours, ratios.values(), strict=True)}
    report(question, unit, rows, ratios)


WAYS: dict[int, dict[str, Way]] = {
    8: {"one by one": Way(None), "sync": Way()},
    64: {
        "sync": Way(),
        "sync, with run and journal": Way(has_run=True),
        "sync, in two processes": Way(n_workers=2),
        "native": Way("vector_entry_point"),
        "native, with run and journal": Way("vector_entry_point", has_run=True),
    },
    256: {"native": Way("vector_entry_point")},
}


def main() -> None:
    torch.set_num_threads(1)
    peer = "Stable-Baselines3"
    for n_envs, ways in WAYS.items():
        contenders: dict[str, Callable[[], float]] = {
            name: partial(stoker_rate, n_envs, way) for name, way in ways.items()
        }
        contenders[peer] = partial(sb3_rate, n_envs)
        ask(f"PPO on {n_envs} CartPoles", "environment steps per second", contenders, more_is_better=True)
        ask(
            f"PPO's update alone, {SHAPES[n_envs][0]:,} steps in minibatches of {SHAPES[n_envs][1]:,}",
            "ms",
            {"stoker": partial(update_ms, n_envs), peer: partial(sb3_update_ms, n_envs)},
            more_is_better=False,
        )


if __name__ == "__main__":
    main()
