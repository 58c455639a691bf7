"""What do a batch drawn from the replay, and a transition put into it, cost?

A full replay of a million transitions (100,000 with ``--quick``), sampled at random in batches of 64 and 256
for observations of 4 and 64 floats, and transitions put in one by one and 256 at a time. Beside it
Stable-Baselines3's ``ReplayBuffer`` as its DQN makes it, and the ring of five numpy arrays that tutorials
write. What a sample costs includes its way into tensors, all five columns.
"""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer

from benchmarks.measure import QUICK, repeated, report
from stoker.replay import UniformReplay
from stoker.types import EpisodeStatus, Experience

CAPACITY = 100_000 if QUICK else 1_000_000
SIZES = (4, 64)
BATCH_SIZES = (64, 256)
N_TOGETHER = 256
RUNS = 5 if QUICK else 9
SAMPLE_LOOPS = 200 if QUICK else 1_000
ADD_LOOPS = 2_000 if QUICK else 10_000
REPEATS = 5
CONTENDERS = ("stoker", "SB3 ReplayBuffer", "five numpy arrays")


class TutorialReplay:
    """Five arrays, a position and fancy indexing."""

    def __init__(self, capacity: int, n_floats: int) -> None:
        self.capacity, self.size, self.position = capacity, 0, 0
        self.observations = np.zeros((capacity, n_floats), np.float32)
        self.actions = np.zeros(capacity, np.int64)
        self.rewards = np.zeros(capacity, np.float32)
        self.next_observations = np.zeros((capacity, n_floats), np.float32)
        self.dones = np.zeros(capacity, np.float32)

    def add(
        self, observation: np.ndarray, action: int, reward: float, next_observation: np.ndarray, done: bool
    ) -> None:
        self.observations[self.position] = observation
        self.actions[self.position] = action
        self.rewards[self.position] = reward
        self.next_observations[self.position] = next_observation
        self.dones[self.position] = done
        self.position = (self.position + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def sample(self, batch_size: int) -> tuple[torch.Tensor, ...]:
        rows = np.random.randint(0, self.size, size=batch_size)
        return (
            torch.as_tensor(self.observations[rows]),
            torch.as_tensor(self.actions[rows]),
            torch.as_tensor(self.rewards[rows]),
            torch.as_tensor(self.next_observations[rows]),
            torch.as_tensor(self.dones[rows]),
        )


class Data:
    """As many transitions as the replays hold, the same for all of them."""

    def __init__(self, n_floats: int) -> None:
        generator = np.random.default_rng(0)
        self.n_floats = n_floats
        self.observations = generator.standard_normal((CAPACITY, n_floats), np.float32)
        self.next_observations = generator.standard_normal((CAPACITY, n_floats), np.float32)
        self.actions = generator.integers(0, 2, CAPACITY)
        self.rewards = generator.standard_normal(CAPACITY, np.float32)
        self.masks = np.ones(CAPACITY, np.float32)

    def columns(self) -> tuple[np.ndarray, ...]:
        return self.observations, self.actions, self.rewards, self.next_observations, self.masks

    def head(self, count: int) -> tuple[np.ndarray, ...]:
        return tuple(column[:count].copy() for column in self.columns())


def stable_baselines(n_floats: int, capacity: int, n_envs: int = 1) -> ReplayBuffer:
    box = gymnasium.spaces.Box(-np.inf, np.inf, (n_floats,), np.float32)
    return ReplayBuffer(capacity, box, gymnasium.spaces.Discrete(2), "cpu", n_envs)


def full_replays(data: Data) -> tuple[UniformReplay, ReplayBuffer, TutorialReplay]:
    ours = UniformReplay(CAPACITY, (data.n_floats,))
    ours.extend_columns(*data.columns())
    theirs = stable_baselines(data.n_floats, CAPACITY)
    plain = TutorialReplay(CAPACITY, data.n_floats)
    theirs.observations[:, 0] = plain.observations[:] = data.observations
    theirs.next_observations[:, 0] = plain.next_observations[:] = data.next_observations
    theirs.actions[:, 0, 0] = plain.actions[:] = data.actions
    theirs.rewards[:, 0] = plain.rewards[:] = data.rewards
    theirs.full = True
    plain.size = CAPACITY
    return ours, theirs, plain


def quickest_us(call: Callable[[], Any], loops: int) -> Callable[[], float]:
    """The quickest of several loops: other processes only ever add to it."""
    return lambda: min(timeit.repeat(call, number=loops, repeat=REPEATS)) / loops * 1e6


def per_s(call: Callable[[], Any], loops: int, count: int) -> Callable[[], float]:
    once = quickest_us(call, loops)
    return lambda: count * 1e6 / once()


def adding_one(replay: UniformReplay, data: Data) -> Callable[[], None]:
    observation, next_observation = data.observations[0].copy(), data.next_observations[0].copy()
    experience = Experience(observation, 1, 0.5, next_observation, EpisodeStatus.CONTINUING)
    return lambda: replay.add(experience)


def adding_one_theirs(replay: ReplayBuffer, data: Data) -> Callable[[], None]:
    """With the arrays of one environment that its training loop hands over."""
    observations, next_observations = data.observations[:1].copy(), data.next_observations[:1].copy()
    actions, rewards, dones = np.array([1]), np.array([0.5], np.float32), np.array([False])
    infos: list[dict[str, Any]] = [{}]
    return lambda: replay.add(observations, next_observations, actions, rewards, dones, infos)


def adding_one_plain(replay: TutorialReplay, data: Data) -> Callable[[], None]:
    observation, next_observation = data.observations[0].copy(), data.next_observations[0].copy()
    return lambda: replay.add(observation, 1, 0.5, next_observation, done=False)


def adding_many(replay: UniformReplay, data: Data) -> Callable[[], None]:
    columns = data.head(N_TOGETHER)
    return lambda: replay.extend_columns(*columns)


def adding_many_experiences(replay: UniformReplay, data: Data) -> Callable[[], None]:
    experiences = [
        Experience(observation.copy(), int(action), float(reward), then.copy(), EpisodeStatus.CONTINUING)
        for observation, action, reward, then, _ in zip(*data.head(N_TOGETHER), strict=True)
    ]
    return lambda: replay.extend(experiences)


def adding_many_theirs(data: Data) -> Callable[[], None]:
    """A buffer for 256 environments takes one step of each at a time."""
    replay = stable_baselines(data.n_floats, CAPACITY, N_TOGETHER)
    replay.observations[:] = replay.next_observations[:] = 1  # memory that was never written is slow at first
    observations, actions, rewards, next_observations, _ = data.head(N_TOGETHER)
    dones = np.zeros(N_TOGETHER, bool)
    infos: list[dict[str, Any]] = [{} for _ in range(N_TOGETHER)]
    return lambda: replay.add(observations, next_observations, actions, rewards, dones, infos)


def sampling() -> None:
    rows: dict[str, list[float]] = {}
    ratios: dict[str, float] = {}
    for n_floats in SIZES:
        replays = dict(zip(CONTENDERS, full_replays(Data(n_floats)), strict=True))
        for batch_size in BATCH_SIZES:
            case = f"{batch_size} x {n_floats} floats"
            found = repeated(
                {
                    name: quickest_us(partial(replay.sample, batch_size), SAMPLE_LOOPS)
                    for name, replay in replays.items()
                },
                RUNS,
            )
            rows |= {f"{case}: {name}": values for name, values in found.items()}
            mine = statistics.median(found["stoker"])
            ratios[f"{case}: SB3 / stoker"] = statistics.median(found["SB3 ReplayBuffer"]) / mine
            ratios[f"{case}: numpy / stoker"] = statistics.median(found["five numpy arrays"]) / mine
    report(f"Sampling from {CAPACITY:,} transitions", "us per sample", rows, ratios)


def inserting() -> None:
    rows: dict[str, list[float]] = {}
    ratios: dict[str, float] = {}
    for n_floats in SIZES:
        data = Data(n_floats)
        ours, theirs, plain = full_replays(data)
        together_loops = max(1, ADD_LOOPS // 20)
        found = repeated(
            {
                "one, stoker add": per_s(adding_one(ours, data), ADD_LOOPS, 1),
                "one, SB3 add": per_s(adding_one_theirs(theirs, data), ADD_LOOPS, 1),
                "one, five numpy arrays": per_s(adding_one_plain(plain, data), ADD_LOOPS, 1),
                "256, stoker extend": per_s(
                    adding_many_experiences(ours, data), together_loops // 4, N_TOGETHER
                ),
                "256, stoker extend_columns": per_s(adding_many(ours, data), together_loops, N_TOGETHER),
                "256, SB3 add, 256 envs": per_s(adding_many_theirs(data), together_loops, N_TOGETHER),
            },
            RUNS,
        )
        case = f"{n_floats} floats"
        rows |= {f"{case}: {name}": values for name, values in found.items()}
        one, together = (
            statistics.median(found["one, stoker add"]),
            statistics.median(found["256, stoker extend_columns"]),
        )
        ratios[f"{case}: one, stoker / SB3"] = one / statistics.median(found["one, SB3 add"])
        ratios[f"{case}: one, stoker / numpy"] = one / statistics.median(found["one, five numpy arrays"])
        ratios[f"{case}: 256, stoker / SB3"] = together / statistics.median(found["256, SB3 add, 256 envs"])
        ratios[f"{case}: 256, stoker / a million per s"] = together / 1e6
    report(f"Putting into {CAPACITY:,} transitions", "transitions per s", rows, ratios)


def main() -> None:
    torch.set_num_threads(1)
    sampling()
    inserting()


if __name__ == "__main__":
    main()
