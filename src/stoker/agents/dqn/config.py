"""The settings of DQN. Free of torch, so that they can be read, checked and printed without it."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from stoker.agents.images import Network
from stoker.agents.ranges import require, require_real, require_whole
from stoker.agents.schedules import Schedule, require_schedule_steps, share_left

__all__ = ["DQNConfig"]

_Exploration = Literal["epsilon", "softmax"]


class DQNConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a DQN agent learns and explores.

    Raises:
        ConfigError: A value is out of its range; the message names field, value and range.
    """

    learning_rate: float = 3e-4
    """Step size of Adam."""

    learning_rate_schedule: Schedule = "constant"
    """Whether learning_rate stays, or falls linearly to 0 over schedule_steps."""

    schedule_steps: int | None = None
    """Environment steps over which a linear schedule falls to 0, such as those of the whole training."""

    gamma: float = 0.99
    """Discount per environment step, from 0 to 1."""

    batch_size: int = 64
    """Transitions per optimization step."""

    buffer_size: int = 100_000
    """Transitions that the replay holds; the oldest makes way for a new one."""

    learning_starts: int = 1_000
    """Transitions in the replay before learning starts; never fewer than one batch."""

    target_update_interval: int = 500
    """Optimization steps between two copies of the network to the target network. Unused when tau is set."""

    tau: float | None = None
    """Fraction by which the target network follows at each optimization step, instead of whole copies."""

    network: Network = "auto"
    """mlp: fully connected layers; nature_cnn: convolutions (Mnih et al. 2015); auto: these for images."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Width of each hidden layer of the perceptron; without any, Q-values are linear in the observation."""

    dueling: bool = False
    """Let the network say what the state is worth, and apart from it what each action adds to that."""

    exploration: _Exploration = "epsilon"
    """Explore by a share of random actions, or by actions that are the likelier the higher their value."""

    initial_epsilon: float = 1.0
    """Share of random actions at the first environment step."""

    final_epsilon: float = 0.01
    """Share of random actions once epsilon has decayed."""

    epsilon_decay_steps: int = 10_000
    """Environment steps over which epsilon falls linearly from its initial to its final value."""

    softmax_temperature: float = 1.0
    """Difference of two values at which the better action is e times as likely. Unused with epsilon."""

    normalize_observations: bool = False
    """Bring observations to mean 0 and variance 1 by their running statistics."""

    normalize_rewards: bool = False
    """Divide the rewards to learn from by the standard deviation of discounted returns."""

    clip_rewards: float | None = None
    """Limit of the size of the rewards to learn from, after dividing; none leaves them as they are."""

    n_step: int = 1
    """Steps whose rewards are summed before the value of where they led is taken."""

    double: bool = False
    """Choose the next action with the network, not with the target network that values it (double DQN)."""

    prioritized: bool = False
    """Replay transitions the more often the larger their last error was, instead of all equally often."""

    priority_alpha: float = 0.6
    """Power of the error that a transition is drawn by: 0 is uniform, 1 is proportional."""

    priority_beta: float = 0.4
    """How far weights in the loss make up for uneven drawing, at first: 0 is not at all, 1 is wholly."""

    priority_final_beta: float = 1.0
    """The same at the end."""

    priority_beta_steps: int = 500_000
    """Optimization steps over which beta goes linearly from its first to its final value."""

    priority_epsilon: float = 1e-6
    """What is added to each error, so that no transition is never drawn again."""

    memory_map: str | None = None
    """Directory for a replay that is larger than the memory: a mapped file; none keeps it in memory."""

    max_grad_norm: float | None = 10.0
    """Gradients of a larger norm are scaled down to it; none leaves them as they are."""

    def __post_init__(self) -> None:
        require_real("learning_rate", self.learning_rate, above=0.0)
        schedule = self.learning_rate_schedule
        require(schedule in ("constant", "linear"), "learning_rate_schedule", schedule, "constant or linear")
        require_schedule_steps(self.schedule_steps, learning_rate_schedule=schedule)
        require_real("gamma", self.gamma, low=0.0, high=1.0)
        require_whole("batch_size", self.batch_size, at_least=1)
        require_whole("buffer_size", self.buffer_size, at_least=1)
        require_whole("learning_starts", self.learning_starts, at_least=0)
        require_whole("target_update_interval", self.target_update_interval, at_least=1)
        if self.tau is not None:
            require_real("tau", self.tau, above=0.0, high=1.0)
        require(
            isinstance(self.hidden_sizes, tuple),  # pyright: ignore[reportUnnecessaryIsInstance] - not yet checked
            "hidden_sizes",
            self.hidden_sizes,
            "a tuple of whole numbers, such as (64, 64)",
        )
        for index, size in enumerate(self.hidden_sizes):
            require_whole(f"hidden_sizes[{index}]", size, at_least=1)
        require_real("initial_epsilon", self.initial_epsilon, low=0.0, high=1.0)
        require_real("final_epsilon", self.final_epsilon, low=0.0, high=1.0)
        require(
            self.final_epsilon <= self.initial_epsilon,
            "final_epsilon",
            self.final_epsilon,
            f"at most initial_epsilon ({self.initial_epsilon})",
        )
        require_whole("epsilon_decay_steps", self.epsilon_decay_steps, at_least=1)
        require_real("softmax_temperature", self.softmax_temperature, above=0.0)
        require_whole("n_step", self.n_step, at_least=1)
        for field in ("priority_alpha", "priority_beta", "priority_final_beta"):
            require_real(field, getattr(self, field), low=0.0, high=1.0)
        require_whole("priority_beta_steps", self.priority_beta_steps, at_least=1)
        require_real("priority_epsilon", self.priority_epsilon, above=0.0, high=1.0)
        for field in ("double", "dueling", "prioritized", "normalize_observations", "normalize_rewards"):
            require(isinstance(getattr(self, field), bool), field, getattr(self, field), "True or False")
        for field, choices in (("network", get_args(Network)), ("exploration", get_args(_Exploration))):
            value = getattr(self, field)
            require(value in choices, field, value, " or ".join(map(repr, choices)))
        for field in ("max_grad_norm", "clip_rewards"):
            if getattr(self, field) is not None:
                require_real(field, getattr(self, field), above=0.0)
        require(
            self.memory_map is None or (isinstance(self.memory_map, str) and self.memory_map != ""),  # pyright: ignore[reportUnnecessaryIsInstance] - not yet checked
            "memory_map",
            self.memory_map,
            "None or the path of a directory",
        )
        for field in ("batch_size", "learning_starts"):
            require(
                getattr(self, field) <= self.buffer_size,
                field,
                getattr(self, field),
                f"at most buffer_size ({self.buffer_size}), or learning would never start",
            )

    def learning_rate_at(self, total_steps: int) -> float:
        """The step size after that many environment steps, and nothing else decides it."""
        left = share_left(self.learning_rate_schedule, self.schedule_steps, total_steps)
        return self.learning_rate * left

    def epsilon_at(self, total_steps: int) -> float:
        """The share of random actions after that many environment steps, and nothing else decides it."""
        progress = min(total_steps / self.epsilon_decay_steps, 1.0)
        if progress == 1.0:
            return self.final_epsilon
        return self.initial_epsilon + progress * (self.final_epsilon - self.initial_epsilon)

    @property
    def exploration_rate_name(self) -> str:
        """What the exploration rate is called where it is reported: ``"epsilon"`` or ``"temperature"``."""
        return "epsilon" if self.exploration == "epsilon" else "temperature"

    def exploration_rate_at(self, total_steps: int) -> float:
        """How much is explored after that many environment steps: epsilon, or the temperature."""
        return self.epsilon_at(total_steps) if self.exploration == "epsilon" else self.softmax_temperature
