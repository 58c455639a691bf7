"""Agents that learn nothing and remember everything, to test what is around an agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stoker.errors import ConfigError
from stoker.types import ActMode, ActorId, Experience

__all__ = ["FakeAgent"]


class FakeAgent:
    """Notes what it is given, in order; acts on every observation with a fixed action.

    Args:
        action: what its policy answers with.
        total_steps: where its count begins.
        fail_at: raise ``RuntimeError`` when it has observed this many transitions.
        policy_extras: whether its policy remembers the observation it acted on.
    """

    needs_policy_extras = False

    def __init__(
        self,
        action: Any = 0,
        *,
        total_steps: int = 0,
        fail_at: int | None = None,
        policy_extras: bool = False,
    ) -> None:
        self.action = action
        self.total_steps = total_steps
        self.fail_at = fail_at
        self.policy_extras = policy_extras
        self.experiences: list[Experience] = []
        self.learned_at: list[int] = []
        """``total_steps`` at each call of ``learn``."""
        self.started: list[ActorId] = []
        self.batch_sizes: list[int] = []
        """How many observations each forward pass had."""

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[Sequence[Any], Sequence[Any] | None]:
        """The fixed action for each."""
        del mode
        self.batch_sizes.append(len(observations))
        return [self.action] * len(observations), list(observations) if self.policy_extras else None

    def policy(self) -> FakeAgent:
        """Itself: it has no parameters."""
        return self

    def publish(self, policy: Any) -> None:
        """Nothing to bring up to date."""

    def observe(self, experiences: Sequence[Experience]) -> None:
        """Note the transitions.

        Raises:
            RuntimeError: ``fail_at`` is reached.
        """
        self.experiences.extend(experiences)
        self.total_steps += len(experiences)
        if self.fail_at is not None and self.total_steps >= self.fail_at:
            raise RuntimeError(f"failed at {self.total_steps} steps, as it was set to")

    def learn(self) -> Mapping[str, float] | None:
        """Note when."""
        self.learned_at.append(self.total_steps)
        return {}

    def episode_extras(self, actor_id: ActorId) -> Mapping[str, float]:
        """How much it has seen."""
        del actor_id
        return {"seen": float(self.total_steps)}

    def on_episode_start(self, actor_id: ActorId) -> None:
        """Note who."""
        self.started.append(actor_id)

    def state_dict(self) -> dict[str, Any]:
        """Its counter."""
        return {"total_steps": self.total_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from that counter.

        Raises:
            ConfigError: There is none.
        """
        if "total_steps" not in state:
            raise ConfigError(
                f"not the state of a FakeAgent: it has {', '.join(map(str, state)) or 'nothing'}"
            )
        self.total_steps = state["total_steps"]
