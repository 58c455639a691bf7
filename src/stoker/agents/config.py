"""The settings that agents share. Free of torch, so that they can be read, checked and printed without it."""

from __future__ import annotations

import math
import warnings
from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from stoker.errors import ConfigError
from stoker.settings import Count, Fraction, Natural, Positive, Settings

__all__ = ["AgentConfig", "OffPolicyConfig", "Schedule", "channel_axis", "chosen_network"]

_SMALLEST_SIDE = 36  # of the images that the convolutions of Mnih et al. (2015) can see
_VISIBLE = "[height, width, channels] or [channels, height, width] of at least 36 x 36 pixels"

Schedule: TypeAlias = Literal["constant", "linear"]
"""Whether a setting stays, or falls linearly to 0 over ``schedule_steps`` environment steps."""


_Share: TypeAlias = Annotated[float, Meta(gt=0, le=1)]


class AgentConfig(Settings, frozen=True, kw_only=True):
    """How an agent learns."""

    learning_rate: Positive = 3e-4
    """Step size of Adam."""

    learning_rate_schedule: Schedule = "constant"
    """Whether learning_rate is constant or decays linearly to 0 over schedule_steps."""

    schedule_steps: Count | None = None
    """Environment steps over which linear schedules decay to 0, usually the whole training."""

    gamma: Fraction = 0.99
    """Discount per environment step, from 0 to 1."""

    batch_size: Count = 64
    """Transitions per gradient step."""

    max_grad_norm: Positive | None = None
    """Largest norm of the gradient over all weights; larger ones are scaled down. None: unchanged."""

    network: Literal["auto", "mlp", "nature_cnn"] = "auto"
    """mlp: fully connected layers; nature_cnn: convolutions (Mnih et al. 2015); auto: that for images."""

    hidden_sizes: tuple[Count, ...] = (64, 64)
    """Width of each hidden layer of an mlp; empty: a linear model."""

    normalize_observations: bool = False
    """Normalize observations to mean 0 and variance 1 by running statistics."""

    normalize_rewards: bool = False
    """Divide learned rewards by the running standard deviation of discounted returns."""

    clip_rewards: Positive | None = None
    """Clip learned rewards, after dividing, to plus and minus this; none: not at all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in self.__struct_fields__:
            if field.endswith("_schedule") and getattr(self, field) == "linear" and not self.schedule_steps:
                raise ConfigError(
                    f'schedule_steps=None: give the environment steps of {field}="linear", for example '
                    "those of the whole training"
                )

    def learning_rate_at(self, total_steps: int) -> float:
        """The step size after that many environment steps, which alone decide it."""
        return self.learning_rate * self._share_left(self.learning_rate_schedule, total_steps)

    def _share_left(self, schedule: Schedule, total_steps: int) -> float:
        """The factor of a scheduled setting after that many environment steps, from 1 down to 0."""
        if schedule == "constant" or self.schedule_steps is None:
            return 1.0
        return max(1.0 - total_steps / self.schedule_steps, 0.0)


class OffPolicyConfig(AgentConfig, frozen=True, kw_only=True):
    """How an agent learns from a replay."""

    buffer_size: Count = 100_000
    """Transitions that the replay holds; a new one replaces the oldest."""

    learning_starts: Natural = 1_000
    """Transitions in the replay before learning starts; never fewer than one batch."""

    target_update_interval: Count = 500
    """Optimization steps between copies of the network to the target network. Unused if tau is set."""

    tau: _Share | None = None
    """Fraction by which the target network moves at each optimization step, instead of whole copies."""

    n_step: Count = 1
    """Number of steps whose rewards a target sums before it bootstraps."""

    prioritized: bool = False
    """Sample transitions with a larger last error more often, instead of uniformly."""

    priority_alpha: Fraction = 0.6
    """Exponent of the error in a transition's priority: 0 is uniform, 1 is proportional."""

    priority_beta: Fraction = 0.4
    """Initial exponent of the importance weights: 0 corrects nothing, 1 corrects fully."""

    priority_final_beta: Fraction = 1.0
    """Final exponent of the importance weights."""

    priority_beta_steps: Count = 500_000
    """Optimization steps over which beta changes linearly from its initial to its final value."""

    priority_epsilon: _Share = 1e-6
    """Added to each error, so that every transition can be sampled again."""

    memory_map: Annotated[str, Meta(min_length=1)] | None = None
    """Directory of a memory-mapped file for a replay larger than memory; none: in memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("batch_size", "learning_starts"):
            if getattr(self, field) > self.buffer_size:
                raise ConfigError(
                    f"{field}={getattr(self, field)}: give at most buffer_size ({self.buffer_size}), or "
                    "learning would never start"
                )


ConfigT = TypeVar("ConfigT", bound=AgentConfig)


def chosen_network(
    agent: str, config: ConfigT, shape: tuple[int, ...], dtype: str, *, takes_floats: bool = False
) -> ConfigT:
    """The settings with ``network="auto"`` replaced: convolutions for images they can see, else an mlp.

    Images are uint8 of at least three axes. An image that gets an mlp, which does not know which pixels are
    neighbors, causes a warning.

    Raises:
        ConfigError: ``network="nature_cnn"`` cannot see such observations, or they are not uint8 and the
            agent does not take floats for it.
    """
    is_image = dtype == "uint8" and len(shape) >= 3
    is_visible = channel_axis(shape) is not None
    chosen = config.network
    if chosen == "auto":
        chosen = "nature_cnn" if is_image and is_visible else "mlp"
    if chosen == "nature_cnn" and not (is_visible and (is_image or takes_floats)):
        raise ConfigError(
            f"network='nature_cnn' takes uint8 images {_VISIBLE} (gymnasium.wrappers.FrameStackObservation "
            f"stacks gray ones); it cannot see observations {dtype} {list(shape)}: use network='mlp'"
        )
    if is_image and chosen == "mlp":
        way_out = (
            "network='auto' takes convolutions"
            if is_visible
            else f"convolutions see {_VISIBLE}: resize the images, or stack gray ones"
        )
        warnings.warn(
            f"{agent} sees uint8 images {list(shape)} through an mlp, which learns little from "
            f"{math.prod(shape):,} unrelated numbers; {way_out}",
            stacklevel=3,
        )
    return msgspec.structs.replace(config, network=chosen)


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """The axis of an image that holds its channels, first or last; None: convolutions cannot see it."""
    if len(shape) != 3:
        return None
    axis = 0 if shape[0] < shape[2] else 2
    least_side = min(side for at, side in enumerate(shape) if at != axis)
    return axis if least_side >= _SMALLEST_SIDE and shape[axis] < least_side else None
