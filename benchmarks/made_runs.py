"""Run directories of any size without training: byte for byte what a session writes, by its own encoders.

For benchmarks and tests of what reads runs. Rewards are a learning curve with noise, reproducible by a seed;
single episodes can be given a reward that stands out. A run may be held like one in training, and grows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from stoker.runs.event_rows import EVENTS, EventRow
from stoker.runs.events import (
    AttemptBegan,
    AttemptEnded,
    BestChanged,
    Ending,
    EvaluationFinished,
    RunEvent,
)
from stoker.runs.layout import CHECKPOINTS, CONFIG, METADATA
from stoker.runs.locking import RunLock
from stoker.runs.metadata import Attempt, RunMetadata
from stoker.runs.rows import ROW_FILES, EvalEpisodeRow, MetricsRow, TrainEpisodeRow
from stoker.trainer import TrainConfig, config_from
from stoker.types import EpisodeStatus
from stoker.writer import encode_rows

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
LENGTH = 200
"""Environment steps of each episode."""
SPIKE = 10_000.0
"""The reward of an episode that stands out."""
_AT_ONCE = 10_000
_STATES = {
    "learner": ("waiting", "handover", "delivering", "saving", "observing", "learning", "publishing"),
    "loop": ("waiting", "running", "starved", "blocked"),
    "writer": ("idle", "writing", "committing", "finishing"),
    "actors": ("starting", "resetting", "stepping", "acting", "observing"),
}


class Episodes(NamedTuple):
    """The numbers of consecutive episodes, as arrays of one length: a peer can be given the same."""

    numbers: np.ndarray
    rewards: np.ndarray
    steps: np.ndarray
    seconds: np.ndarray
    """Since the run began."""


def config_of(**settings: Any) -> TrainConfig:
    """The config that ``stoker train`` writes for these settings; CartPole with DQN where none are given."""
    return config_from({"env": "CartPole-v1", "agent": "dqn", "total_timesteps": 1_000_000, **settings})


class MadeRun:
    """A run directory that is made and then grows. Nothing is synced: a power cut is not what it is for.

    Args:
        root: the runs directory.
        name, version, run_id: where the run is below it.
        config: the content of its ``config.json``.
        seed: of its rewards.
        n_wanted: the number of episodes over which the rewards rise.
        spikes: numbers of episodes whose reward is ``SPIKE``.
        began: when it began.
        seconds_each: between the ends of two episodes.
        is_held: whether it is locked, as while it is trained.
    """

    def __init__(
        self,
        root: Path,
        name: str = "CartPole-v1",
        version: str = "v1",
        run_id: str = "20260101_000000",
        *,
        config: Any = None,
        seed: int = 0,
        n_wanted: int = 5_000,
        spikes: Collection[int] = (),
        began: datetime = BEGAN,
        seconds_each: float = 0.1,
        is_held: bool = False,
    ) -> None:
        self.directory = root / name / version / run_id
        self.n_episodes = 0
        self._metadata = RunMetadata(
            name=name,
            version=version,
            run_id=run_id,
            started_at=began,
            last_updated=began,
            attempts=(Attempt(number=1, started_at=began),),
        )
        self._n_wanted = n_wanted
        self._spikes = np.array(sorted(spikes), np.int64)
        self._seconds_each = seconds_each
        self._rng = np.random.default_rng(seed)
        (self.directory / CHECKPOINTS).mkdir(parents=True)
        self._write(METADATA, self._metadata)
        self._write(CONFIG, config_of() if config is None else config)
        self._lock = RunLock.acquire(self.directory) if is_held else None
        began_by = AttemptBegan(
            pid=1, host="made", command="stoker train", python="3", torch="2", stoker="0", from_steps=0
        )
        self.add_event(began_by)

    # Growing ----------------------------------------------------------------------------------------

    def add_episodes(self, n: int) -> Iterator[Episodes]:
        """Append episodes, and give their numbers in pieces. Nothing happens until they are taken."""
        with (self.directory / ROW_FILES[TrainEpisodeRow]).open("ab", buffering=0) as file:
            while n > 0:
                made = self._next(min(n, _AT_ONCE))
                file.write(encode_rows(self._train_rows(made)))
                n -= len(made.numbers)
                self._count(made)
                yield made
        self._write(METADATA, self._metadata)

    def grow(self, n: int) -> None:
        """Append episodes."""
        for _ in self.add_episodes(n):
            pass

    def add_evaluation(self, n: int = 20) -> None:
        """Append an evaluation of the policy as it is now."""
        rewards = np.clip(self._level(self.n_episodes) + self._rng.normal(0.0, 20.0, n), 0.0, 500.0)
        metadata, at = self._metadata, self._metadata.last_updated
        mean, std = float(rewards.mean()), float(rewards.std())
        rows = [
            EvalEpisodeRow(
                total_steps_at_eval=metadata.total_steps,
                total_reward=reward,
                length=LENGTH,
                status=EpisodeStatus.TRUNCATED,
                extras={},
                time=at,
            )
            for reward in rewards.tolist()
        ]
        self._append(ROW_FILES[EvalEpisodeRow], rows)
        step = metadata.total_steps
        self.add_event(EvaluationFinished(step=step, n_episodes=n, mean=mean, std=std, took_s=1.0))
        if metadata.best_value is None or mean > metadata.best_value:
            self._metadata = msgspec.structs.replace(metadata, best_value=mean, best_step=step)
            self.add_event(BestChanged(value=mean, step=step))
        self._write(METADATA, self._metadata)

    def add_record(self) -> None:
        """Append a record of the metrics, as a session makes one for each thousand steps."""
        metrics: dict[str, float | str] = {
            "train/loss": float(self._rng.exponential(2.0)),
            "train/staleness_mean": float(self._rng.uniform(10.0, 40.0)),
            "time/fps": float(self._rng.normal(2000.0, 100.0)),
            "load/period_s": 0.5,
            "rollout/exploration_rate": self._epsilon(self.n_episodes),
        }
        for part, states in _STATES.items():
            shares = self._rng.dirichlet(np.full(len(states), 0.7)).tolist()
            metrics |= {f"time/{part}_{state}": share for state, share in zip(states, shares, strict=True)}
        total_steps, at = self._metadata.total_steps, self._metadata.last_updated
        row = MetricsRow(total_steps=total_steps, opt_steps=total_steps, metrics=metrics, time=at)
        self._append(ROW_FILES[MetricsRow], [row])

    def add_event(self, event: RunEvent) -> None:
        """Append an event that happened with the last episode."""
        details = msgspec.structs.asdict(event)
        total_steps, at = self._metadata.total_steps, self._metadata.last_updated
        row = EventRow(kind=event.kind, details=details, total_steps=total_steps, time=at, attempt=1)
        self._append(EVENTS, [row])

    def end(self, how: Ending = "finished", **words: Any) -> None:
        """Record how it ended, and release it."""
        self.add_event(AttemptEnded(how=how, **words))
        self.release()

    def release(self) -> None:
        """Let it go without a recorded end, as a kill does."""
        if self._lock is not None:
            self._lock.release()

    # What is written --------------------------------------------------------------------------------

    def _next(self, n: int) -> Episodes:
        numbers = np.arange(self.n_episodes + 1, self.n_episodes + n + 1)
        noise = self._rng.normal(0.0, 20.0, n)
        rewards = np.clip(self._level(numbers) + noise, 0.0, 500.0)
        rewards[np.isin(numbers, self._spikes)] = SPIKE
        return Episodes(numbers, rewards, numbers * LENGTH, numbers * self._seconds_each)

    def _level(self, number: Any) -> Any:
        return 480.0 * (1.0 - np.exp(-4.0 * number / self._n_wanted))

    def _epsilon(self, number: Any) -> float:
        return max(0.05, 1.0 - float(number) / self._n_wanted)

    def _train_rows(self, made: Episodes) -> Iterable[TrainEpisodeRow]:
        n = len(made.numbers)
        losses = self._rng.exponential(2.0, n).tolist()
        for number, reward, step, seconds, loss in zip(
            *(column.tolist() for column in made), losses, strict=True
        ):
            yield TrainEpisodeRow(
                total_reward=reward,
                length=LENGTH,
                status=EpisodeStatus.TRUNCATED if reward >= 500.0 else EpisodeStatus.TERMINATED,
                extras={"epsilon": self._epsilon(number), "loss_mean": loss, "loss_max": 2.0 * loss},
                total_steps=step,
                episode=number,
                actor_id=number % 8,
                time=self._metadata.started_at + timedelta(seconds=seconds),
            )

    def _count(self, made: Episodes) -> None:
        self.n_episodes += len(made.numbers)
        last = self._metadata.started_at + timedelta(seconds=float(made.seconds[-1]))
        self._metadata = msgspec.structs.replace(
            self._metadata,
            total_episodes=self.n_episodes,
            total_steps=self.n_episodes * LENGTH,
            last_updated=last,
        )

    def _append(self, name: str, rows: Iterable[Any]) -> None:
        with (self.directory / name).open("ab", buffering=0) as file:
            file.write(encode_rows(rows))

    def _write(self, name: str, value: Any) -> None:
        """What ``write_json`` writes, beside and renamed as it does, but without waiting for the disk."""
        beside = self.directory / f".{name}.tmp"
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
        beside.replace(self.directory / name)


def make_runs(
    root: Path,
    n_runs: int,
    n_episodes: int,
    *,
    is_held: bool = False,
    per_version: int = 5,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[MadeRun]:
    """Make runs that differ in their seeds and learning rates, five seeds to a version.

    Args:
        root: the runs directory.
        n_runs: how many.
        n_episodes: of each.
        is_held: whether they are in training.
        per_version: runs of each version.
        settings: settings that all of them have.
        options: what else ``MadeRun`` takes.
    """
    names = ("Acrobot-v1", "CartPole-v1", "LunarLander-v3", "MountainCar-v0")
    configs = {name: config_of(env=name, **(settings or {})) for name in names}
    runs: list[MadeRun] = []
    for k in range(n_runs):
        group, seed = divmod(k, per_version)
        name = names[group % len(names)]
        rate = 1e-4 * math.sqrt(10) ** (group % 3)
        agent_settings = msgspec.structs.replace(configs[name].agent_settings, learning_rate=rate)
        config = msgspec.structs.replace(configs[name], seed=seed, agent_settings=agent_settings)
        began = BEGAN + timedelta(seconds=10 * k)
        place = (name, f"v{group // len(names) + 1}", f"{began:%Y%m%d_%H%M%S}")
        options_of_run = {"began": began, **options}
        run = MadeRun(root, *place, config=config, seed=k, is_held=is_held, **options_of_run)
        run.grow(n_episodes)
        run.add_record()
        run.add_evaluation()
        if not is_held:
            run.end()
        runs.append(run)
    return runs
