"""The settings of PPO. Free of torch, so that they can be read, checked and printed without it."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from stoker.agents.images import Network
from stoker.agents.ranges import require, require_real, require_whole
from stoker.agents.schedules import Schedule, require_schedule_steps, share_left

__all__ = ["PPOConfig"]


class PPOConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a PPO agent learns.

    Raises:
        ConfigError: A value is out of its range; the message names field, value and range.
    """

    learning_rate: float = 3e-4
    """Step size of Adam."""

    rollout_steps: int = 2_048
    """Transitions of all actors together that are collected for an update."""

    n_epochs: int = 10
    """How often an update goes through its rollout."""

    batch_size: int = 64
    """Transitions per gradient step; what is left of a rollout makes a smaller one."""

    gamma: float = 0.99
    """Discount per environment step, from 0 to 1."""

    gae_lambda: float = 0.95
    """How far advantages look ahead before they trust a value: from 0, one step, to 1, the whole rollout."""

    clip_range: float = 0.2
    """How far an action's probability may move, as a share of what it was, before its gradient is cut off."""

    value_clip_range: float | None = None
    """How far a value may move from what it was before its gradient is cut off; none: any distance."""

    normalize_advantages: bool = True
    """Bring the advantages of each batch to mean 0 and standard deviation 1."""

    ent_coef: float = 0.0
    """Weight of the entropy: larger keeps the policy random for longer."""

    vf_coef: float = 0.5
    """Weight of the value loss."""

    max_grad_norm: float | None = 0.5
    """Gradients of a larger norm, over all weights, are scaled down to it; none leaves them as they are."""

    target_kl: float | None = None
    """An update ends early once the policy has moved by 1.5 times this divergence; none: it does not."""

    learning_rate_schedule: Schedule = "constant"
    """Whether learning_rate stays, or falls linearly to 0 over schedule_steps."""

    clip_range_schedule: Schedule = "constant"
    """Whether clip_range stays, or falls linearly to 0 over schedule_steps."""

    schedule_steps: int | None = None
    """Environment steps over which linear schedules fall to 0, such as those of the whole training."""

    network: Network = "auto"
    """mlp: fully connected layers; nature_cnn: convolutions (Mnih et al. 2015); auto: these for images."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Width of each hidden layer of an mlp, in policy and value alike."""

    activation: Literal["tanh", "relu"] = "tanh"
    """What stands between the layers of an mlp."""

    log_std_init: float = 0.0
    """Logarithm of the standard deviation of continuous actions at first; it is learned, for all states."""

    normalize_observations: bool = False
    """Bring observations to mean 0 and variance 1 by their running statistics."""

    normalize_rewards: bool = False
    """Divide rewards by the running standard deviation of discounted returns."""

    clip_rewards: float | None = None
    """Limit rewards, after dividing, to plus and minus this; none: not at all."""

    adam_eps: float = 1e-5
    """What Adam adds to the root of the mean square of a gradient."""

    def __post_init__(self) -> None:
        require_real("learning_rate", self.learning_rate, above=0.0)
        for field in ("rollout_steps", "n_epochs", "batch_size"):
            require_whole(field, getattr(self, field), at_least=1)
        for field in ("gamma", "gae_lambda"):
            require_real(field, getattr(self, field), low=0.0, high=1.0)
        for field in ("clip_range", "adam_eps"):
            require_real(field, getattr(self, field), above=0.0)
        for field in ("ent_coef", "vf_coef"):
            require_real(field, getattr(self, field), low=0.0)
        for field in ("value_clip_range", "max_grad_norm", "target_kl", "clip_rewards"):
            if getattr(self, field) is not None:
                require_real(field, getattr(self, field), above=0.0)
        for field in ("normalize_advantages", "normalize_observations", "normalize_rewards"):
            require(isinstance(getattr(self, field), bool), field, getattr(self, field), "True or False")
        for field, choices in _CHOICES.items():
            require(getattr(self, field) in choices, field, getattr(self, field), " or ".join(choices))
        require(
            isinstance(self.hidden_sizes, tuple),  # pyright: ignore[reportUnnecessaryIsInstance] - not yet checked
            "hidden_sizes",
            self.hidden_sizes,
            "a tuple of whole numbers, such as (64, 64)",
        )
        for index, size in enumerate(self.hidden_sizes):
            require_whole(f"hidden_sizes[{index}]", size, at_least=1)
        require_real("log_std_init", self.log_std_init, low=-20.0, high=20.0)
        require_schedule_steps(
            self.schedule_steps,
            learning_rate_schedule=self.learning_rate_schedule,
            clip_range_schedule=self.clip_range_schedule,
        )

    def learning_rate_at(self, total_steps: int) -> float:
        """The step size after that many environment steps, and nothing else decides it."""
        return self.learning_rate * share_left(self.learning_rate_schedule, self.schedule_steps, total_steps)

    def clip_range_at(self, total_steps: int) -> float:
        """The clip range after that many environment steps, and nothing else decides it."""
        return self.clip_range * share_left(self.clip_range_schedule, self.schedule_steps, total_steps)


_CHOICES: dict[str, tuple[str, ...]] = {
    "learning_rate_schedule": get_args(Schedule),
    "clip_range_schedule": get_args(Schedule),
    "network": get_args(Network),
    "activation": ("tanh", "relu"),
}
