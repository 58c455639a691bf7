"""How policies are evaluated, in one value that can be written down and checked. Free of torch."""

from __future__ import annotations

from typing import get_args

import msgspec

from stoker.errors import ConfigError
from stoker.trainer.evaluation import BestBy
from stoker.trainer.stopping import NoImprovement, StopAtReward, StopRule

__all__ = ["EvaluationSettings"]


class EvaluationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of an ``Evaluator``. When it evaluates is the session's to say.

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
    """

    n_episodes: int = 20
    seed: int = 0
    max_episode_steps: int | None = None
    concurrency: int | None = None
    best_by: BestBy = "mean"
    confirm: bool = False
    stop_at_reward: float | None = None
    patience: int | None = None
    min_delta: float = 0.0
    after_steps: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be used.

        Raises:
            ConfigError: A value is out of range; the message names it and the range.
        """
        if type(self.n_episodes) is not int or self.n_episodes < 1:
            raise ConfigError(f"n_episodes={self.n_episodes!r}: give an int, and evaluate at least 1")
        if type(self.seed) is not int or self.seed < 0:
            raise ConfigError(f"seed={self.seed!r}: give an int of at least 0")
        for name in ("max_episode_steps", "concurrency"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name}={value!r}: give an int of at least 1, or None for no limit")
        if self.best_by not in get_args(BestBy):
            raise ConfigError(f"best_by={self.best_by!r}: choose one of {', '.join(get_args(BestBy))}")
        if type(self.confirm) is not bool:
            raise ConfigError(f"confirm={self.confirm!r}: give True or False")
        NoImprovement(
            1 if self.patience is None else self.patience,
            min_delta=self.min_delta,
            after_steps=self.after_steps,
        )
        self.goal()

    def goal(self) -> StopAtReward | None:
        """The rule behind ``stop_at_reward``.

        Raises:
            ConfigError: That is no number.
        """
        return None if self.stop_at_reward is None else StopAtReward(self.stop_at_reward)

    def stop_rules(self) -> tuple[StopRule, ...]:
        """The further rules, new and with nothing counted yet."""
        if self.patience is None:
            return ()
        return (NoImprovement(self.patience, min_delta=self.min_delta, after_steps=self.after_steps),)
