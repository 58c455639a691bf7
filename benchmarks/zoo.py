"""Does each preset learn its environment, and how soon, beside Stable-Baselines3 with its zoo's settings?

A training is one process: stoker's preset as ``stoker train`` runs it, with rows, journal, checkpoints and
evaluations; or Stable-Baselines3 with the hyperparameters of rl-baselines3-zoo 2.9.2, as it is, without
evaluations. When it has ended, the policy that it ended with plays 100 greedy episodes, off the clock, and so
does stoker's best one. ``python -m benchmarks.zoo [CASE ...]`` runs some cases, such as ``ppo/Acrobot-v1``.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import anyio
import gymnasium
import msgspec
import numpy as np
import torch

from benchmarks.measure import QUICK, machine
from stoker import PolicySnapshot, TrainingRun, make_gym, train
from stoker.trainer import agent_for, config_from, evaluate
from stoker.writer import load_checkpoint

GOALS = {
    "dqn/CartPole-v1": 475.0,
    "ppo/CartPole-v1": 475.0,
    "dqn/Acrobot-v1": -100.0,
    "ppo/Acrobot-v1": -100.0,
    "ppo/Pendulum-v1": -250.0,
}
N_SEEDS = 1 if QUICK else 5
EVAL_EPISODES = 100
EVAL_SEED = 1_000_000


class Outcome(msgspec.Struct, frozen=True):
    """What one training came to; rewards are means over 100 episodes."""

    system: str
    case: str
    seed: int
    steps: int
    took_s: float
    reward: float
    best: float | None = None


def stoker_outcome(case: str, seed: int) -> Outcome:
    agent_name, env_name = case.split("/")
    config = config_from({"env": env_name, "agent": agent_name, "seed": seed})
    torch.set_num_threads(config.torch_threads)

    async def main() -> Outcome:
        with tempfile.TemporaryDirectory(dir=".") as root:  # a disk; the system's /tmp may be memory
            run = await TrainingRun.create("bench", root=root)
            agent = agent_for(config)
            started = time.perf_counter()
            result = await train(config, run, agent=agent)
            took_s = time.perf_counter() - started
            reward = await judged(agent, env_name)
            agent.load_state_dict(load_checkpoint(run.best_checkpoint_path)["agent"])
            best = await judged(agent, env_name)
            return Outcome("stoker", case, seed, result.total_steps, took_s, reward, best)

    return anyio.run(main, backend_options={"use_uvloop": True})


async def judged(agent: Any, env_name: str) -> float:
    snapshot = PolicySnapshot(agent.policy(), total_steps=0, state={})
    found = await evaluate(snapshot, partial(make_gym, env_name), EVAL_EPISODES, seed=EVAL_SEED)
    return found.mean_reward


# Stable-Baselines3 -------------------------------------------------------------------------------------


def vectors(env_name: str, n_envs: int, seed: int, *, normalize: bool = False, gamma: float = 0.99) -> Any:
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    envs = make_vec_env(env_name, n_envs=n_envs, seed=seed)
    return VecNormalize(envs, gamma=gamma) if normalize else envs


def sb3_model(case: str, seed: int) -> tuple[Any, int]:
    from stable_baselines3 import DQN, PPO

    common: dict[str, Any] = {"policy": "MlpPolicy", "device": "cpu", "seed": seed}
    match case:
        case "dqn/CartPole-v1":
            return DQN(
                **common, env="CartPole-v1", learning_rate=2.3e-3, batch_size=64, buffer_size=100_000,
                learning_starts=1000, gamma=0.99, target_update_interval=10, train_freq=256,
                gradient_steps=128, exploration_fraction=0.16, exploration_final_eps=0.04,
                policy_kwargs={"net_arch": [256, 256]},
            ), 50_000  # fmt: skip
        case "dqn/Acrobot-v1":
            return DQN(
                **common, env="Acrobot-v1", learning_rate=6.3e-4, batch_size=128, buffer_size=50_000,
                learning_starts=0, gamma=0.99, target_update_interval=250, train_freq=4, gradient_steps=-1,
                exploration_fraction=0.12, exploration_final_eps=0.1,
                policy_kwargs={"net_arch": [256, 256]},
            ), 100_000  # fmt: skip
        case "ppo/CartPole-v1":
            return PPO(
                **common, env=vectors("CartPole-v1", 8, seed), n_steps=32, batch_size=256, gae_lambda=0.8,
                gamma=0.98, n_epochs=20, ent_coef=0.0, learning_rate=lambda left: left * 1e-3,
                clip_range=lambda left: left * 0.2,
            ), 100_000  # fmt: skip
        case "ppo/Acrobot-v1":
            envs = vectors("Acrobot-v1", 16, seed, normalize=True)
            return PPO(
                **common, env=envs, n_steps=256, gae_lambda=0.94, gamma=0.99, n_epochs=4, ent_coef=0.0
            ), 1_000_000
        case _:
            return PPO(
                **common, env=vectors("Pendulum-v1", 4, seed), n_steps=1024, gae_lambda=0.95, gamma=0.9,
                n_epochs=10, ent_coef=0.0, learning_rate=1e-3, clip_range=0.2, use_sde=True,
                sde_sample_freq=4,
            ), 100_000  # fmt: skip


def sb3_outcome(case: str, seed: int) -> Outcome:
    torch.set_num_threads(1)
    env_name = case.split("/")[1]
    model, budget = sb3_model(case, seed)
    started = time.perf_counter()
    model.learn(budget)
    took_s = time.perf_counter() - started
    normalizer = model.get_vec_normalize_env()

    def act(observations: Sequence[Any]) -> Any:
        rows = np.stack(observations)
        rows = rows if normalizer is None else normalizer.normalize_obs(rows)
        return model.predict(rows, deterministic=True)[0]

    return Outcome("sb3", case, seed, budget, took_s, played(act, env_name))


def played(act: Callable[[Sequence[Any]], Any], env_name: str) -> float:
    """The mean total reward of 100 episodes, played side by side."""
    envs = [gymnasium.make(env_name) for _ in range(EVAL_EPISODES)]
    running = {place: env.reset(seed=EVAL_SEED + place)[0] for place, env in enumerate(envs)}
    total = 0.0
    while running:
        actions = act(list(running.values()))
        for place, action in zip(list(running), actions, strict=True):
            running[place], reward, terminated, truncated, _ = envs[place].step(action)
            total += float(reward)
            if terminated or truncated:
                del running[place]
    return total / EVAL_EPISODES


# Together ----------------------------------------------------------------------------------------------


def trained(system: str, case: str, seed: int) -> Outcome:
    """One training in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.zoo", "--one", system, case, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Outcome)


def line(case: str, system: str, outcomes: Sequence[Outcome]) -> str:
    def median(name: str) -> float:
        return statistics.median(getattr(outcome, name) for outcome in outcomes)

    rewards = ", ".join(f"{outcome.reward:.0f}" for outcome in outcomes)
    best = "" if outcomes[0].best is None else f", its best one {median('best'):.1f}"
    return (
        f"  {system:<8} {median('steps'):>9,.0f} steps in {median('took_s'):6.1f} s; at the end "
        f"{median('reward'):.1f}{best} (goal {GOALS[case]:g}; seeds: {rewards})"
    )


def main() -> None:
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    if "--one" in sys.argv:
        system, case, seed = words
        outcome = (stoker_outcome if system == "stoker" else sb3_outcome)(case, int(seed))
        print(json.dumps(msgspec.to_builtins(outcome)))
        return
    if unknown := [case for case in words if case not in GOALS]:
        sys.exit(f"no such case: {', '.join(unknown)}; there are {', '.join(GOALS)}")
    print(f"\nzoo, medians of {N_SEEDS} seeds, {EVAL_EPISODES} greedy episodes each\n{machine()}")
    for case in words or GOALS:
        print(f"\n{case}")
        found = {
            system: [trained(system, case, seed) for seed in range(N_SEEDS)] for system in ("stoker", "sb3")
        }
        for system, outcomes in found.items():
            print(line(case, system, outcomes), flush=True)
        ours, theirs = (statistics.median(o.took_s for o in outcomes) for outcomes in found.values())
        print(f"  ratio    {theirs / ours:.2f} times as soon through")


if __name__ == "__main__":
    main()
