"""Evaluations: settings, results, statistics, and the rules that end a training early. Free of torch.

A statistic is computed at its first use and then kept. The intervals draw thousands of resamples, which takes
milliseconds; all else is cheap.
"""

from __future__ import annotations

import statistics
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import msgspec

from stoker.errors import ConfigError
from stoker.settings import Count, Finite, Natural, NonNegative, Settings, check_settings
from stoker.stats import EpisodeRecord
from stoker.types import EpisodeStatus

if TYPE_CHECKING:
    from stoker.stats.intervals import Interval

BestBy: TypeAlias = Literal["mean", "lower_bound"]
"""What makes one evaluation better than another.

- ``"mean"``: the mean reward.
- ``"lower_bound"``: the lower end of the mean's 95 % bootstrap interval, so that of two policies with equal
  means the steadier one wins. Of the mean and not of the interquartile mean: that leaves the worst quarter
  of the episodes out, and would not distinguish a policy that fails in every fifth episode from one that
  never fails.
"""

SUCCESS = "is_success"
"""The extra of an episode that says whether it succeeded: above 0, it did. The environment's own, or from the
``info`` of its last step, where ``play_episode`` finds it."""

NORMALIZED = "normalized_score"
"""The extra of an episode with its total reward on the scale from 0, a random policy, to 100, an expert."""

CONFIRMATION = "confirmation"
"""The extra, 1.0, of an episode that was played to confirm a best evaluation."""

LONGEST_EPISODE = 100_000
"""Steps of an evaluation's episode: where nothing else ends it, a greedy policy may walk in a circle."""


class Evaluation(msgspec.Struct, frozen=True, dict=True):
    """The result of an evaluation. Two are equal when their episodes are.

    Attributes:
        total_steps: environment steps consumed when the policy was taken.
        records: one per episode, in the order of their seeds; the confirming ones are last.
        is_best: whether it was the best so far, ever.
        best_by: what it is compared by.
        n_confirming: the number of records, at the end, that were played to confirm it.

    Raises:
        ConfigError: There are no records.
    """

    total_steps: int
    records: tuple[EpisodeRecord, ...]
    is_best: bool = False
    best_by: BestBy = "mean"
    n_confirming: int = 0

    def __post_init__(self) -> None:
        if not self.records:
            raise ConfigError("records=(): an evaluation has at least one episode")

    @property
    def n_episodes(self) -> int:
        """The number of episodes, including the confirming ones."""
        return len(self.records)

    @property
    def value(self) -> float:
        """The value that it is compared by with other evaluations, see ``BestBy``."""
        return self.mean_reward if self.best_by == "mean" else self.mean_interval.low

    # Rewards --------------------------------------------------------------------------------------

    @cached_property
    def rewards(self) -> tuple[float, ...]:
        """The total reward of each episode."""
        return tuple(record.total_reward for record in self.records)

    @cached_property
    def mean_reward(self) -> float:
        """The mean total reward."""
        return statistics.fmean(self.rewards)

    @cached_property
    def std_reward(self) -> float:
        """The population standard deviation of the total rewards, as Stable-Baselines3 has it; 0 for one."""
        return statistics.pstdev(self.rewards)

    @cached_property
    def median_reward(self) -> float:
        """The median; between the two in the middle of an even number."""
        return statistics.median(self.rewards)

    @property
    def min_reward(self) -> float:
        """The lowest total reward."""
        return min(self.rewards)

    @property
    def max_reward(self) -> float:
        """The highest total reward."""
        return max(self.rewards)

    @cached_property
    def mean_interval(self) -> Interval:
        """The 95 % bootstrap interval of the mean."""
        from stoker.stats import intervals  # brings numpy

        return intervals.bootstrap_interval(self.rewards, intervals.means)

    @cached_property
    def iqm_reward(self) -> float:
        """The interquartile mean (Agarwal et al. 2021): without the floor(n / 4) lowest and highest."""
        from stoker.stats import intervals

        return intervals.interquartile_mean(self.rewards)

    @cached_property
    def iqm_interval(self) -> Interval:
        """The 95 % bootstrap interval of the interquartile mean."""
        from stoker.stats import intervals

        return intervals.bootstrap_interval(self.rewards, intervals.interquartile_means)

    # Episodes -------------------------------------------------------------------------------------

    @property
    def mean_length(self) -> float:
        """The mean number of steps."""
        return statistics.fmean(record.length for record in self.records)

    @property
    def min_length(self) -> int:
        """The steps of the shortest episode."""
        return min(record.length for record in self.records)

    @property
    def max_length(self) -> int:
        """The steps of the longest episode."""
        return max(record.length for record in self.records)

    @property
    def n_truncated(self) -> int:
        """The number of episodes truncated by their environment or by ``max_episode_steps``."""
        return sum(record.status is EpisodeStatus.TRUNCATED for record in self.records)

    @property
    def success_rate(self) -> float | None:
        """The share of episodes that report success; None if none reports success or failure.

        An episode without a report beside others with one counts as a failure: some environments report
        success alone.
        """
        said = [record.extras[SUCCESS] > 0 for record in self.records if SUCCESS in record.extras]
        return sum(said) / len(self.records) if said else None

    @property
    def normalized_score(self) -> float | None:
        """The mean on the scale of the reference scores; None if an episode was not scored on it."""
        scores = [record.extras[NORMALIZED] for record in self.records if NORMALIZED in record.extras]
        return statistics.fmean(scores) if len(scores) == len(self.records) else None

    def compute_intervals(self) -> None:
        """Compute both intervals now, so that reading them later takes no time."""
        _ = self.mean_interval, self.iqm_interval

    def with_verdict(self, *, is_best: bool) -> Evaluation:
        """The same evaluation with that verdict; computed statistics are kept."""
        same = msgspec.structs.replace(self, is_best=is_best)
        vars(same).update(vars(self))
        return same

    def metrics(self) -> dict[str, float]:
        """The statistics by the names of Stable-Baselines3; success rate and normalized score if known."""
        success_rate = self.success_rate
        return {
            "eval/mean_reward": self.mean_reward,
            "eval/std_reward": self.std_reward,
            "eval/median_reward": self.median_reward,
            "eval/min_reward": self.min_reward,
            "eval/max_reward": self.max_reward,
            "eval/iqm_reward": self.iqm_reward,
            "eval/iqm_low": self.iqm_interval.low,
            "eval/iqm_high": self.iqm_interval.high,
            "eval/mean_ep_length": self.mean_length,
            **({} if success_rate is None else {"eval/success_rate": success_rate}),
            **({} if (score := self.normalized_score) is None else {"eval/normalized_score": score}),
        }


class StopRule(Protocol):
    """Decides when evaluations end a training."""

    def judge(self, evaluation: Evaluation, best: float | None, /) -> str | None:
        """Judge the newest evaluation; called once for each, in order.

        Args:
            evaluation: the newest one.
            best: the best value of the run before it, over all attempts; None: there was none.

        Returns:
            Why the training must end, in a few words; None: it continues.
        """
        ...


class StopAtReward(Settings, frozen=True):
    """Ends a training when the mean reward of an evaluation reaches a goal.

    Attributes:
        reward: the goal.
    """

    reward: Finite

    def judge(self, evaluation: Evaluation, best: float | None, /) -> str | None:
        """Whether the mean reward is at least the goal, whatever evaluations are compared by."""
        del best
        if evaluation.mean_reward < self.reward:
            return None
        return f"the mean reward {evaluation.mean_reward:g} reached {self.reward:g}"


class NoImprovement(msgspec.Struct, eq=False):
    """Ends a training after ``patience`` evaluations in a row without an improvement of ``Evaluation.value``.

    Many small steps count together: a value is compared with the last one that was better by more than
    ``min_delta``, not with the evaluation before. After a resume the best value is that of the run, and
    counting begins anew. The rule counts, so give each evaluator another one.

    Attributes:
        patience: the number of evaluations without improvement that ends the training.
        min_delta: an improvement is more than this.
        after_steps: evaluations of policies with fewer environment steps can improve, but do not count.
        n_without: the number of evaluations without improvement so far.
        to_beat: the value that the next evaluation must exceed; None: the run's best.
    """

    patience: Count
    min_delta: NonNegative = 0.0
    after_steps: Natural = 0
    n_without: int = 0
    to_beat: float | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    def judge(self, evaluation: Evaluation, best: float | None, /) -> str | None:
        """Count it, unless it is better."""
        to_beat = best if self.to_beat is None else self.to_beat
        if to_beat is None or evaluation.value > to_beat + self.min_delta:
            self.to_beat = evaluation.value
            self.n_without = 0
            return None
        self.to_beat = to_beat
        if evaluation.total_steps >= self.after_steps:
            self.n_without += 1
        if self.n_without < self.patience:
            return None
        margin = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return f"no evaluation of the last {self.n_without} was better than {to_beat:g}{margin}"


class EvaluationSettings(Settings, frozen=True, kw_only=True):
    """The settings of an ``Evaluator``; the session's settings say when it evaluates.

    Attributes:
        n_episodes: episodes in an evaluation.
        seed: the seed of the episodes, which are the same in each evaluation.
        max_episode_steps: an episode is truncated after this many steps; None: its environment ends it.
        concurrency: the number of episodes played at the same time by single environments; None: all.
        best_by: what makes an evaluation better: ``"mean"`` or ``"lower_bound"``, see ``BestBy``.
        confirm: whether what would become the best is evaluated again before it does.
        stop_at_reward: end the training when an evaluation's mean reward reaches this; None: never.
        patience: end it after this many evaluations in a row without improvement; None: never.
        min_delta: an improvement is more than this; for ``patience``.
        after_steps: evaluations before this environment step do not count against ``patience``.
        reference_scores: of a random policy and of an expert: each episode then has the extra
            ``normalized_score``; None: there are none.
    """

    n_episodes: Count = 20
    seed: Natural = 0
    max_episode_steps: Count | None = LONGEST_EPISODE
    concurrency: Count | None = None
    best_by: BestBy = "mean"
    confirm: bool = False
    stop_at_reward: Finite | None = None
    patience: Count | None = None
    min_delta: NonNegative = 0.0
    after_steps: Natural = 0
    reference_scores: tuple[Finite, Finite] | None = None

    def stop_rules(self) -> tuple[StopRule, ...]:
        """The rules of these settings, new and with nothing counted yet."""
        rules: list[StopRule] = []
        if self.stop_at_reward is not None:
            rules.append(StopAtReward(self.stop_at_reward))
        if self.patience is not None:
            rules.append(NoImprovement(self.patience, self.min_delta, self.after_steps))
        return tuple(rules)
