"""How fast does IQN learn CartPole, against the same update in plain torch?

Batch 64, hidden [64, 64], 64 cosines, 8 quantiles learned from 8, values by the mean of 32, gradients limited
to a norm of 10. The agent's update alone, on a full replay; the same as a textbook has it, with autograd, on
data that is already there; and ``stoker train`` end to end from 8 environments with one update per step, with
rows, journal and checkpoints.
"""

from __future__ import annotations

import math
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

from benchmarks.dqn import WARMUP, transitions
from benchmarks.measure import QUICK, repeated, report
from stoker import IQN, IQNConfig, TrainConfig, TrainingRun, train
from stoker.trainer import config_from

N_STEPS = 1_000 if QUICK else 5_000
RUNS = 1 if QUICK else 5
SETTINGS: dict[str, Any] = {
    "learning_rate": 3e-4, "batch_size": 64, "learning_starts": WARMUP, "target_update_interval": 500,
    "hidden_sizes": (64, 64), "n_quantiles": 8, "n_target_quantiles": 8, "n_acting_quantiles": 32,
    "n_cosines": 64, "double": False, "n_step": 1, "tau": None, "max_grad_norm": 10.0,
}  # fmt: skip


def update_rate() -> float:
    """The agent's updates per second on a full replay, nothing else."""
    env = gymnasium.make("CartPole-v1")
    agent = IQN(env.observation_space, env.action_space, msgspec.convert(SETTINGS, IQNConfig), seed=0)
    agent.observe(transitions(env))
    started = time.perf_counter()
    for _ in range(N_STEPS):
        agent.learn()
    return N_STEPS / (time.perf_counter() - started)


class Plain(nn.Module):
    """``f(psi(x) * phi(tau))`` (Dabney et al. 2018, section 3.1)."""

    def __init__(self) -> None:
        super().__init__()
        self.psi = nn.Sequential(nn.Linear(4, 64), nn.ReLU())
        self.phi = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        self.f = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
        self.register_buffer("frequencies", torch.arange(64) * math.pi)

    def forward(self, observations: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
        """Quantiles ``[B, N, 2]`` of observations ``[B, 4]`` at fractions ``[B, N]``."""
        embedding = self.phi(torch.cos(fractions.unsqueeze(2) * self.frequencies))
        return self.f(self.psi(observations).unsqueeze(1) * embedding)


def textbook_rate() -> float:
    """Updates per second of the same update in plain torch, on tensors that are already there."""
    found = transitions(gymnasium.make("CartPole-v1"))
    observations = torch.as_tensor(np.stack([one.observation for one in found]))
    following = torch.as_tensor(np.stack([one.next_observation for one in found]))
    actions = torch.tensor([one.action for one in found])
    rewards = torch.tensor([one.reward for one in found])
    masks = torch.tensor([one.status.bootstrap_mask for one in found])
    online, target = Plain(), Plain()
    target.load_state_dict(online.state_dict())
    optimizer = torch.optim.Adam(online.parameters(), lr=3e-4, fused=True)
    midpoints = ((torch.arange(32) + 0.5) / 32).expand(64, 32)
    started = time.perf_counter()
    for step in range(1, N_STEPS + 1):
        rows = torch.randint(WARMUP, (64,))
        with torch.no_grad():
            best = target(following[rows], midpoints).mean(dim=1).argmax(dim=1)
            samples = target(following[rows], torch.rand(64, 8))
            samples = samples.gather(2, best.view(-1, 1, 1).expand(-1, 8, 1)).squeeze(2)
            goals = rewards[rows].unsqueeze(1) + 0.99 * masks[rows].unsqueeze(1) * samples
        fractions = torch.rand(64, 8)
        quantiles = online(observations[rows], fractions)
        taken = quantiles.gather(2, actions[rows].view(-1, 1, 1).expand(-1, 8, 1)).squeeze(2)
        errors = goals.unsqueeze(1) - taken.unsqueeze(2)  # [B, N, N']
        huber = torch.where(errors.abs() <= 1.0, 0.5 * errors**2, errors.abs() - 0.5)
        shares = (fractions.unsqueeze(2) - (errors.detach() < 0).float()).abs()
        loss = (shares * huber).mean(dim=2).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(online.parameters(), 10.0)
        optimizer.step()
        loss.item()
        if step % 500 == 0:
            target.load_state_dict(online.state_dict())
    return N_STEPS / (time.perf_counter() - started)


def stoker_rate() -> float:
    """Environment steps per second of ``stoker train``; the warm-up without learning is not counted."""

    async def main() -> float:
        settled = {"total_timesteps": N_STEPS + WARMUP, "eval_freq": 0, "num_envs": 8, "opt_interval": 1}
        config: TrainConfig = config_from({"env": "CartPole-v1", "agent": "iqn", **SETTINGS, **settled})
        with tempfile.TemporaryDirectory() as root:
            result = await train(config, await TrainingRun.create("bench", root=root))
        return N_STEPS / ((N_STEPS + WARMUP) / result.steps_per_sec)

    return anyio.run(main)


def main() -> None:
    torch.set_num_threads(1)
    contenders = {
        "the agent's update alone": update_rate,
        "plain torch": textbook_rate,
        "stoker train, 8 environments": stoker_rate,
    }
    rows = repeated(contenders, RUNS)
    alone, plain, trained = (statistics.median(values) for values in rows.values())
    ratios = {
        "update alone / plain torch": alone / plain,
        "stoker train / plain torch": trained / plain,
        "stoker train / update alone": trained / alone,
    }
    report("IQN on CartPole, one update per step", "updates per second", rows, ratios)


if __name__ == "__main__":
    main()
