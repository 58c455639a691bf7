"""The same updates as bare torch loops on tensors in memory, as single-file implementations have them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

BATCH, GAMMA, TAU = 256, 0.99, 0.005


def mlp(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, n_out)
    )


def batches(path: Path) -> tuple[dict[str, torch.Tensor], Iterator[dict[str, torch.Tensor]]]:
    with np.load(path, allow_pickle=False) as file:
        columns = {name: torch.from_numpy(file[name]) for name in file.files if name != "timeouts"}

    def draw() -> Iterator[dict[str, torch.Tensor]]:
        while True:
            rows = torch.randint(len(columns["rewards"]), (BATCH,))
            yield {name: column[rows] for name, column in columns.items()}

    return columns, draw()


def blend(target: nn.Module, source: nn.Module) -> None:
    with torch.no_grad():
        for mine, theirs in zip(target.parameters(), source.parameters(), strict=True):
            mine.lerp_(theirs, TAU)


def step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def rate(update: Callable[[dict[str, torch.Tensor]], None], drawn: Iterator[Any], n_updates: int) -> float:
    for _ in range(20):
        update(next(drawn))
    started = time.perf_counter()
    for _ in range(n_updates):
        update(next(drawn))
    return n_updates / (time.perf_counter() - started)


def dqn(path: Path, n_updates: int) -> float:
    """Mnih et al. (2015), algorithm 1, with the Huber loss."""
    columns, drawn = batches(path)
    network = mlp(columns["observations"].shape[1], 2)
    target, optimizer, done = copy.deepcopy(network), torch.optim.Adam(network.parameters()), 0

    def update(batch: dict[str, torch.Tensor]) -> None:
        nonlocal done
        with torch.no_grad():
            wanted = batch["rewards"] + GAMMA * target(batch["next_observations"]).max(1).values
        values = network(batch["observations"]).gather(1, batch["actions"][:, None]).squeeze(1)
        step(optimizer, F.smooth_l1_loss(values, wanted))
        done += 1
        if done % 500 == 0:
            target.load_state_dict(network.state_dict())

    return rate(update, drawn, n_updates)


def td3(path: Path, n_updates: int) -> float:
    """Fujimoto et al. (2018), algorithm 1; the actor learns at every second update."""
    columns, drawn = batches(path)
    n_seen, n_done = columns["observations"].shape[1], columns["actions"].shape[1]
    actor = nn.Sequential(mlp(n_seen, n_done), nn.Tanh())
    critics = nn.ModuleList([mlp(n_seen + n_done, 1), mlp(n_seen + n_done, 1)])
    far_actor, far_critics = copy.deepcopy(actor), copy.deepcopy(critics)
    of_actor, of_critics = (torch.optim.Adam(part.parameters(), 3e-4) for part in (actor, critics))
    done = 0

    def update(batch: dict[str, torch.Tensor]) -> None:
        nonlocal done
        with torch.no_grad():
            noise = (torch.randn_like(batch["actions"]) * 0.2).clamp(-0.5, 0.5)
            next_actions = (far_actor(batch["next_observations"]) + noise).clamp(-1, 1)
            after = torch.cat([batch["next_observations"], next_actions], 1)
            low = torch.min(far_critics[0](after), far_critics[1](after)).squeeze(1)
            wanted = batch["rewards"] + GAMMA * low
        now = torch.cat([batch["observations"], batch["actions"]], 1)
        step(of_critics, sum(F.mse_loss(critic(now).squeeze(1), wanted) for critic in critics))
        done += 1
        if done % 2 == 0:
            acted = torch.cat([batch["observations"], actor(batch["observations"])], 1)
            step(of_actor, -critics[0](acted).mean())
            blend(far_actor, actor)
            blend(far_critics, critics)

    return rate(update, drawn, n_updates)


def iql(path: Path, n_updates: int) -> float:
    """Kostrikov et al. (2022), equations 5 to 7."""
    columns, drawn = batches(path)
    n_seen, n_done = columns["observations"].shape[1], columns["actions"].shape[1]
    actor, log_std = nn.Sequential(mlp(n_seen, n_done), nn.Tanh()), nn.Parameter(torch.zeros(n_done))
    critics = nn.ModuleList([mlp(n_seen + n_done, 1), mlp(n_seen + n_done, 1)])
    value, far_critics = mlp(n_seen, 1), copy.deepcopy(critics)
    of_value, of_critics = (torch.optim.Adam(part.parameters(), 3e-4) for part in (value, critics))
    of_actor = torch.optim.Adam([*actor.parameters(), log_std], 3e-4)

    def update(batch: dict[str, torch.Tensor]) -> None:
        now = torch.cat([batch["observations"], batch["actions"]], 1)
        with torch.no_grad():
            next_values = value(batch["next_observations"]).squeeze(1)
            low = torch.min(far_critics[0](now), far_critics[1](now)).squeeze(1)
        advantages = low - value(batch["observations"]).squeeze(1)
        weights = torch.where(advantages > 0, 0.7, 0.3)
        step(of_value, (weights * advantages**2).mean())
        wanted = batch["rewards"] + GAMMA * next_values
        step(of_critics, sum(F.mse_loss(critic(now).squeeze(1), wanted) for critic in critics))
        blend(far_critics, critics)
        scales = torch.exp(3.0 * advantages.detach()).clamp(max=100.0)
        chosen = torch.distributions.Normal(actor(batch["observations"]), log_std.clamp(-5, 2).exp())
        step(of_actor, -(scales * chosen.log_prob(batch["actions"]).sum(1)).mean())

    return rate(update, drawn, n_updates)


PLAIN: Mapping[str, Callable[[Path, int], float]] = {"dqn": dqn, "td3": td3, "iql": iql}
"""By agent: optimization steps per second on the columns in a file."""
