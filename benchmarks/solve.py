"""How long does a training take until CartPole-v1 is solved: a mean of 475 over 100 greedy episodes?

stoker's presets, as ``stoker train`` runs them, with rows, journal and checkpoints; against
Stable-Baselines3's DQN and PPO with the hyperparameters that rl-baselines3-zoo tuned for CartPole-v1. Every
1,000 environment steps the policy of that moment is kept with the time so far, and judged off the clock,
always on the same 100 episodes: the time of the first that reaches 475 is the answer. A training that never
gets there counts with all of its time.
"""

from __future__ import annotations

import statistics
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

from benchmarks.measure import QUICK, report
from stoker import ActorGroup, TrainingRun, TrainingSession, make_gym
from stoker.agents.registry import presets
from stoker.trainer import agent_for, config_from
from stoker.trainer.training import session_settings

ENV = "CartPole-v1"
SOLVED_AT = 475.0
EVAL_EPISODES = 100
LONGEST = 500
EVERY = 1_000
N_STEPS = 50_000
N_SEEDS = 1 if QUICK else 5
FIRST_EVAL_SEED = 1_000_000
Act = Callable[[Any], Sequence[Any]]
"""The greedy actions for observations, float32 [B, 4]."""


class Outcome(msgspec.Struct, frozen=True):
    """When a training had solved it, or when it ended without that."""

    took_s: float
    steps: int
    is_solved: bool


def reaches_goal(act: Act, envs: list[gymnasium.Env[Any, Any]]) -> bool:
    """Play an episode in each, greedily; given up as soon as 475 is out of reach."""
    running = {place: env.reset(seed=FIRST_EVAL_SEED + place)[0] for place, env in enumerate(envs)}
    n_steps, lost = 0, 0
    while running:
        actions = act(np.stack(list(running.values())))
        n_steps += 1
        for place, action in zip(list(running), actions, strict=True):
            running[place], _, terminated, truncated, _ = envs[place].step(int(action))
            if terminated or truncated:
                lost += LONGEST - n_steps
                del running[place]
        if LONGEST - lost / EVAL_EPISODES < SOLVED_AT:
            return False
    return True


# stoker ------------------------------------------------------------------------------------------------


def stoker_outcome(agent_name: str, seed: int, envs: list[gymnasium.Env[Any, Any]]) -> Outcome:
    """Train in full, then judge what was kept."""
    values = {"env": ENV, "agent": agent_name, "total_timesteps": N_STEPS, "eval_freq": EVERY, "seed": seed}
    config = config_from(values)
    kept: list[tuple[float, int, Act]] = []

    async def keep(session: TrainingSession, started: float) -> None:
        while (snapshot := await session.next_evaluation()) is not None:
            kept.append((time.perf_counter() - started, snapshot.total_steps, snapshot.act))

    async def main() -> float:
        with tempfile.TemporaryDirectory(dir=".") as root:  # a disk; the system's /tmp may be memory
            run = await TrainingRun.create("bench", root=root)
            agent = agent_for(config)
            started = time.perf_counter()
            session = TrainingSession(agent, run, **session_settings(config))
            async with anyio.create_task_group() as keeping, session:
                keeping.start_soon(keep, session, started)
                await ActorGroup(session, partial(make_gym, ENV), config.num_envs, seed=seed).run()
                await session.snapshot()  # when the last step is learned, and its policy handed out
                return time.perf_counter() - started

    took_s = anyio.run(main)
    for kept_s, steps, act in kept:
        if reaches_goal(act, envs):
            return Outcome(kept_s, steps, is_solved=True)
    return Outcome(took_s, N_STEPS, is_solved=False)


# Stable-Baselines3 -------------------------------------------------------------------------------------


def sb3_dqn(seed: int) -> tuple[Any, int]:
    from stable_baselines3 import DQN

    model = DQN(
        "MlpPolicy", ENV, learning_rate=2.3e-3, batch_size=64, buffer_size=100_000, learning_starts=1000,
        gamma=0.99, target_update_interval=10, train_freq=256, gradient_steps=128, exploration_fraction=0.16,
        exploration_final_eps=0.04, policy_kwargs={"net_arch": [256, 256]}, device="cpu", seed=seed,
    )  # fmt: skip
    return model, 50_000


def sb3_ppo(seed: int) -> tuple[Any, int]:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    model = PPO(
        "MlpPolicy", make_vec_env(ENV, n_envs=8, seed=seed), n_steps=32, batch_size=256, gae_lambda=0.8,
        gamma=0.98, n_epochs=20, ent_coef=0.0, learning_rate=lambda remaining: remaining * 1e-3,
        clip_range=lambda remaining: remaining * 0.2, device="cpu", seed=seed,
    )  # fmt: skip
    return model, 100_000


def sb3_outcome(
    make: Callable[[int], tuple[Any, int]], seed: int, envs: list[gymnasium.Env[Any, Any]]
) -> Outcome:
    """Judge each policy at once, with the clock stopped, and end with the first that will do."""
    from stable_baselines3.common.callbacks import BaseCallback

    model, budget = make(seed)

    class Judge(BaseCallback):
        stopped_s = 0.0
        solved: Outcome | None = None

        def _on_step(self) -> bool:
            if self.num_timesteps % EVERY:
                return True
            judged_at = time.perf_counter()
            if reaches_goal(lambda seen: model.predict(seen, deterministic=True)[0], envs):
                self.solved = Outcome(
                    judged_at - started - self.stopped_s, self.num_timesteps, is_solved=True
                )
            self.stopped_s += time.perf_counter() - judged_at
            return self.solved is None

    judge = Judge()
    started = time.perf_counter()
    model.learn(budget, callback=judge)
    took_s = time.perf_counter() - started - judge.stopped_s
    return judge.solved or Outcome(took_s, budget, is_solved=False)


def main() -> None:
    torch.set_num_threads(1)
    ours: dict[str, Callable[..., Outcome]] = {
        f"stoker, {agent}": partial(stoker_outcome, agent) for agent, env in presets() if env == ENV
    }
    theirs: dict[str, Callable[..., Outcome]] = {}
    notes = ["target: half of the time of the better of Stable-Baselines3's two, or less"]
    try:
        import stable_baselines3

        version = stable_baselines3.__version__
        theirs[f"Stable-Baselines3 {version}, DQN of the zoo"] = partial(sb3_outcome, sb3_dqn)
        theirs[f"Stable-Baselines3 {version}, PPO of the zoo"] = partial(sb3_outcome, sb3_ppo)
    except ImportError:
        notes.append("Stable-Baselines3 is not installed: pip install 'stoker[bench]'")
    envs = [gymnasium.make(ENV) for _ in range(EVAL_EPISODES)]
    found: dict[str, list[Outcome]] = {name: [] for name in (*ours, *theirs)}
    for seed in range(N_SEEDS):
        for name, train in (ours | theirs).items():
            found[name].append(train(seed, envs))
    rows = {name: [one.took_s for one in outcomes] for name, outcomes in found.items()}
    median = {name: statistics.median(values) for name, values in rows.items()}
    best = min(median[name] for name in ours)
    ratios = {f"{name} / stoker": median[name] / best for name in theirs}
    if theirs:
        ratios["best of Stable-Baselines3 / best of stoker"] = min(median[name] for name in theirs) / best
    for name, outcomes in found.items():
        unsolved = sum(not one.is_solved for one in outcomes)
        said = f"; {unsolved} never got there and count with all of their time" if unsolved else ""
        notes.append(f"{name}: solved by {N_SEEDS - unsolved} of {N_SEEDS} seeds{said}")
    report(f"{ENV} solved, time of training", "s", rows, ratios, notes)
    steps = {name: [float(one.steps) for one in outcomes] for name, outcomes in found.items()}
    report(f"{ENV} solved, steps of training", "environment steps", steps, {})


if __name__ == "__main__":
    main()
