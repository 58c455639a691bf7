"""PPO learns CartPole with a trainer: evaluated while it learns, and ended when that is good enough.

python examples/trainer.py
"""

import anyio
import torch

from stoker import (
    PPO,
    EvaluationSettings,
    Trainer,
    TrainerConfig,
    TrainingRun,
    make_gym,
    preset,
    training_preset,
)
from stoker.recorders import TensorBoardRecorder

ENV = "CartPole-v1"
SEED = 0
STEPS_PER_UPDATE = 256  # of the preset: its rollout_steps


async def train(steps: int, runs_dir: str, tensorboard: bool) -> None:
    env = make_gym(ENV)
    agent = PPO(env.observation_space, env.action_space, preset("ppo", ENV), seed=SEED)
    config = TrainerConfig(
        max_steps=steps,
        num_envs=8,
        opt_interval=training_preset("ppo", ENV)["opt_interval"],
        seed=SEED,
        eval_interval=5_120 // STEPS_PER_UPDATE,  # optimization steps, as the next two
        save_interval=10_240 // STEPS_PER_UPDATE,
        record_interval=1,
        evaluation=EvaluationSettings(n_episodes=20, confirm=True, stop_at_reward=475),
    )
    run = await TrainingRun.create("trainer", root=runs_dir)
    print(f"the run is in {run.directory}")

    recorders = [TensorBoardRecorder()] if tensorboard else []  # into <run>/tensorboard
    trainer = Trainer(agent, lambda: make_gym(ENV), config, run=run, recorders=recorders)
    result = await trainer.train()

    metrics = await run.read_metrics()  # numpy arrays by name, of what metrics.jsonl has
    for total_steps, reward in zip(
        metrics["total_steps"], metrics.get("metrics.eval/mean_reward", ()), strict=False
    ):
        if reward == reward:  # NaN in the records between evaluations
            print(f"{total_steps:>7,} steps  evaluated at {reward:6.1f}")
    print(f"{result.total_steps:,} steps, {result.opt_steps} updates: {result.stopped_because or 'all done'}")
    print(f"  stoker show {run.directory}")


def main(steps: int = 100_000, runs_dir: str = "runs", tensorboard: bool = False) -> None:
    torch.set_num_threads(1)  # the fastest for a network this small
    anyio.run(train, steps, runs_dir, tensorboard)


if __name__ == "__main__":
    main()
