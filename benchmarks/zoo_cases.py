"""What ``zoo.py`` trains: environments, goals, and the settings with which Stable-Baselines3 trains them.

The settings are those of rl-baselines3-zoo 2.9 (``hyperparams/*.yml``), unchanged; those of MuJoCo tasks are
the zoo's for version 4. Within each group the cases that cost Stable-Baselines3 least come first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One agent on one environment.

    Attributes:
        agent: its name in stoker; Stable-Baselines3's is the same in capitals.
        env: a Gymnasium id.
        goal: the return that the final policy should have, as a median over the seeds; None: that of
            Stable-Baselines3.
        steps: of Stable-Baselines3; and of stoker if it is trained ``without_preset``.
        sb3: settings of Stable-Baselines3's algorithm; None: only stoker is trained.
        sb3_envs: how many environments Stable-Baselines3 steps together.
        normalizes: whether Stable-Baselines3 normalizes observations and rewards.
        without_preset: the environment is one of another name, for which nobody has tuned anything.
        total: stoker's ``total_timesteps``; None: the preset's.
        n_seeds: how many seeds the goal is judged by.
        n_reach: how many of them must reach the goal; None: their median.
    """

    agent: str
    env: str
    goal: float | None = None
    steps: int = 0
    sb3: Mapping[str, Any] | None = None
    sb3_envs: int = 1
    normalizes: bool = False
    without_preset: bool = False
    total: int | None = None
    n_seeds: int = 5
    n_reach: int | None = None

    @property
    def name(self) -> str:
        """How it is called on the command line."""
        if self.without_preset:
            return f"defaults/{self.agent}/{self.env}"
        return f"{self.agent}/{self.env}" + ("" if self.total is None else f"/{self.total}")


def falling(first: float) -> Callable[[float], float]:
    """A schedule that falls to 0: the zoo's ``lin_``."""
    return lambda left: left * first


def net(*sizes: int, **more: Any) -> dict[str, Any]:
    """Settings of a policy with hidden layers of these sizes."""
    return {"net_arch": list(sizes), **more}


PRESETS = (
    Case(
        agent="ppo", env="CartPole-v1", goal=475, steps=100_000, sb3_envs=8,
        sb3={
            "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20,
            "ent_coef": 0.0, "learning_rate": falling(1e-3), "clip_range": falling(0.2),
        },
    ),
    Case(
        agent="ppo", env="MountainCarContinuous-v0", goal=90, steps=20_000, normalizes=True,
        sb3={
            "batch_size": 256, "n_steps": 8, "gamma": 0.9999, "learning_rate": 7.77e-5, "ent_coef": 0.00429,
            "clip_range": 0.1, "n_epochs": 10, "gae_lambda": 0.9, "max_grad_norm": 5, "vf_coef": 0.19,
            "use_sde": True, "policy_kwargs": {"log_std_init": -3.29, "ortho_init": False},
        },
    ),
    Case(
        agent="ppo", env="Pendulum-v1", goal=-250, steps=100_000, sb3_envs=4,
        sb3={
            "n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9, "n_epochs": 10, "ent_coef": 0.0,
            "learning_rate": 1e-3, "clip_range": 0.2, "use_sde": True, "sde_sample_freq": 4,
        },
    ),
    Case(
        agent="dqn", env="CartPole-v1", goal=475, steps=50_000,
        sb3={
            "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1000,
            "gamma": 0.99, "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128,
            "exploration_fraction": 0.16, "exploration_final_eps": 0.04, "policy_kwargs": net(256, 256),
        },
    ),
    Case(
        agent="dqn", env="MountainCar-v0", goal=-120, steps=120_000,
        sb3={
            "learning_rate": 4e-3, "batch_size": 128, "buffer_size": 10_000, "learning_starts": 1000,
            "gamma": 0.98, "target_update_interval": 600, "train_freq": 16, "gradient_steps": 8,
            "exploration_fraction": 0.2, "exploration_final_eps": 0.07, "policy_kwargs": net(256, 256),
        },
    ),
    Case(
        agent="sac", env="MountainCarContinuous-v0", goal=90, steps=50_000,
        sb3={
            "learning_rate": 3e-4, "buffer_size": 50_000, "batch_size": 512, "ent_coef": 0.1,
            "train_freq": 32, "gradient_steps": 32, "gamma": 0.9999, "tau": 0.01, "learning_starts": 0,
            "use_sde": True, "policy_kwargs": net(64, 64, log_std_init=-3.67),
        },
    ),
    Case(agent="sac", env="Pendulum-v1", goal=-160, steps=20_000, sb3={"learning_rate": 1e-3}),
    *(
        Case(
            agent="dqn", env=env, goal=goal, steps=100_000,
            sb3={
                "learning_rate": 6.3e-4, "batch_size": 128, "buffer_size": 50_000, "learning_starts": 0,
                "gamma": 0.99, "target_update_interval": 250, "train_freq": 4, "gradient_steps": -1,
                "exploration_fraction": 0.12, "exploration_final_eps": 0.1, "policy_kwargs": net(256, 256),
            },
        )
        for env, goal in (("LunarLander-v3", 200), ("Acrobot-v1", -100))
    ),
    Case(
        agent="ppo", env="Acrobot-v1", goal=-100, steps=1_000_000, sb3_envs=16, normalizes=True,
        sb3={"n_steps": 256, "gae_lambda": 0.94, "gamma": 0.99, "n_epochs": 4, "ent_coef": 0.0},
    ),
    Case(
        agent="ppo", env="LunarLander-v3", goal=200, steps=1_000_000, sb3_envs=16,
        sb3={
            "n_steps": 1024, "batch_size": 64, "gae_lambda": 0.98, "gamma": 0.999, "n_epochs": 4,
            "ent_coef": 0.01,
        },
    ),
    Case(
        agent="sac", env="HalfCheetah-v5", steps=50_000, total=50_000, sb3={"learning_starts": 10_000},
    ),
    Case(
        agent="sac", env="BipedalWalker-v3", goal=250, steps=500_000,
        sb3={
            "learning_rate": 7.3e-4, "buffer_size": 300_000, "batch_size": 256, "ent_coef": "auto",
            "gamma": 0.98, "tau": 0.02, "train_freq": 64, "gradient_steps": 64, "learning_starts": 10_000,
            "use_sde": True, "policy_kwargs": net(400, 300, log_std_init=-3),
        },
    ),
    Case(
        agent="sac", env="LunarLanderContinuous-v3", goal=200, steps=500_000,
        sb3={
            "batch_size": 256, "learning_rate": falling(7.3e-4), "buffer_size": 1_000_000, "ent_coef": "auto",
            "gamma": 0.99, "tau": 0.01, "train_freq": 1, "gradient_steps": 1, "learning_starts": 10_000,
            "policy_kwargs": net(400, 300),
        },
    ),
    Case(
        agent="ppo", env="BipedalWalker-v3", goal=250, steps=5_000_000, sb3_envs=32, normalizes=True,
        sb3={
            "n_steps": 2048, "batch_size": 64, "gae_lambda": 0.95, "gamma": 0.999, "n_epochs": 10,
            "ent_coef": 0.0, "learning_rate": 3e-4, "clip_range": 0.18,
        },
    ),
)  # fmt: skip
"""stoker's presets beside the zoo's settings."""

DEFAULTS = tuple(
    Case(agent=agent, env=env, steps=steps, total=steps, sb3={}, sb3_envs=n_envs, without_preset=True)
    for agent, env, steps, n_envs in (
        ("ppo", "Pendulum-v1", 100_000, 8),
        ("ppo", "Acrobot-v1", 200_000, 8),
        ("ppo", "Hopper-v5", 200_000, 8),
        ("ppo", "LunarLander-v3", 300_000, 8),
        ("dqn", "Acrobot-v1", 100_000, 1),
        ("dqn", "LunarLander-v3", 100_000, 1),
        ("sac", "Pendulum-v1", 10_000, 1),
        ("sac", "LunarLanderContinuous-v3", 50_000, 1),
        ("sac", "Hopper-v5", 50_000, 1),
    )
)
"""Both systems' defaults, at equal steps."""

LENGTHS = tuple(
    Case(agent="dqn", env="CartPole-v1", goal=475, total=total, n_seeds=10, n_reach=9)
    for total in (20_000, 30_000, 50_000, 100_000)
)
"""Trainings of one preset, short and long: what was learned must not be forgotten."""

CASES = {case.name: case for case in (*PRESETS, *DEFAULTS, *LENGTHS)}
