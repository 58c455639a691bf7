"""The numbers of a training between two records: learning, episodes, callers' values and policy staleness.

Names are those of Stable-Baselines3 where it has them: ``rollout/ep_rew_mean``, ``time/fps``, ``train/loss``.
A transition's staleness is the number of optimization steps between the policy that chose its action and the
agent that is about to learn from it (Horgan et al. 2018 and Espeholt et al. 2018 call it policy lag).
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any, Self

import msgspec
import numpy as np

from stoker.agents.protocol import LearningAgent, ReportsExploration
from stoker.errors import ConfigError, InvalidExperience
from stoker.plain import plain_number, plain_text
from stoker.recorders import Histogram, Metrics, Record, checked_record
from stoker.stats import EpisodeRecord
from stoker.telemetry import Clocks
from stoker.types import ActorId, Experience, ExperienceBatch

_logger = logging.getLogger("stoker.session")


class StalenessReport(msgspec.Struct, frozen=True):
    """The staleness of what was learned.

    Attributes:
        mean, max: in optimization steps; 0 where nothing was counted.
        histogram: how many transitions there were of each staleness, in ascending order.
    """

    mean: float = 0.0
    max: int = 0
    histogram: Mapping[int, int] = msgspec.field(default_factory=dict[int, int])

    @classmethod
    def of(cls, counts: Counter[int]) -> Self:
        """Summarize how many transitions there were of each staleness."""
        total = sum(counts.values())
        if not total:
            return cls()
        mean = sum(age * count for age, count in counts.items()) / total
        return cls(mean, max(counts), dict(sorted(counts.items())))


_TOTAL_STEPS = "time/total_timesteps"
_USER_NAMES = 100
_NUMBERS: tuple[type[Any], ...] = (int, float, np.integer, np.floating)
_WINDOW = 100
"""Episodes that ``rollout`` values are means of, as in Stable-Baselines3."""


class TrainingMetrics:
    """The metrics since the last record. Written by the learner's thread; ``store`` is for any thread.

    Args:
        is_kept: whether records are made at all; without it only the window of episodes is kept.
        statistics: kept besides the mean of scalars, for example ``("min", "max")``.
    """

    def __init__(self, *, is_kept: bool, statistics: Iterable[str] = ()) -> None:
        self.is_kept = is_kept
        self.user: dict[str, float] = {}
        """The last number of each of the first 100 names that ``store`` was given."""
        self.staleness: Counter[int] = Counter()
        """How many transitions were learned of each staleness, since the last record."""
        self._buffer = Metrics(statistics=tuple(statistics))
        self._episodes: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        self._warned: set[str] = set()
        self.clocks: Clocks = Clocks()
        """Those of all parts of this training."""
        self._since = self.clocks.read()
        self._steps = self._opt_steps = -1

    def store(self, values: Mapping[str, Any]) -> None:
        """Keep values for the next record; several of one name are aggregated there."""
        if self.is_kept:
            self._buffer.store(values)
        user = self.user
        for name, value in values.items():
            if isinstance(value, _NUMBERS):
                if name in user or len(user) < _USER_NAMES:
                    user[name] = float(value)
                else:
                    self.warn_once(
                        "user names",
                        f"store: {name!r} is the {_USER_NAMES + 1}st name; metrics systems show the first "
                        f"{_USER_NAMES}. Put what varies into the value, not into the name",
                    )

    def learned(self, metrics: Mapping[str, float]) -> None:
        """Keep the metrics of an optimization step, under ``train/``."""
        if self.is_kept:
            values = {f"train/{key}": value for key, value in metrics.items()}
            try:
                self._buffer.store(values)
            except ConfigError:  # not worth a training: keep the values that can be kept
                for name, value in values.items():
                    try:
                        self._buffer.store({name: value})
                    except ConfigError as error:
                        self._warn(name, error)

    def warn_once(self, key: str, text: str) -> None:
        """Log a warning, the first time for this key."""
        if key not in self._warned:
            self._warned.add(key)
            _logger.warning("%s", text)

    def _warn(self, name: str, error: ConfigError) -> None:
        self.warn_once(f"refused {name}", f"the agent's metric {name!r} is not recorded: {error}")

    def count_staleness(self, experiences: Iterable[Experience] | ExperienceBatch, opt_steps: int) -> None:
        """Count transitions that the agent learns from after ``opt_steps`` optimization steps."""
        if isinstance(experiences, ExperienceBatch):
            given = experiences.policy_versions
            versions = [None] * len(experiences) if given is None else given.tolist()
        else:
            versions = [experience.policy_version for experience in experiences]
        ages = Counter(opt_steps - version for version in versions if version is not None)
        if ages:
            self.staleness = self.staleness + ages  # a new one: others may be reading the old one

    def ended(self, record: EpisodeRecord) -> None:
        """Take a training episode into the window."""
        self._episodes.append((record.total_reward, record.length))

    def extras_of(self, agent: LearningAgent, actor_id: ActorId) -> dict[str, float]:
        """The agent's extras of an ended episode that a row can hold."""
        extras: dict[str, float] = {}
        for key, value in agent.episode_extras(actor_id).items():
            try:
                name = plain_text("a key", key)
                extras[name] = plain_number(name, value)
            except InvalidExperience as error:
                text = f"an episode extra of the agent is left out of the rows: {error}"
                self.warn_once(repr(key), text)
        return extras

    def begin(self, total_steps: int, opt_steps: int) -> None:
        """Count rates from these counters on."""
        self._since, self._steps, self._opt_steps = self.clocks.read(), total_steps, opt_steps

    def flush(self, agent: LearningAgent, total_steps: int, total_episodes: int, opt_steps: int) -> Record:
        """Everything since the last record, and the counters of the training."""
        now = self.clocks.read()
        profile = now.since(self._since)
        elapsed_s = max(profile.seconds, 1e-9)
        values: dict[str, Any] = {
            _TOTAL_STEPS: total_steps,
            "time/episodes": total_episodes,
            "time/fps": (total_steps - self._steps) / elapsed_s,
            "time/opt_steps_per_sec": (opt_steps - self._opt_steps) / elapsed_s,
            "train/n_updates": opt_steps,
        }
        reward, length = self.recent()
        if reward is not None:
            values |= {"rollout/ep_rew_mean": reward, "rollout/ep_len_mean": length}
        if isinstance(agent, ReportsExploration):
            try:
                values |= checked_record({"rollout/exploration_rate": agent.exploration_rate})
            except ConfigError as error:
                self._warn("rollout/exploration_rate", error)
        staleness, self.staleness = StalenessReport.of(self.staleness), Counter()
        if staleness.histogram:
            values["train/staleness_mean"] = staleness.mean
            values["train/staleness_max"] = staleness.max
            ages = [age for age, count in staleness.histogram.items() for _ in range(count)]
            values["train/staleness"] = Histogram(ages)
        self._since, self._steps, self._opt_steps = now, total_steps, opt_steps
        return {**self._buffer.flush(), **values, **profile.metrics()}

    def recent(self) -> tuple[float | None, float | None]:
        """The mean reward and length of the window of episodes; from any thread."""
        episodes = list(self._episodes)  # copied in one step
        if not episodes:
            return None, None
        rewards, lengths = zip(*episodes, strict=True)
        return sum(rewards) / len(episodes), sum(lengths) / len(episodes)

    def state_dict(self) -> list[list[float]]:
        """The window of episodes, which a resume restores."""
        return [[reward, length] for reward, length in self._episodes]

    def load_state_dict(self, state: Iterable[tuple[float, int]]) -> None:
        """Replace the window with that of ``state_dict``."""
        self._episodes.clear()
        self._episodes.extend((float(reward), int(length)) for reward, length in state)


def is_own_record(record: Mapping[str, Any]) -> bool:
    """Whether ``flush`` made a record, rather than a caller."""
    return _TOTAL_STEPS in record
