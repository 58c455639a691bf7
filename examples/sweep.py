"""A sweep: every learning rate with every seed, in a pool of processes; the runs stay on disk to be plotted.

python examples/sweep.py, then: stoker plot runs --group-by agent_settings.learning_rate -o sweep.png
"""

import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import anyio
import torch

from stoker import TrainingRun, TrainResult, train
from stoker.trainer import config_from

ENV = "CartPole-v1"


async def train_one(learning_rate: float, seed: int, steps: int, runs_dir: str) -> TrainResult:
    config = config_from(
        {
            "env": ENV,
            "agent": "dqn",
            "learning_rate": learning_rate,
            "seed": seed,
            "total_timesteps": steps,
            "eval_freq": steps // 2,
        }
    )
    run = await TrainingRun.create(f"sweep-{learning_rate:g}", f"seed-{seed}", root=runs_dir)
    return await train(config, run)


def in_a_process(setting: tuple[float, int], steps: int, runs_dir: str) -> TrainResult:
    torch.set_num_threads(1)  # the processes share the cores
    return anyio.run(partial(train_one, *setting, steps=steps, runs_dir=runs_dir))


def main(
    steps: int = 10_000,
    runs_dir: str = "runs",
    learning_rates: tuple[float, ...] = (3e-4, 2.3e-3),
    seeds: tuple[int, ...] = (0, 1),
    workers: int = 2,
) -> None:
    settings = list(itertools.product(learning_rates, seeds))
    # "spawn": a process that is forked from one with threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        results = pool.map(partial(in_a_process, steps=steps, runs_dir=runs_dir), settings)
        for (learning_rate, seed), result in zip(settings, results, strict=True):
            best = result.best_eval_reward
            print(f"learning rate {learning_rate:g}, seed {seed}: best mean reward {best:.1f}")


if __name__ == "__main__":
    main()
