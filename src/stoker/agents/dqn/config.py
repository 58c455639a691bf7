"""The settings of DQN. Free of torch, so that they can be read, checked and printed without it."""

from __future__ import annotations

from typing import Literal

from stoker.agents.config import OffPolicyConfig
from stoker.errors import ConfigError
from stoker.settings import Count, Fraction, Positive


class DQNConfig(OffPolicyConfig, frozen=True, kw_only=True):
    """How a DQN agent learns and explores."""

    double: bool = False
    """Double DQN: choose the next action with the network, and value it with the target network."""

    dueling: bool = False
    """Dueling networks: estimate the state's value and the actions' advantages separately."""

    exploration: Literal["epsilon", "softmax"] = "epsilon"
    """epsilon: a fraction of random actions; softmax: actions of higher value are more likely."""

    huber_delta: Positive | None = 1.0
    """TD error beyond which the loss is linear, so that larger ones weigh no more; None: all are squared."""

    initial_epsilon: Fraction = 1.0
    """Fraction of random actions at the first environment step."""

    final_epsilon: Fraction = 0.01
    """Fraction of random actions after the decay."""

    epsilon_decay_steps: Count = 10_000
    """Environment steps over which epsilon decays linearly from its initial to its final value."""

    softmax_temperature: Positive = 1.0
    """Difference of two values at which the better action is e times as likely. Unused with epsilon."""

    max_grad_norm: Positive | None = 10.0
    """Largest norm of the gradient over all weights; larger ones are scaled down. None: unchanged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.final_epsilon > self.initial_epsilon:
            raise ConfigError(
                f"final_epsilon={self.final_epsilon}: give at most initial_epsilon ({self.initial_epsilon})"
            )

    @property
    def exploration_rate_name(self) -> str:
        """The reported name of the exploration rate: ``"epsilon"`` or ``"temperature"``."""
        return "epsilon" if self.exploration == "epsilon" else "temperature"

    def exploration_rate_at(self, total_steps: int) -> float:
        """Epsilon, or the temperature, after that many environment steps, which alone decide it."""
        if self.exploration == "softmax":
            return self.softmax_temperature
        progress = min(total_steps / self.epsilon_decay_steps, 1.0)
        if progress == 1.0:
            return self.final_epsilon
        return self.initial_epsilon + progress * (self.final_epsilon - self.initial_epsilon)
