"""How many environment steps per second does DQN on CartPole make, end to end?

The reference's settings: one optimisation step per environment step, batch 64, hidden [64, 64]. Against
Stable-Baselines3's DQN with the same settings, and against a bare loop of the same update on data that is
already there: the limit. Rows and checkpoints are on.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

import anyio
import gymnasium
import msgspec
import torch

from benchmarks.measure import QUICK, repeated, report
from stoker import DQN, EpisodeStatus, Experience, TrainConfig, TrainingRun, preset, train
from stoker.trainer import config_from

N_STEPS = 4_000 if QUICK else 15_000
WARMUP = 1_000
RUNS = 1 if QUICK else 5
REFERENCE: dict[str, Any] = {"n_step": 1, "normalize_observations": False}  # what the preset adds is left out


def stoker_rate() -> float:
    async def main() -> float:
        config: TrainConfig = config_from(
            {"env": "CartPole-v1", "total_timesteps": N_STEPS + WARMUP, "eval_freq": 0, **REFERENCE}
        )
        with tempfile.TemporaryDirectory() as root:
            run = await TrainingRun.create("bench", root=root)
            result = await train(config, run)
        # The warm-up without learning is counted for everybody.
        return result.steps_per_sec

    return anyio.run(main)


def bare_rate() -> float:
    """Updates per second on a full replay, nothing else; the warm-up is added as the others have it."""
    env = gymnasium.make("CartPole-v1")
    config = msgspec.structs.replace(preset("dqn", "CartPole-v1"), **REFERENCE)
    agent = DQN(env.observation_space, env.action_space, config, seed=0)
    observation, _ = env.reset(seed=0)
    for _ in range(WARMUP):
        action = env.action_space.sample()
        following, reward, terminated, truncated, _ = env.step(action)
        status = EpisodeStatus.of(terminated, truncated)
        agent.observe([Experience(observation, int(action), float(reward), following, status)])
        observation = env.reset()[0] if status.is_done else following
    started = time.perf_counter()
    for _ in range(N_STEPS):
        agent.learn()
    return (N_STEPS + WARMUP) / (time.perf_counter() - started)


def sb3_rate() -> float:
    from stable_baselines3 import DQN as SB3DQN

    model = SB3DQN(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=3e-4,
        buffer_size=100_000,
        learning_starts=WARMUP,
        batch_size=64,
        gamma=0.99,
        train_freq=1,
        gradient_steps=1,
        target_update_interval=500,
        exploration_fraction=10_000 / (N_STEPS + WARMUP) if N_STEPS > 10_000 else 1.0,
        exploration_final_eps=0.01,
        policy_kwargs={"net_arch": [64, 64]},
        device="cpu",
        seed=0,
    )
    started = time.perf_counter()
    model.learn(N_STEPS + WARMUP)
    return (N_STEPS + WARMUP) / (time.perf_counter() - started)


def main() -> None:
    torch.set_num_threads(1)
    contenders = {"stoker, 8 environments": stoker_rate, "bare update loop (the limit)": bare_rate}
    notes: list[str] = []
    try:
        import stable_baselines3

        contenders[f"Stable-Baselines3 {stable_baselines3.__version__}"] = sb3_rate
    except ImportError:
        notes.append("Stable-Baselines3 is not installed: pip install 'stoker[bench]'")
    rows = repeated(contenders, RUNS)
    median = {name: statistics.median(values) for name, values in rows.items()}
    ours, bare, *peer = median.values()
    ratios = {"stoker / bare loop": ours / bare}
    if peer:
        ratios["stoker / Stable-Baselines3"] = ours / peer[0]
    report("DQN on CartPole, end to end", "environment steps per second", rows, ratios, notes)


if __name__ == "__main__":
    main()
