"""When to end a training early, by what its evaluations say. Free of torch.

A rule only judges; the evaluator asks it after each evaluation and stops the session. A rule that remembers
belongs to one evaluator.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from stoker.errors import ConfigError
from stoker.trainer.evaluation import Evaluation

__all__ = ["NoImprovement", "StopAtReward", "StopRule"]


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


class StopAtReward:
    """Ends a training whose mean reward reaches a goal.

    Args:
        reward: the goal.

    Raises:
        ConfigError: It is not a number.
    """

    def __init__(self, reward: float) -> None:
        if not _is_number(reward) or math.isnan(reward):
            raise ConfigError(f"stop_at_reward={reward!r}: give a number, or None for never")
        self.reward = reward

    def judge(self, evaluation: Evaluation, best: float | None, /) -> str | None:
        """Whether the mean reward is at least the goal, whatever evaluations are compared by."""
        del best
        if evaluation.mean_reward < self.reward:
            return None
        return f"the mean reward {evaluation.mean_reward:g} reached {self.reward:g}"


class NoImprovement:
    """Ends a training after ``patience`` evaluations in a row of which none was better than the best.

    Compared is ``Evaluation.value``. Many small steps count together: a value is held against the last one
    that was better by more than ``min_delta``, not against the evaluation before.

    After a resume the best value is that of the run, and counting begins anew: a training that is
    interrupted more often than every ``patience`` evaluations is not ended by this.

    Args:
        patience: so many evaluations without improvement are one too many.
        min_delta: an improvement is more than this.
        after_steps: evaluations of policies with fewer environment steps can improve, but are not counted.

    Raises:
        ConfigError: A value is out of range.
    """

    def __init__(self, patience: int, *, min_delta: float = 0.0, after_steps: int = 0) -> None:
        if type(patience) is not int or patience < 1:
            raise ConfigError(f"patience={patience!r}: give an int of at least 1")
        if not _is_number(min_delta) or not 0 <= min_delta < math.inf:
            raise ConfigError(f"min_delta={min_delta!r}: give a finite number of at least 0")
        if type(after_steps) is not int or after_steps < 0:
            raise ConfigError(f"after_steps={after_steps!r}: give an int of at least 0")
        self.patience = patience
        self.min_delta = min_delta
        self.after_steps = after_steps
        self.n_without = 0
        """How many evaluations have been without improvement."""
        self._to_beat: float | None = None

    def judge(self, evaluation: Evaluation, best: float | None, /) -> str | None:
        """Count it, unless it is better."""
        to_beat = best if self._to_beat is None else self._to_beat
        if to_beat is None or evaluation.value > to_beat + self.min_delta:
            self._to_beat = evaluation.value
            self.n_without = 0
            return None
        self._to_beat = to_beat
        if evaluation.total_steps >= self.after_steps:
            self.n_without += 1
        if self.n_without < self.patience:
            return None
        margin = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return f"no evaluation of the last {self.n_without} was better than {to_beat:g}{margin}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
