"""What does a kill cost, and how fast does a resume learn the journal's tail?

DQN learns CartPole, with one update per step and a checkpoint each 10,000 steps, and its process is killed
(SIGKILL) again and again, at the same random steps for everybody. Lost is what the environments had done
beyond the step from which the next process goes on. stoker learns the journal's tail, or goes back to its
checkpoint (``--no-roll-forward``); Stable-Baselines3's DQN goes back to that of its ``CheckpointCallback``,
which also saves the replay. Then a run without checkpoints is killed and resumed: its steps per second in
training, and in learning the tail. Each life runs in a separate process.
"""

from __future__ import annotations

import contextlib
import enum
import importlib.util
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import anyio
import gymnasium
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import QUICK, report
from stoker import DQN, PPO, DQNConfig, TrainingRun, TrainingSession, preset, run_actors

PERIOD = 2_000 if QUICK else 10_000
KILLS = 5 if QUICK else 20
TAIL = 3_000 if QUICK else 15_000
TAILS = 1 if QUICK else 3
N_ENVS = 8
PATIENCE_S = 300.0
SETTINGS: dict[str, Any] = {
    "learning_rate": 3e-4, "batch_size": 64, "learning_starts": 500, "target_update_interval": 500,
    "hidden_sizes": (64, 64), "n_step": 1, "normalize_observations": False, "double": False, "tau": None,
}  # fmt: skip


class Told(enum.IntEnum):
    """What a life tells through a file that its death leaves as it is: one number in each place.

    STEPS that its environments have made; the training's steps that it BEGAN at, -1 before that; the seconds
    in which it OPENED its session, with the tail; steps per second of its training since then (RATE).
    """

    STEPS = 0
    BEGAN = 1
    OPENED = 2
    RATE = 3


def told_in(path: Path) -> NDArray[np.float64]:
    return np.memmap(path, np.float64, "r+", shape=(len(Told),))


class Counting(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Counts steps where another process sees them."""

    def __init__(self, env: gymnasium.Env[Any, Any], told: NDArray[np.float64]) -> None:
        super().__init__(env)
        self._told = told

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        stepped = self.env.step(action)
        self._told[Told.STEPS] += 1
        return stepped


# The lives ----------------------------------------------------------------------------------------


def live_stoker(
    directory: Path, told: NDArray[np.float64], *, agent: str = "dqn", freq: int = PERIOD, **settings: Any
) -> None:
    """Create or resume the run there, and train on."""

    async def main() -> None:
        env = gymnasium.make("CartPole-v1")
        spaces = env.observation_space, env.action_space
        if any(directory.glob("bench/*/*/metadata.json")):  # noqa: ASYNC240 - nothing else runs yet
            run = await TrainingRun.resume(directory / "bench")
        else:
            run = await TrainingRun.create("bench", root=directory)
        if agent == "dqn":
            learner = DQN(*spaces, msgspec.convert(SETTINGS, DQNConfig))
        else:
            learner = PPO(*spaces, preset("ppo", "CartPole-v1"))
        session = TrainingSession(learner, run, checkpoint_freq=freq, queue_capacity=16, **settings)
        started = time.perf_counter()
        async with session, anyio.create_task_group() as tasks:
            told[Told.OPENED] = time.perf_counter() - started
            told[Told.BEGAN] = began = session.total_steps
            started = time.perf_counter()

            async def tell_rate() -> None:
                while True:
                    await anyio.sleep(0.05)
                    told[Told.RATE] = (session.total_steps - began) / (time.perf_counter() - started)

            tasks.start_soon(tell_rate)
            make = partial(gymnasium.make, "CartPole-v1")
            await run_actors(session, lambda: Counting(make(), told), N_ENVS, seed=run.attempt)

    anyio.run(main)


def live_sb3(directory: Path, told: NDArray[np.float64]) -> None:
    """Load the newest checkpoint there that loads, or begin; and train on."""
    from stable_baselines3 import DQN as SB3DQN
    from stable_baselines3.common.callbacks import CheckpointCallback

    env = Counting(gymnasium.make("CartPole-v1"), told)
    for path in sorted(directory.glob("dqn_*_steps.zip"), key=lambda path: -int(path.stem.split("_")[1])):
        with contextlib.suppress(Exception):  # half written by the life that was killed
            model = SB3DQN.load(path, env, device="cpu")
            model.load_replay_buffer(path.with_name(f"dqn_replay_buffer_{path.stem[4:]}.pkl"))
            break
    else:
        model = SB3DQN(
            "MlpPolicy", env, learning_rate=3e-4, buffer_size=100_000, learning_starts=500, batch_size=64,
            gamma=0.99, train_freq=1, gradient_steps=1, target_update_interval=500,
            policy_kwargs={"net_arch": [64, 64]}, device="cpu", seed=0,
        )  # fmt: skip
    told[Told.BEGAN] = model.num_timesteps
    saving = CheckpointCallback(PERIOD, str(directory), "dqn", save_replay_buffer=True)
    model.learn(1 << 40, callback=saving, reset_num_timesteps=False)


LIVES: dict[str, Callable[[Path, NDArray[np.float64]], None]] = {
    "stoker": live_stoker,
    "stoker, --no-roll-forward": lambda *at: live_stoker(*at, roll_forward=False),
    "Stable-Baselines3": live_sb3,
    "dqn": lambda *at: live_stoker(*at, freq=0),
    "ppo": lambda *at: live_stoker(*at, agent="ppo", freq=0),
}


def live(name: str, directory: Path) -> None:
    """One life, in this process."""
    torch.set_num_threads(1)
    LIVES[name](directory, told_in(directory / "told"))


# Killing them -------------------------------------------------------------------------------------


class Life:
    """A process that trains in a directory, from its begin to its kill. A context manager."""

    def __init__(self, name: str, directory: Path) -> None:
        self.path = directory / "told"
        self._log = directory / "stderr"
        np.array([0.0, -1.0, 0.0, 0.0]).tofile(self.path)
        self._told = told_in(self.path)
        command = [sys.executable, "-m", "benchmarks.resuming", "--life", name, str(directory)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*command, *sys.argv[1:]], stdout=log, stderr=log)

    def __enter__(self) -> Self:
        self.wait_for(Told.BEGAN, 0)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def __getitem__(self, what: Told) -> float:
        return float(self._told[what])

    def wait_for(self, what: Told, least: float) -> None:
        """Wait until it tells at least that."""
        deadline = time.monotonic() + PATIENCE_S
        while self[what] < least:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it ended or hangs: {self._log.read_text()[-2000:]}")
            time.sleep(0.001)


def lost_steps(name: str, kill_at: Sequence[int]) -> list[float]:
    """The steps lost at each kill, for a training whose n-th life is killed after ``kill_at[n]`` steps."""
    lost: list[float] = []
    with tempfile.TemporaryDirectory(dir=".") as place:  # a disk; the system's /tmp may be memory
        reached = 0.0
        for most in (*kill_at, 0):
            with Life(name, Path(place)) as life:
                lost.append(reached - life[Told.BEGAN])
                life.wait_for(Told.STEPS, most)
            reached = life[Told.BEGAN] + life[Told.STEPS]
    return lost[1:]  # the first life has nothing before it


def rates(agent: str) -> tuple[float, float]:
    """Steps per second: of a training, and of learning its journal again when it is resumed."""
    with tempfile.TemporaryDirectory(dir=".") as place:
        with Life(agent, Path(place)) as life:
            life.wait_for(Told.STEPS, TAIL)
            trained = life[Told.RATE]
        with Life(agent, Path(place)) as life:
            return trained, life[Told.BEGAN] / life[Told.OPENED]


def main() -> None:
    torch.set_num_threads(1)
    rng = random.Random(0)
    kill_at = [rng.randrange(1, 2 * PERIOD) for _ in range(KILLS)]
    contenders = ["stoker", "stoker, --no-roll-forward"]
    notes = [f"a checkpoint each {PERIOD:,} steps, {KILLS} kills each"]
    if importlib.util.find_spec("stable_baselines3"):
        contenders.append("Stable-Baselines3")
    else:
        notes.append("Stable-Baselines3 is not installed: pip install 'stoker[bench]'")
    lost = {name: lost_steps(name, kill_at) for name in contenders}
    median = {name: statistics.median(values) for name, values in lost.items()}
    ours = max(1.0, median["stoker"])
    ratios = {f"{name} / stoker": median[name] / ours for name in contenders[1:]}
    report("Steps lost per kill", "environment steps", lost, ratios, notes)
    rows: dict[str, list[float]] = {}
    for agent in ("dqn", "ppo"):
        pairs = [rates(agent) for _ in range(TAILS)]
        rows[f"{agent.upper()}, training"], rows[f"{agent.upper()}, learning the tail"] = map(
            list, zip(*pairs, strict=True)
        )
    names = list(rows)
    ratios = {
        f"{again} / {training}": statistics.median(
            a / b for a, b in zip(rows[again], rows[training], strict=True)
        )
        for training, again in zip(names[::2], names[1::2], strict=True)
    }
    report(f"Learning a tail of {TAIL:,} steps", "steps per second", rows, ratios)


if __name__ == "__main__":
    if "--life" in sys.argv:
        at = sys.argv.index("--life")
        live(sys.argv[at + 1], Path(sys.argv[at + 2]))
    else:
        main()
