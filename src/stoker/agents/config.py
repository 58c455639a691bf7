"""The settings that agents share. Free of torch, so that they can be read, checked and printed without it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from stoker.errors import ConfigError
from stoker.settings import Count, Fraction, Natural, Positive, Settings

Schedule: TypeAlias = Literal["constant", "linear"]
"""Whether a setting stays, or falls linearly to 0 over ``schedule_steps`` steps."""


_Share: TypeAlias = Annotated[float, Meta(gt=0, le=1)]


class AgentConfig(Settings, frozen=True, kw_only=True):
    """How an agent learns."""

    learning_rate: Positive = 3e-4
    """Step size of Adam."""

    learning_rate_schedule: Schedule = "constant"
    """Whether learning_rate is constant or decays linearly to 0 over schedule_steps."""

    schedule_steps: Count | None = None
    """Steps over which linear schedules decay to 0, usually the whole training."""

    schedule_counts: Literal["total_steps", "opt_steps"] = "total_steps"
    """The steps of schedules: transitions that the agent has observed, or optimization steps."""

    gamma: Fraction = 0.99
    """Discount per environment step, from 0 to 1."""

    batch_size: Count = 64
    """Transitions per gradient step."""

    max_grad_norm: Positive | None = None
    """Largest norm of the gradient over all weights; larger ones are scaled down. None: unchanged."""

    network: Literal["auto", "mlp", "cnn"] = "auto"
    """mlp: fully connected layers; cnn: convolutions for each image; auto: cnn if there are images."""

    hidden_sizes: tuple[Count, ...] = (64, 64)
    """Width of each hidden layer of an mlp, or behind a cnn that sees more than one image; empty: none."""

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
                    f'schedule_steps=None: give the steps of {field}="linear", for example '
                    "those of the whole training"
                )

    def learning_rate_at(self, steps: int) -> float:
        """The step size after that many steps as ``schedule_counts`` has them, which alone decide it."""
        return self.learning_rate * self._share_left(self.learning_rate_schedule, steps)

    def _share_left(self, schedule: Schedule, steps: int) -> float:
        """The factor of a scheduled setting after that many steps, from 1 down to 0."""
        if schedule == "constant" or self.schedule_steps is None:
            return 1.0
        return max(1.0 - steps / self.schedule_steps, 0.0)


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


class TwinCriticConfig(OffPolicyConfig, frozen=True, kw_only=True):
    """How an agent with an actor and two critics learns. The defaults are those of Stable-Baselines3."""

    batch_size: Count = 256
    """Transitions per gradient step."""

    buffer_size: Count = 1_000_000
    """Transitions that the replay holds; a new one replaces the oldest."""

    learning_starts: Natural = 1_000
    """Transitions in the replay before learning starts; until then actions are uniformly random."""

    gradient_steps: Count = 1
    """Gradient steps per optimization step, each on another batch."""

    tau: _Share | None = 0.005
    """Fraction by which the target critics move at each gradient step; none: whole copies."""

    target_update_interval: Count = 500
    """Gradient steps between copies of the critics to the target critics. Unused if tau is set."""

    hidden_sizes: tuple[Count, ...] = (256, 256)
    """Width of each hidden layer of the actor and of each critic; empty: a linear model."""
