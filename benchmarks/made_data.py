"""Data sets of one training, as the offline literature has them (Fu et al. 2020, "D4RL", section 5).

    python -m benchmarks.made_data Pendulum-v1 [-o data] [--agent sac] [-n 20000] [--steps 20000] [--run RUN]

A training keeps its whole journal and all its checkpoints; from it come, as Minari data sets:

- ``random``: actions drawn from the action space;
- ``medium``: explored by the first policy that has come half the way from the random score to the best;
- ``medium-replay``: every transition that the training learned from until then, out of the journal;
- ``expert``: the best evaluated policy, without exploration.

Each data set carries the scores of random and expert as its reference scores.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import numpy as np

from stoker import TrainingRun, train
from stoker.data import DatasetInfo, Episode, JournalDataset, write_dataset
from stoker.policies.of_runs import trained_policy
from stoker.trainer import config_from
from stoker.types import ActMode, EpisodeStatus

SEED = 2_000_000
"""Of the first episode that is played for a data set; trainings use smaller ones."""

LAST_EPISODES = 20
"""Episodes by which a policy is scored."""

Act = Callable[[Any], Any]


async def training(env: str, agent: str, steps: int, seed: int, root: Path) -> Path:
    """Train with everything kept; the run's directory."""
    config = config_from({
        "env": env, "agent": agent, "seed": seed, "total_timesteps": steps, "num_envs": 1,
        "vectorize": "none", "keep_checkpoints": None, "keep_journal": "all",
        "checkpoint_freq": max(1, steps // 20), "eval_freq": 0,
    })  # fmt: skip
    run = await TrainingRun.create(env, root=root)
    await train(config, run)
    return run.directory


def played(env_id: str, act: Act, n_episodes: int | None = None) -> Iterator[Episode]:
    """Episodes of an environment, each with another seed; without a number for ever."""
    env = gymnasium.make(env_id)
    for number in itertools.count() if n_episodes is None else range(n_episodes):
        observation, _ = env.reset(seed=SEED + number)
        seen, actions, rewards, status = [observation], [], [], EpisodeStatus.CONTINUING
        while not status.is_done:
            action = act(observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            status = EpisodeStatus.of(terminated, truncated)
            seen.append(observation)
            actions.append(action)
            rewards.append(float(reward))
        space: Any = env.action_space
        yield Episode(
            observations=np.asarray(seen, env.observation_space.dtype),
            actions=np.asarray(actions, space.dtype),
            rewards=np.asarray(rewards, np.float64),
            status=status,
            seed=SEED + number,
        )


def at_most(episodes: Iterator[Episode], n_steps: int) -> Iterator[Episode]:
    """The first episodes that together have that many transitions."""
    for episode in episodes:
        yield episode
        if (n_steps := n_steps - len(episode)) <= 0:
            return


def acting(run: Path, step: int, mode: ActMode) -> Act:
    """The policy of a checkpoint."""
    policy = trained_policy(run, step).agent.policy()
    return lambda observation: policy.act([observation], mode)[0][0]


def score(env: str, act: Act) -> float:
    """The mean total reward of a policy."""
    return float(np.mean([episode.total_reward for episode in played(env, act, LAST_EPISODES)]))


def make(env_id: str, run: Path, out: Path, n_steps: int) -> None:
    env = gymnasium.make(env_id)
    env.action_space.seed(SEED)
    sample: Act = lambda _: env.action_space.sample()  # noqa: E731
    steps = sorted(TrainingRun.find(run).checkpoint_steps())
    scores = {step: score(env_id, acting(run, step, ActMode.EXPLOIT)) for step in steps}
    lowest, best = score(env_id, sample), max(steps, key=scores.__getitem__)
    middle = next(step for step in steps if scores[step] >= lowest + (scores[best] - lowest) / 2)
    print(f"{env_id}: random {lowest:.1f}, medium {scores[middle]:.1f} at step {middle:,}, "
          f"expert {scores[best]:.1f} at step {best:,}")  # fmt: skip
    info = DatasetInfo(
        source="", format="minari", observation_space=env.observation_space, action_space=env.action_space,
        env_id=env_id, ref_min_score=lowest, ref_max_score=scores[best],
    )  # fmt: skip
    with JournalDataset(run, to_step=middle) as journal:
        contents = {
            "random": at_most(played(env_id, sample), n_steps),
            "medium": at_most(played(env_id, acting(run, middle, ActMode.EXPLORE)), n_steps),
            "medium-replay": journal.episodes(),
            "expert": at_most(played(env_id, acting(run, best, ActMode.EXPLOIT)), n_steps),
        }
        for name, episodes in contents.items():
            written = write_dataset(episodes, info, out / env_id / name, "minari")
            print(f"  {written.path}: {written.n_episodes:,} episodes, {written.n_steps:,} transitions")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("env")
    parser.add_argument("-o", "--out", type=Path, default=Path("data"))
    parser.add_argument("--agent", default="sac")
    parser.add_argument("-n", "--training-steps", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=20_000, help="transitions of each played data set")
    parser.add_argument("--run", type=Path, help="a training that has run, with all its journal")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    begin = partial(training, given.env, given.agent, given.training_steps, given.seed, given.out / "runs")
    make(given.env, given.run or anyio.run(begin), given.out, given.steps)


if __name__ == "__main__":
    main()
