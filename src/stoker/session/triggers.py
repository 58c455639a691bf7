"""When something is due: learning, checkpoints, evaluations, records and the end of learning.

Each is a period in environment or in optimization steps, and due at its exact multiples. Nothing but the two
counters decides, so that the same order of events has the same things done at the same places.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from stoker.session.config import SessionConfig

__all__ = ["Due", "Triggers"]

_NEVER = 1 << 62


class Due(NamedTuple):
    """What is to be done at a point, beside learning."""

    checkpoint: bool
    evaluation: bool
    record: bool
    limit: bool


class Triggers:
    """The next point of each period, beyond the present one.

    Args:
        config: the session's settings.
        total_steps, opt_steps: where the counters stand.
        has_run: whether checkpoints go anywhere.

    Attributes:
        next_learn: the environment step at which the agent is to learn next.
    """

    def __init__(self, config: SessionConfig, total_steps: int, opt_steps: int, *, has_run: bool) -> None:
        self._periods = config.periods
        self._save = (config.checkpoint_freq, config.save_interval) if has_run else (0, 0)
        self._evaluate = (config.eval_freq, config.eval_interval)
        self._record = (config.record_freq, config.record_interval)
        self._most = _NEVER if config.max_opts is None else config.max_opts
        self._total_steps, self._opt_steps = total_steps, opt_steps
        self.next_learn = _NEVER
        self._move()

    @property
    def may_learn(self) -> bool:
        """Whether ``max_opts`` leaves anything to do."""
        return self._opt_steps < self._most

    def room(self) -> int:
        """How many transitions may be fed, at least one, so that nothing is due before the last of them."""
        until = self._next_stop
        if self._next_opt < _NEVER and self.next_learn < _NEVER:
            # Each call of learn makes one optimization step at most.
            calls = self._next_opt - self._opt_steps
            until = min(until, self.next_learn + (calls - 1) * self._periods.opt_interval)
        return until - self._total_steps

    def reached(self, total_steps: int, opt_steps: int) -> Due | None:
        """Take in where the counters stand now; return what is due, or None."""
        at_step = total_steps == self._next_stop and total_steps != self._total_steps
        at_opt = opt_steps == self._next_opt
        before_steps, before_opts = self._total_steps, self._opt_steps
        self._total_steps, self._opt_steps = total_steps, opt_steps
        found = None
        if at_step or at_opt:
            is_new = (total_steps != before_steps, opt_steps != before_opts)
            found = Due(
                checkpoint=_is_multiple(self._save, total_steps, opt_steps, is_new),
                evaluation=_is_multiple(self._evaluate, total_steps, opt_steps, is_new),
                record=_is_multiple(self._record, total_steps, opt_steps, is_new),
                limit=opt_steps >= self._most and opt_steps != before_opts,
            )
        self._move()
        return found

    def _move(self) -> None:
        steps, opts = self._total_steps, self._opt_steps
        interval, warmup, _ = self._periods
        self.next_learn = _next_multiple(max(steps, warmup - 1), interval) if self.may_learn else _NEVER
        self._next_stop = _first(steps, (self._save[0], self._evaluate[0], self._record[0]))
        self._next_opt = min(_first(opts, (self._save[1], self._evaluate[1], self._record[1])), self._most)
        if not self.may_learn:
            self._next_opt = _NEVER


def _next_multiple(count: int, period: int) -> int:
    """The first multiple of the period beyond the count; never, for a period of 0."""
    return count - count % period + period if period else _NEVER


def _first(count: int, periods: Iterable[int]) -> int:
    return min(_next_multiple(count, period) for period in periods)


def _is_multiple(
    periods: tuple[int, int], total_steps: int, opt_steps: int, is_new: tuple[bool, bool]
) -> bool:
    return any(
        new and period and count % period == 0
        for period, count, new in zip(periods, (total_steps, opt_steps), is_new, strict=True)
    )
