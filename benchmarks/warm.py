"""What do prior data save? SAC on Pendulum-v1, online alone and with half of each batch from a run's journal.

The data are medium-replay: all that another run of SAC played until it was half-way from random to good.
Both learn with the same settings, one gradient step per step, and the data are never counted as steps. Every
1,000 steps the policy plays 20 greedy episodes; reported is their mean, over seeds its median, and a 95 %
bootstrap interval of that. ``--data RUN --to-step N`` takes the first N steps of a run of yours instead.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import numpy as np
import torch

from benchmarks.measure import QUICK, machine
from stoker import (
    SAC,
    EvaluationSettings,
    Experience,
    SACConfig,
    Trainer,
    TrainerConfig,
    TrainingRun,
    make_gym,
    preset,
)
from stoker.runs.history import read_table
from stoker.runs.rows import EvalEpisodeRow, TrainEpisodeRow, evaluations_of
from stoker.stats.intervals import Interval, bootstrap_interval

ENV = "Pendulum-v1"
N_SEEDS = 1 if QUICK else 5
N_STEPS = 2_000 if QUICK else 10_000
EVERY = 1_000
HALF_WAY = -700.0
"""Between the score of a random policy, about -1,230, and that of a good one, about -150."""
SETTINGS = SACConfig(learning_rate=3e-4, hidden_sizes=(64, 64), buffer_size=100_000)


async def trained(run: TrainingRun, settings: SACConfig, seed: int, n_steps: int, **more: Any) -> None:
    """Train a run, with evaluations."""
    env = gymnasium.make(ENV)
    agent = SAC(env.observation_space, env.action_space, settings, seed=seed)
    config = TrainerConfig(
        num_envs=1, max_steps=n_steps, seed=seed, record_interval=0,
        evaluation=EvaluationSettings(n_episodes=20),
    )  # fmt: skip
    await Trainer(agent, partial(make_gym, ENV), config, run=run, eval_freq=EVERY, **more).train()


def data_of(run: TrainingRun, to_step: int) -> list[Experience]:
    """The first steps of a run, from its journal."""
    journal = run.journal
    steps = (event for _, event in journal.read(0, journal.n_events()) if isinstance(event, Experience))
    return [step for step, _ in zip(steps, range(to_step), strict=False)]


def half_way(run: TrainingRun) -> int:
    """The step at which the mean of the last 5 episodes was half-way for the first time."""
    table, rows = read_table(run.directory, TrainEpisodeRow, fields=("total_reward",))
    found = table.columns(rows)
    for last in range(5, len(found["total_reward"]) + 1):
        if found["total_reward"][last - 5 : last].mean() > HALF_WAY:
            return int(found["total_steps"][last - 1])
    raise SystemExit(f"{run.directory}: no five episodes in a row have a mean above {HALF_WAY}")


def scores(run: TrainingRun) -> dict[int, float]:
    """The mean reward of each evaluation, by its step."""
    table, rows = read_table(run.directory, EvalEpisodeRow, fields=("total_reward", "length"))
    return {found.total_steps: found.mean_reward for found in evaluations_of(table.columns(rows))}


def median_interval(values: Sequence[float]) -> Interval | None:
    """Of the median over seeds."""
    return bootstrap_interval(values, partial(np.median, axis=-1))


async def main() -> None:
    torch.set_num_threads(1)
    found: dict[str, list[dict[int, float]]] = {"online": [], "with prior data": []}
    words = dict(zip(sys.argv[1:], sys.argv[2:], strict=False))
    with tempfile.TemporaryDirectory(dir=".") as root:
        if "--data" in words:
            source = TrainingRun.find(words["--data"])
        else:
            source = await TrainingRun.create("data", root=root)
            await trained(source, preset("sac", ENV), 1_000, 4_000, keep_journal="all")
        to_step = int(words["--to-step"]) if "--to-step" in words else half_way(source)
        data = data_of(source, to_step)
        for seed in range(N_SEEDS):
            for name, more in {"online": {}, "with prior data": {"warm_data": data}}.items():
                run = await TrainingRun.create(name.replace(" ", "-"), root=Path(root))
                await trained(run, SETTINGS, seed, N_STEPS, **more)
                found[name].append(scores(run))
                print(f"seed {seed}, {name}: {found[name][-1]}", file=sys.stderr)
    print(f"\n{ENV}, mean reward of 20 greedy episodes: median over {N_SEEDS} seeds, 95 % interval")
    print(f"  {machine()}; prior data: {len(data):,} steps, the last episodes above {HALF_WAY:g}")
    print(f"  {'steps':>7}  {'online':>28}  {'with prior data':>28}")
    for step in range(EVERY, N_STEPS + 1, EVERY):
        cells: list[str] = []
        for seeds in found.values():
            values = [of_seed[step] for of_seed in seeds]
            around = median_interval(values)
            spread = "" if around is None else f" [{around.low:,.0f}, {around.high:,.0f}]"
            cells.append(f"{statistics.median(values):,.0f}{spread}")
        print(f"  {step:>7,}  {cells[0]:>28}  {cells[1]:>28}")


if __name__ == "__main__":
    anyio.run(main)
