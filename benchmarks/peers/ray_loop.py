"""The loop that people write on Ray: each Ray actor plays some environments and returns a batch of steps.

The environments of an actor step one after the other, or in threads; one forward pass is for all of them.
The learner has a replay and plain torch's DQN, puts its weights into the object store for each batch that
arrives, and asks that actor for its next one. An actor that dies ends the loop; nothing is written down.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import ray
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

BATCH, GAMMA, COPY_INTERVAL, CAPACITY = 64, 0.99, 500, 100_000


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


class Player:
    """Plays environments of CartPole's spaces; a Ray actor."""

    def __init__(self, factory: Callable[[], Any], n_envs: int, *, in_threads: bool) -> None:
        torch.set_num_threads(1)
        self.envs = [factory() for _ in range(n_envs)]
        self.network = network()
        self.now = np.stack([env.reset(seed=seed)[0] for seed, env in enumerate(self.envs)])
        self.map = ThreadPoolExecutor(n_envs).map if in_threads else map
        self.generator = np.random.default_rng()

    def play(self, weights: Any, n_rounds: int) -> dict[str, Any]:
        """The steps of that many rounds of all environments, as columns."""
        self.network.load_state_dict(weights)
        rounds: list[Any] = []
        for _ in range(n_rounds):
            with torch.no_grad():
                actions = self.network(torch.from_numpy(self.now)).argmax(1).numpy()
            explored = self.generator.random(len(actions)) < 0.1
            actions = np.where(explored, self.generator.integers(2, size=len(actions)), actions)
            steps = list(self.map(self.step, self.envs, actions))
            following = np.stack([step[0] for step in steps])
            rewards, ends = np.array([step[1] for step in steps], np.float32), [step[2] for step in steps]
            rounds.append((self.now, actions, rewards, following, np.array(ends, np.float32)))
            self.now = np.stack([step[3] for step in steps])
        return {"columns": [np.concatenate(column) for column in zip(*rounds, strict=True)]}

    @staticmethod
    def step(env: Any, action: Any) -> tuple[Any, float, bool, Any]:
        following, reward, terminated, truncated, _ = env.step(int(action))
        return following, reward, terminated, env.reset()[0] if terminated or truncated else following


class Learner:
    """Mnih et al. (2015), algorithm 1, with the Huber loss; one update for each 64 steps."""

    def __init__(self) -> None:
        self.network, self.target = network(), network()
        self.optimizer = torch.optim.Adam(self.network.parameters(), 3e-4)
        shapes: tuple[tuple[Any, Any], ...] = (
            ((CAPACITY, 4), np.float32), ((CAPACITY,), np.int64), ((CAPACITY,), np.float32),
            ((CAPACITY, 4), np.float32), ((CAPACITY,), np.float32),
        )  # fmt: skip
        self.replay = [np.zeros(shape, dtype) for shape, dtype in shapes]
        self.n_steps = self.n_updates = 0

    def add(self, columns: list[Any], *, learns: bool) -> None:
        where = np.arange(self.n_steps, self.n_steps + len(columns[0])) % CAPACITY
        for mine, new in zip(self.replay, columns, strict=True):
            mine[where] = new
        self.n_steps += len(columns[0])
        while learns and self.n_updates < (self.n_steps - 1_000) // BATCH:
            self.update()

    def update(self) -> None:
        rows = np.random.randint(min(self.n_steps, CAPACITY), size=BATCH)
        seen, actions, rewards, following, ends = (torch.from_numpy(column[rows]) for column in self.replay)
        with torch.no_grad():
            wanted = rewards + GAMMA * (1 - ends) * self.target(following).max(1).values
        values = self.network(seen).gather(1, actions[:, None]).squeeze(1)
        self.optimizer.zero_grad()
        F.smooth_l1_loss(values, wanted).backward()
        self.optimizer.step()
        self.n_updates += 1
        if self.n_updates % COPY_INTERVAL == 0:
            self.target.load_state_dict(self.network.state_dict())


def loop_rate(
    factory: Callable[[], Any],
    n_players: int,
    n_envs: int,
    n_rounds: int,
    *,
    in_threads: bool,
    learns: bool,
    warmup_s: float,
    seconds: float,
) -> tuple[float, float]:
    """Steps per second that arrived, and the seconds from the first line to the first batch."""
    began = time.perf_counter()
    kind: Any = ray.remote(Player)
    players = [
        kind.options(num_cpus=1).remote(factory, n_envs, in_threads=in_threads) for _ in range(n_players)
    ]
    learner = Learner()

    def ask(player: Any) -> Any:
        return player.play.remote(ray.put(learner.network.state_dict()), n_rounds)

    asked = {ask(player): player for player in players}
    start_s, started, first, until = 0.0, 0.0, 0, float("inf")
    while time.perf_counter() < until:
        [ready], _ = ray.wait(list(asked))
        player = asked.pop(ready)
        learner.add(ray.get(ready)["columns"], learns=learns)
        asked[ask(player)] = player
        now = time.perf_counter()
        if not start_s:
            start_s = now - began
        if not started and now - began >= start_s + warmup_s:
            started, first, until = now, learner.n_steps, now + seconds
    rate = (learner.n_steps - first) / (time.perf_counter() - started)
    for player in players:
        ray.kill(player)
    return rate, start_s
