"""The settings of BC. Free of torch, so that they can be read, checked and printed without it."""

from __future__ import annotations

from msgspec.structs import fields

from stoker.agents.config import OffPolicyConfig
from stoker.errors import ConfigError
from stoker.settings import Count, Natural, Positive

_OF_VALUES = ("n_step", "tau", "prioritized", "normalize_rewards", "clip_rewards")


class BCConfig(OffPolicyConfig, frozen=True, kw_only=True):
    """How a BC agent learns. It learns no values: settings of rewards and targets are refused."""

    learning_rate: Positive = 1e-3
    """Step size of Adam."""

    batch_size: Count = 256
    """Transitions per gradient step."""

    buffer_size: Count = 1_000_000
    """Transitions that the replay holds; a new one replaces the oldest."""

    learning_starts: Natural = 0
    """Transitions in the replay before learning starts; never fewer than one batch."""

    hidden_sizes: tuple[Count, ...] = (256, 256)
    """Width of each hidden layer of an mlp, or behind a cnn that sees more than one image; empty: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in fields(BCConfig):
            value = getattr(self, field.name)
            if field.name in _OF_VALUES and value != field.default:
                raise ConfigError(
                    f"{field.name}={value}: BC learns actions, and neither rewards nor values: leave it out"
                )
