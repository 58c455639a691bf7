"""Settings that fall while a training goes on. Free of torch."""

from __future__ import annotations

from typing import Literal, TypeAlias

from stoker.agents.ranges import require, require_whole

__all__ = ["Schedule", "require_schedule_steps", "share_left"]

Schedule: TypeAlias = Literal["constant", "linear"]
"""Whether a setting stays, or falls linearly to 0 over ``schedule_steps`` environment steps."""


def require_schedule_steps(schedule_steps: object, **schedules: str) -> None:
    """Refuse a length that no schedule can have, and a schedule without one.

    Args:
        schedule_steps: the length, or None.
        schedules: by the name of their field.

    Raises:
        ConfigError: The message names the field, the value and what is allowed.
    """
    if schedule_steps is not None:
        require_whole("schedule_steps", schedule_steps, at_least=1)
    for field, schedule in schedules.items():
        require(
            schedule == "constant" or schedule_steps is not None,
            "schedule_steps",
            schedule_steps,
            f'a whole number of environment steps with {field}="linear", such as those of the whole training',
        )


def share_left(schedule: Schedule, schedule_steps: int | None, total_steps: int) -> float:
    """What a setting is multiplied with after that many environment steps, from 1 down to 0."""
    if schedule == "constant" or schedule_steps is None:
        return 1.0
    return max(1.0 - total_steps / schedule_steps, 0.0)
