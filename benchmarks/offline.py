"""How many optimization steps per second does a training on a data set make, and how fast is the data read?

Each agent trains as ``stoker train --offline`` does, with journal, rows and checkpoints, on one torch thread.
Against d3rlpy's ``fit`` with its logging off, in a separate process: STOKER_D3RLPY names the Python of an
environment that has d3rlpy 2.8 (the two need different versions of Gymnasium). And against a bare torch loop
of the same update, in one file, for some. Networks and batches are the same for all.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import gymnasium
import numpy as np
import torch

from benchmarks.measure import QUICK, repeated, report
from benchmarks.peers.plain_updates import PLAIN
from stoker import TrainConfig, TrainingRun, TrainingSession, train
from stoker.data import DatasetInfo, Episode, write_dataset
from stoker.trainer.config import config_from
from stoker.trainer.making import agent_for
from stoker.trainer.offline import feed
from stoker.trainer.preparing import prepared
from stoker.types import EpisodeStatus

N_ROWS = 20_000 if QUICK else 200_000
EPISODE = 500
N_UPDATES = 300 if QUICK else 3_000
RUNS = 1 if QUICK else 5
PEERS = Path(__file__).parent / "peers"


class Case(NamedTuple):
    """An agent of the table, the name of d3rlpy's config for it, and settings that make the two alike.

    ``name`` is that in the table, where an agent has two lines.
    """

    agent: str
    d3rlpy: str
    is_discrete: bool = False
    settings: dict[str, Any] = {}  # noqa: RUF012 - never changed
    name: str = ""

    @property
    def called(self) -> str:
        return self.name or self.agent


CASES = (
    Case("td3", "TD3Config"),
    Case("sac", "SACConfig"),
    Case("iql", "IQLConfig"),
    Case("awac", "AWACConfig"),
    Case("dqn", "DQNConfig", is_discrete=True, settings={"double": False}),
    Case("cql", "DiscreteCQLConfig", is_discrete=True),
    Case("bc", "BCConfig"),
    Case("bc", "DiscreteBCConfig", is_discrete=True, name="bc-discrete"),
)
"""A new agent is one line here."""


def write_data(path: Path, *, is_discrete: bool) -> None:
    """Transitions of Hopper's sizes; with discrete actions of CartPole's. Beside it columns for the peers."""
    rng = np.random.default_rng(0)
    size = 4 if is_discrete else 11
    box = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
    box_actions = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    actions: Any = gymnasium.spaces.Discrete(2) if is_discrete else box_actions

    def episode() -> Episode:
        chosen = rng.integers(2, size=EPISODE) if is_discrete else rng.uniform(-1, 1, (EPISODE, 3))
        return Episode(
            observations=rng.normal(size=(EPISODE + 1, size)).astype(np.float32),
            actions=chosen if is_discrete else chosen.astype(np.float32),
            rewards=rng.normal(size=EPISODE),
            status=EpisodeStatus.TRUNCATED,
        )

    info = DatasetInfo(source="made", format="npz", observation_space=box, action_space=actions)
    episodes = [episode() for _ in range(N_ROWS // EPISODE)]
    write_dataset(episodes, info, path, "npz")
    np.savez(
        columns_of(path),
        observations=np.concatenate([one.observations[:-1] for one in episodes]),
        next_observations=np.concatenate([one.observations[1:] for one in episodes]),
        actions=np.concatenate([one.actions for one in episodes]),
        rewards=np.concatenate([one.rewards for one in episodes]).astype(np.float32),
        timeouts=np.tile(np.arange(EPISODE) == EPISODE - 1, len(episodes)),
    )


def columns_of(path: Path) -> Path:
    return path.with_suffix(".columns.npz")


def config_of(case: Case, path: Path) -> TrainConfig:
    settings = {"hidden_sizes": [256, 256], "batch_size": 256, "buffer_size": N_ROWS, **case.settings}
    values = {"offline": str(path), "agent": case.agent, "total_timesteps": N_UPDATES, **settings}
    return prepared(config_from(values))[0]


def trained_rate(case: Case, path: Path) -> float:
    """Optimization steps per second of a whole training, without the time that reading the data takes."""
    config = config_of(case, path)
    agent: Any = agent_for(config)
    learn, times = agent.learn, list[float]()

    def timed() -> Any:
        if len(times) < 2:  # the first step begins, and the second: what only the first one does is left out
            times.append(time.perf_counter())
        return learn()

    agent.learn = timed

    async def main() -> float:
        with tempfile.TemporaryDirectory() as root:
            run = await TrainingRun.create("bench", root=root)
            await train(config, run, agent=agent, view="none")
        return (N_UPDATES - 1) / (time.perf_counter() - times[-1])

    return anyio.run(main)


def read_rate(path: Path) -> float:
    """Transitions per second from the file into the replay and, durably, the journal."""
    config = config_of(CASES[0], path)

    async def main() -> float:
        with tempfile.TemporaryDirectory() as root:
            run = await TrainingRun.create("bench", root=root)
            async with TrainingSession(agent_for(config), run, offline=True, opt_interval=0) as session:
                started = time.perf_counter()
                n_steps = await feed(session, str(path))
                await session.flush()
                return n_steps / (time.perf_counter() - started)

    return anyio.run(main)


def d3rlpy_rate(python: str, case: Case, path: Path) -> float:
    words = [python, str(PEERS / "d3rlpy_updates.py"), case.d3rlpy, str(columns_of(path)), str(N_UPDATES)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    torch.set_num_threads(1)
    python = os.environ.get("STOKER_D3RLPY", "")
    named = [word for word in sys.argv[1:] if not word.startswith("-")]
    cases = [case for case in CASES if not named or case.agent in named]
    notes = [] if python else ["d3rlpy is left out: STOKER_D3RLPY=PYTHON names one that has it"]
    with tempfile.TemporaryDirectory() as directory:
        paths = {is_discrete: Path(directory) / f"{is_discrete}.npz" for is_discrete in (False, True)}
        for is_discrete, path in paths.items():
            write_data(path, is_discrete=is_discrete)
        read = repeated({"reading, transitions per second": partial(read_rate, paths[False])}, RUNS)
        report("Reading a data set into replay and journal", "transitions per second", read, {})
        contenders: dict[str, Callable[[], float]] = {}
        for case in cases:
            path = paths[case.is_discrete]
            contenders[case.called] = partial(trained_rate, case, path)
            if python:
                contenders[f"d3rlpy {case.called}"] = partial(d3rlpy_rate, python, case, path)
            if case.agent in PLAIN:
                contenders[f"torch {case.agent}"] = partial(PLAIN[case.agent], columns_of(path), N_UPDATES)
        rows = repeated(contenders, RUNS)
        ratios = {
            f"{agent} / {other} {agent}": statistics.median(rows[agent]) / statistics.median(found)
            for agent in (case.called for case in cases)
            for other in ("d3rlpy", "torch")
            if (found := rows.get(f"{other} {agent}"))
        }
        report("Training on a data set", "optimization steps per second", rows, ratios, notes)


if __name__ == "__main__":
    main()
