"""How many environment steps per second does DQN on CartPole make, end to end?

The reference's settings: one optimization step per environment step, batch 64, hidden [64, 64], gradients
limited to a norm of 10. Against Stable-Baselines3's DQN with the same settings; against a bare torch loop of
the same update, as a textbook has it, on data that is already there; and against the agent's own update: the
limit. Rows, journal and checkpoints are on. Then the same with 64 environments as arrays and one update for
each round of them, against Stable-Baselines3's DQN on its ``DummyVecEnv``.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

import anyio
import gymnasium
import msgspec
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.measure import QUICK, repeated, report
from stoker import (
    DQN,
    DQNConfig,
    EpisodeStatus,
    Experience,
    TrainConfig,
    TrainingRun,
    TrainingSession,
    run_vector_actors,
    train,
)
from stoker.trainer import config_from

N_STEPS = 4_000 if QUICK else 15_000
WARMUP = 1_000
RUNS = 1 if QUICK else 5
N_ENVS = 64
N_VECTOR_STEPS = N_ENVS * (500 if QUICK else 2_000)
REFERENCE: dict[str, Any] = {
    "learning_rate": 3e-4, "batch_size": 64, "learning_starts": WARMUP, "target_update_interval": 500,
    "hidden_sizes": (64, 64), "n_step": 1, "normalize_observations": False, "double": False, "tau": None,
    "max_grad_norm": 10.0, "opt_interval": 1, "num_envs": 8,
}  # fmt: skip


def stoker_rate(n_steps: int = N_STEPS, **settings: Any) -> float:
    """Environment steps per second of ``stoker train`` with these settings besides the reference's."""

    async def main() -> float:
        settled = {"total_timesteps": n_steps + WARMUP, "eval_freq": 0, **REFERENCE, **settings}
        config: TrainConfig = config_from({"env": "CartPole-v1", **settled})
        with tempfile.TemporaryDirectory() as root:
            run = await TrainingRun.create("bench", root=root)
            result = await train(config, run)
        # The warm-up without learning is counted for everybody.
        return result.steps_per_sec

    return anyio.run(main)


def agent_config() -> DQNConfig:
    named = {name: value for name, value in REFERENCE.items() if name in DQNConfig.__struct_fields__}
    return msgspec.convert(named, DQNConfig)


def update_rate() -> float:
    """The agent's updates per second on a full replay, nothing else; the warm-up is added, as others do."""
    env = gymnasium.make("CartPole-v1")
    agent = DQN(env.observation_space, env.action_space, agent_config(), seed=0)
    agent.observe(transitions(env))
    started = time.perf_counter()
    for _ in range(N_STEPS):
        agent.learn()
    return (N_STEPS + WARMUP) / (time.perf_counter() - started)


def textbook_rate() -> float:
    """Updates per second of the same update in plain torch, on tensors that are already there."""
    found = transitions(gymnasium.make("CartPole-v1"))
    observations = torch.as_tensor(np.stack([one.observation for one in found]))
    following = torch.as_tensor(np.stack([one.next_observation for one in found]))
    actions = torch.tensor([one.action for one in found])
    rewards = torch.tensor([one.reward for one in found])
    masks = torch.tensor([one.status.bootstrap_mask for one in found])
    online, target = (
        nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
        for _ in range(2)
    )
    target.load_state_dict(online.state_dict())
    optimizer = torch.optim.Adam(online.parameters(), lr=3e-4, fused=True)
    started = time.perf_counter()
    for step in range(1, N_STEPS + 1):
        rows = torch.randint(WARMUP, (64,))
        with torch.no_grad():
            best = target(following[rows]).amax(dim=1)
            goals = rewards[rows] + 0.99 * masks[rows] * best
        values = online(observations[rows]).gather(1, actions[rows].unsqueeze(1)).squeeze(1)
        loss = functional.smooth_l1_loss(values, goals)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(online.parameters(), 10.0)
        optimizer.step()
        loss.item()
        if step % 500 == 0:
            target.load_state_dict(online.state_dict())
    return (N_STEPS + WARMUP) / (time.perf_counter() - started)


def transitions(env: gymnasium.Env[Any, Any]) -> list[Experience]:
    """As many as the warm-up has, by random actions."""
    found: list[Experience] = []
    observation, _ = env.reset(seed=0)
    for _ in range(WARMUP):
        action = int(env.action_space.sample())
        following, reward, terminated, truncated, _ = env.step(action)
        status = EpisodeStatus.of(terminated, truncated)
        found.append(Experience(observation, action, float(reward), following, status))
        observation = env.reset()[0] if status.is_done else following
    return found


def sb3_rate(n_steps: int = N_STEPS, n_envs: int = 1) -> float:
    from stable_baselines3 import DQN as SB3DQN
    from stable_baselines3.common.vec_env import DummyVecEnv

    model = SB3DQN(
        "MlpPolicy",
        DummyVecEnv([lambda: gymnasium.make("CartPole-v1")] * n_envs),
        learning_rate=3e-4,
        buffer_size=100_000,
        learning_starts=WARMUP,
        batch_size=64,
        gamma=0.99,
        train_freq=1,
        gradient_steps=1,
        target_update_interval=500,
        exploration_fraction=10_000 / (n_steps + WARMUP) if n_steps > 10_000 else 1.0,
        exploration_final_eps=0.01,
        policy_kwargs={"net_arch": [64, 64]},
        device="cpu",
        seed=0,
    )
    started = time.perf_counter()
    model.learn(n_steps + WARMUP)
    return (n_steps + WARMUP) / (time.perf_counter() - started)


def vector_rate(vectorization: str) -> float:
    """The same of a session without a run, fed by ``run_vector_actors``."""

    async def main() -> float:
        env = gymnasium.make("CartPole-v1")
        agent = DQN(env.observation_space, env.action_space, agent_config(), seed=0)
        n_steps = N_VECTOR_STEPS + WARMUP
        async with TrainingSession(agent, opt_interval=N_ENVS, max_steps=n_steps) as session:
            started = time.perf_counter()
            await run_vector_actors(
                session, lambda: gymnasium.make_vec("CartPole-v1", N_ENVS, vectorization), seed=0
            )
            return n_steps / (time.perf_counter() - started)

    return anyio.run(main)


def ask_about_vectors(peer: str | None) -> None:
    def trained(way: str) -> float:
        return stoker_rate(N_VECTOR_STEPS, num_envs=N_ENVS, opt_interval=N_ENVS, vectorize=way)

    contenders = {
        "sync": lambda: vector_rate("sync"),
        "sync, stoker train": lambda: trained("sync"),
        "native": lambda: vector_rate("vector_entry_point"),
        "native, stoker train": lambda: trained("native"),
    }
    if peer is not None:
        contenders[peer] = lambda: sb3_rate(N_VECTOR_STEPS, N_ENVS)
    rows = repeated(contenders, RUNS)
    median = {name: statistics.median(values) for name, values in rows.items()}
    ratios = {f"{name} / {peer}": median[name] / median[peer] for name in rows if peer and name != peer}
    question = f"DQN on {N_ENVS} vectorized CartPoles, one update per round"
    report(question, "environment steps per second", rows, ratios)


def main() -> None:
    torch.set_num_threads(1)
    contenders = {
        "stoker, 8 environments": stoker_rate,
        "bare torch loop": textbook_rate,
        "the agent's update alone": update_rate,
    }
    notes: list[str] = []
    theirs: str | None = None
    try:
        import stable_baselines3

        theirs = f"Stable-Baselines3 {stable_baselines3.__version__}"
        contenders[theirs] = sb3_rate
    except ImportError:
        notes.append("Stable-Baselines3 is not installed: pip install 'stoker[bench]'")
    rows = repeated(contenders, RUNS)
    median = {name: statistics.median(values) for name, values in rows.items()}
    ours, bare, alone, *peer = median.values()
    ratios = {
        "stoker / bare torch loop": ours / bare,
        "stoker / its update alone": ours / alone,
        "its update alone / bare torch loop": alone / bare,
    }
    if peer:
        ratios["stoker / Stable-Baselines3"] = ours / peer[0]
    report("DQN on CartPole, end to end", "environment steps per second", rows, ratios, notes)
    ask_about_vectors(theirs)


if __name__ == "__main__":
    main()
