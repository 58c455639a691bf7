"""What an evaluation came to, ready to print or to send."""

from __future__ import annotations

import msgspec

__all__ = ["EvalReport"]


class EvalReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Stats over a number of episodes, at one point of the training.

    Printed as a headline and one ``key: value`` line per stat, sorted by key, with three decimals.

    Attributes:
        total_steps: environment steps of training at that point.
        n_episodes: how many episodes the stats are over.
        stats: the values by name; NaN where there was nothing to aggregate.
    """

    total_steps: int
    n_episodes: int
    stats: dict[str, float]

    def __str__(self) -> str:
        headline = f"=== Eval @ step {self.total_steps} ({self.n_episodes} episodes) ==="
        return "\n".join([headline, *(f"{key}: {value:.3f}" for key, value in sorted(self.stats.items()))])
