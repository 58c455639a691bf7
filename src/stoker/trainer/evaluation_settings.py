"""How policies are evaluated, and which evaluations end a training early. Free of torch.

A stop rule only judges; the evaluator asks it after each evaluation and stops the session.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from stoker.settings import Count, Finite, Natural, NonNegative, Settings, check_settings
from stoker.trainer.evaluation import BestBy, Evaluation

__all__ = ["EvaluationSettings", "NoImprovement", "StopAtReward", "StopRule"]


class StopRule(Protocol):
    """Says when a training has come far enough, or will come no further."""

    def judge(self, evaluation: Evaluation, best: float | None, /) -> str | None:
        """Asked once for each evaluation, in order.

        Args:
            evaluation: the newest one.
            best: the best value of the run before it, over all attempts; None: there was none.

        Returns:
            Why the training is to end, in a few words; None: it goes on.
        """
        ...


class StopAtReward(Settings, frozen=True):
    """Ends a training whose mean reward reaches a goal.

    Attributes:
        reward: the goal.

    Raises:
        ConfigError: The goal is not a number.
    """

    reward: Finite

    def judge(self, evaluation: Evaluation, best: float | None, /) -> str | None:
        """Whether the mean reward is at least the goal, whatever evaluations are compared by."""
        del best
        if evaluation.mean_reward < self.reward:
            return None
        return f"the mean reward {evaluation.mean_reward:g} reached {self.reward:g}"


class NoImprovement(msgspec.Struct, eq=False):
    """Ends a training after ``patience`` evaluations in a row of which none was better than the best.

    It compares ``Evaluation.value``. Many small steps count together: a value is held against the last one
    that was better by more than ``min_delta``, not against the evaluation before.

    After a resume the best value is that of the run, and counting begins anew: a training that is
    interrupted more often than every ``patience`` evaluations never ends by this rule. The rule counts, so
    each evaluator needs one of its own.

    Attributes:
        patience: the number of evaluations without improvement that ends the training.
        min_delta: an improvement is more than this.
        after_steps: evaluations of policies with fewer environment steps can improve, but do not count.
        n_without: the number of evaluations without improvement so far.
        to_beat: the value that the next evaluation must exceed; None: the run's best.

    Raises:
        ConfigError: A value is out of range.
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
        seed: of the episodes; each evaluation plays the same ones.
        max_episode_steps: an episode is truncated after so many steps; None: its environment ends it.
        concurrency: how many episodes are played at the same time; None: all.
        best_by: what makes an evaluation better: ``"mean"`` or ``"lower_bound"``, see ``BestBy``.
        confirm: whether what would become the best is evaluated again before it does.
        stop_at_reward: end the training when an evaluation's mean reward reaches this; None: never.
        patience: end it after so many evaluations in a row without improvement; None: never.
        min_delta: an improvement is more than this; for ``patience``.
        after_steps: evaluations before this environment step do not count against ``patience``.

    Raises:
        ConfigError: A value is out of range; the message names it and the range.
    """

    n_episodes: Count = 20
    seed: Natural = 0
    max_episode_steps: Count | None = None
    concurrency: Count | None = None
    best_by: BestBy = "mean"
    confirm: bool = False
    stop_at_reward: Finite | None = None
    patience: Count | None = None
    min_delta: NonNegative = 0.0
    after_steps: Natural = 0

    def goal(self) -> StopAtReward | None:
        """The rule behind ``stop_at_reward``."""
        return None if self.stop_at_reward is None else StopAtReward(self.stop_at_reward)

    def stop_rules(self) -> tuple[StopRule, ...]:
        """The further rules, new and with nothing counted yet."""
        if self.patience is None:
            return ()
        return (NoImprovement(self.patience, min_delta=self.min_delta, after_steps=self.after_steps),)
