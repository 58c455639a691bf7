"""What do agents learn from a data set, beside d3rlpy's with the same settings?

    python -m benchmarks.offline_scores DATA:AGENT:UPDATES[:NAME=VALUE,...] ... [--seeds 5] [--save FILE]

DATA is a data set that names its environment, such as those of ``benchmarks.made_data``. Both learn from the
same transitions with the same networks, batches and step sizes, and else with the agent's defaults, not with
its preset. After the last update each policy plays 50 greedy episodes with the same seeds of the environment.
STOKER_D3RLPY names the Python that has d3rlpy 2.8. A line of medians over the seeds, with the interval of a
bootstrap.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import numpy as np
import torch

from benchmarks.measure import machine
from stoker import PolicySnapshot, open_dataset, train
from stoker.agents.registry import config_type
from stoker.runs import TrainingRun
from stoker.trainer import agent_for, config_from, evaluate
from stoker.trainer.making import env_for
from stoker.trainer.preparing import prepared

PEER = Path(__file__).parent / "peers" / "d3rlpy_scores.py"
SHARED = {"hidden_sizes": [64, 64], "batch_size": 256, "learning_rate": 1e-3}
EVAL_EPISODES, EVAL_SEED = 50, 1_000_000


def columns_of(data: str, path: Path) -> str:
    """Write the columns that d3rlpy takes; the name of the environment."""
    with open_dataset(data) as dataset:
        episodes = list(dataset.episodes())
        env_id = dataset.info.env_id
    if env_id is None:
        raise SystemExit(f"{data} does not name its environment")
    last = np.cumsum([len(episode) for episode in episodes]) - 1
    terminals = np.zeros(last[-1] + 1, np.float32)
    timeouts = np.zeros_like(terminals)
    for at, episode in zip(last, episodes, strict=True):
        (terminals if episode.status.is_terminal else timeouts)[at] = 1.0
    np.savez(
        path,
        observations=np.concatenate([episode.observations[:-1] for episode in episodes]).astype(np.float32),
        actions=np.concatenate([episode.actions for episode in episodes]),
        rewards=np.concatenate([episode.rewards for episode in episodes]).astype(np.float32),
        terminals=terminals,
        timeouts=timeouts,
    )
    return env_id


def ours(data: str, env_id: str, agent: str, n: int, settings: dict[str, Any], seed: int) -> float:
    values = {
        "offline": data, "env": env_id, "agent": agent, "total_timesteps": n, "seed": seed,
        "eval_freq": 0, "agent_settings": settings,
    }  # fmt: skip
    config = prepared(config_from(values))[0]
    torch.set_num_threads(1)

    async def main() -> float:
        learned = agent_for(config)
        with tempfile.TemporaryDirectory() as root:
            await train(config, await TrainingRun.create("bench", root=root), agent=learned, view="none")
        snapshot = PolicySnapshot(learned.policy(), total_steps=0, state={})
        found = await evaluate(snapshot, partial(env_for, config), EVAL_EPISODES, seed=EVAL_SEED)
        return found.mean_reward

    return anyio.run(main)


def peers(path: Path, env_id: str, agent: str, n: int, settings: dict[str, Any], seed: int) -> float:
    words = [
        os.environ["STOKER_D3RLPY"],
        str(PEER),
        str(path),
        env_id,
        agent,
        str(n),
        json.dumps(settings),
        str(seed),
    ]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def interval(scores: list[float]) -> str:
    """The median, and the middle 95 % of the medians of 10,000 resamples."""
    drawn = np.random.default_rng(0).choice(scores, (10_000, len(scores)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return f"{np.median(scores):9.1f}  ({low:.1f} to {high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--save", type=Path, help="a file that gets a line of JSON per training")
    given = parser.parse_args()
    print(machine())
    for case in given.cases:
        data, agent, count, *more = case.split(":")
        chosen = dict(word.split("=") for word in more[0].split(",")) if more else {}
        shared = {**SHARED, **{name: json.loads(value) for name, value in chosen.items()}}
        # All of them, or a preset would stand in for those that are left out.
        settings = {**msgspec.to_builtins(config_type(agent)()), **shared}
        found: dict[str, list[float]] = {"stoker": [], "d3rlpy": []}
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "columns.npz"
            env_id = columns_of(data, path)
            for seed in range(given.seeds):
                found["stoker"].append(ours(data, env_id, agent, int(count), settings, seed))
                found["d3rlpy"].append(peers(path, env_id, agent, int(count), settings, seed))
                if given.save is not None:
                    line = {"data": data, "agent": agent, "updates": int(count), "seed": seed}
                    with given.save.open("a") as file:
                        file.write(
                            json.dumps({**line, **{name: each[-1] for name, each in found.items()}}) + "\n"
                        )
        print(f"{agent} on {data}, {int(count):,} updates, {given.seeds} seeds, {shared}")
        for name, scores in found.items():
            shown = " ".join(f"{score:.1f}" for score in scores)
            print(f"  {name:<8} {interval(scores)}   {shown}", flush=True)


if __name__ == "__main__":
    main()
