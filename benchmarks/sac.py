"""How many environment steps per second does SAC on Pendulum make, and what does its update cost?

Networks of [256, 256] and batches of 256, one update per environment step, on one torch thread. Against
Stable-Baselines3's SAC with the same settings, from one environment and from eight, where each round of eight
steps is one update; the update alone against its ``train()``; and against the products of matrices that an
update cannot do without, one after the other: the limit of one core.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

import anyio
import gymnasium
import torch

from benchmarks.measure import QUICK, repeated, report
from stoker import SAC, EpisodeStatus, Experience, SACConfig, TrainConfig, TrainingRun, train

WARMUP = 256
N_UPDATES = 200 if QUICK else 1_000
N_ENVS = 8
RUNS = 1 if QUICK else 5
WIDTH = 256
N_PRODUCTS = 15
"""Of two 256 x 256 matrices, in an update: 1 + 2 forward for the targets, 2 forward and 4 backward for the
critics, 1 + 2 forward, 1 back through the smaller critics and 2 backward for the actor."""

CONFIG = SACConfig(
    learning_rate=3e-4, batch_size=WIDTH, buffer_size=100_000, learning_starts=WARMUP, tau=0.005, gamma=0.99,
    hidden_sizes=(WIDTH, WIDTH),
)  # fmt: skip


def trained_rate(n_envs: int) -> float:
    """Environment steps per second of ``stoker train``, one update per round; rows and journal are on."""

    async def main() -> float:
        config = TrainConfig(
            env="Pendulum-v1", agent="sac", agent_settings=CONFIG, num_envs=n_envs, opt_interval=n_envs,
            total_timesteps=WARMUP + N_UPDATES * n_envs, eval_freq=0,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as root:
            result = await train(config, await TrainingRun.create("bench", root=root))
        return result.steps_per_sec

    return anyio.run(main)


def filled_agent() -> SAC:
    """An agent whose replay holds transitions of random actions."""
    env = gymnasium.make("Pendulum-v1")
    env.action_space.seed(0)
    agent = SAC(env.observation_space, env.action_space, CONFIG)
    observation, _ = env.reset(seed=0)
    for _ in range(2 * WARMUP):
        action = env.action_space.sample()
        following, reward, terminated, truncated, _ = env.step(action)
        status = EpisodeStatus.of(terminated, truncated)
        agent.observe([Experience(observation, action, float(reward), following, status)])
        observation = env.reset()[0] if status.is_done else following
    return agent


def update_rate() -> float:
    agent = filled_agent()
    agent.learn()
    started = time.perf_counter()
    for _ in range(N_UPDATES):
        agent.learn()
    return N_UPDATES / (time.perf_counter() - started)


def products_rate() -> float:
    """Updates per second if they were nothing but their products."""
    left, right = (torch.randn(WIDTH, WIDTH) for _ in range(2))
    out = torch.empty(WIDTH, WIDTH)
    started = time.perf_counter()
    for _ in range(N_UPDATES * N_PRODUCTS):
        torch.mm(left, right, out=out)
    return N_UPDATES / (time.perf_counter() - started)


def peer(n_envs: int) -> Any:
    """Stable-Baselines3's SAC with these settings, the transitions of the warm-up learned from."""
    from stable_baselines3 import SAC as SB3SAC
    from stable_baselines3.common.vec_env import DummyVecEnv

    return SB3SAC(
        "MlpPolicy",
        DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")] * n_envs),
        learning_rate=3e-4,
        buffer_size=100_000,
        learning_starts=WARMUP,
        batch_size=WIDTH,
        tau=0.005,
        gamma=0.99,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": [WIDTH, WIDTH]},
        device="cpu",
        seed=0,
    )


def peer_rate(n_envs: int) -> float:
    model = peer(n_envs)
    n_steps = WARMUP + N_UPDATES * n_envs
    started = time.perf_counter()
    model.learn(n_steps)
    return n_steps / (time.perf_counter() - started)


def peer_update_rate() -> float:
    model = peer(1)
    model.learn(2 * WARMUP)
    started = time.perf_counter()
    model.train(N_UPDATES, WIDTH)
    return N_UPDATES / (time.perf_counter() - started)


def main() -> None:
    torch.set_num_threads(1)
    ours: dict[str, Any] = {
        "one environment": lambda: trained_rate(1),
        f"{N_ENVS} environments": lambda: trained_rate(N_ENVS),
        "the update alone": update_rate,
    }
    theirs: dict[str, Any] = {}
    notes: list[str] = []
    try:
        import stable_baselines3

        name = f"Stable-Baselines3 {stable_baselines3.__version__}"
        rates = (lambda: peer_rate(1), lambda: peer_rate(N_ENVS), peer_update_rate)
        theirs = {f"{name}, {what}": rate for what, rate in zip(ours, rates, strict=True)}
    except ImportError:
        notes.append("Stable-Baselines3 is not installed: pip install 'stoker[bench]'")
    rows = repeated({**ours, **theirs, "its products alone": products_rate}, RUNS)
    median = {name: statistics.median(values) for name, values in rows.items()}
    ratios = {
        f"{what} / {other}": median[what] / median[other] for what, other in zip(ours, theirs, strict=False)
    }
    ratios["the update alone / its products alone"] = (
        median["the update alone"] / median["its products alone"]
    )
    report(
        "SAC on Pendulum, one update per round",
        "environment steps or updates per second",
        rows,
        ratios,
        notes,
    )


if __name__ == "__main__":
    main()
