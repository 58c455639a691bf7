"""Settings of an agent that follow from how long its training is."""

from __future__ import annotations

from typing import Any

import msgspec

_LEAST_ROLLOUT = 2_048
"""The rollout of Schulman et al. (2017), appendix A, who have one environment."""

_LEAST_UPDATES = 32
_ROUND = 64


def with_rollouts(settings: Any, total_timesteps: int, num_envs: int) -> Any:
    """The settings with rollouts of 2,048 steps of each environment, if there are steps enough.

    An update moves a policy as far as the clip range lets it, whether its rollout is large or small: many
    small rollouts move it far on little evidence, and a few large ones hardly at all. So rollouts are smaller
    where the training would have less than 32 updates, down to 2,048 steps of all environments together.
    """
    if not hasattr(settings, "rollout_steps"):
        return settings
    affordable = max(total_timesteps // _LEAST_UPDATES // _ROUND * _ROUND, _LEAST_ROLLOUT)
    return msgspec.structs.replace(settings, rollout_steps=min(_LEAST_ROLLOUT * num_envs, affordable))


def with_schedule(settings: Any, total_timesteps: int, spanned: int | None) -> Any:
    """The settings with a schedule that spans the whole training, if it spanned ``spanned`` steps.

    That many are the steps of a preset's training, or of a resumed run's training so far.
    """
    names = ("learning_rate_schedule", "clip_range_schedule")
    falls = any(getattr(settings, name, "constant") != "constant" for name in names)
    if not falls or spanned is None or getattr(settings, "schedule_steps", None) != spanned:
        return settings
    return msgspec.structs.replace(settings, schedule_steps=total_timesteps)
