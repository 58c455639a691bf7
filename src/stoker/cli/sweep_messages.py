"""What the process of one seed and its parent say to each other, as lines of JSON."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Order(msgspec.Struct, frozen=True):
    """What a process is to train.

    Attributes:
        command: whether the run is new or there already.
        fields: of ``Train`` or ``Resume``.
    """

    command: Literal["train", "resume"]
    fields: dict[str, Any]


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a process is.

    Attributes:
        run: the directory of its run; "": there is none yet.
        total_steps, limit: environment steps, and how many there will be.
        steps_per_s: over the last 10 s.
        eta_s: seconds until the limit.
        mean_reward: over the last 100 episodes.
        last_eval: the mean reward of the last evaluation.
        best: that of the best one, ever.
        ended: how the training ended, in a word or two; "": it has not.
    """

    run: str = ""
    total_steps: int = 0
    limit: int = 0
    steps_per_s: float = 0.0
    eta_s: float | None = None
    mean_reward: float | None = None
    last_eval: float | None = None
    best: float | None = None
    ended: str = ""
