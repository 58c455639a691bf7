"""The way from an actor's experiences to the transitions that a replay is to hold.

    experience --> reward clipped, or scaled --> n-step window --> transitions

One object for all actors of an agent, which holds what is under way between transitions. The same order of
experiences gives the same transitions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from stoker.processing.n_step import NStepWindows, Transition
from stoker.processing.rewards import RewardScaler
from stoker.types import ActorId, Experience

__all__ = ["StepProcessor"]


class StepProcessor:
    """RoundRobin experiences into transitions to store: their rewards first, then several steps into one.

    The loop that it serves::

        for experience in experiences:
            for transition, mask in processor.process(experience):
                replay.add(transition, mask)

    Args:
        n_step: steps per transition, at least 1; fewer at an episode's end.
        gamma: the discount per step, from 0 to 1.
        normalize_rewards: whether rewards are divided by the standard deviation of discounted returns.
        clip_rewards: rewards are limited to ``[-clip_rewards, clip_rewards]``, after dividing and before they
            are summed over steps; None: not at all.

    Attributes:
        changes_steps: whether it does anything. If not, each experience is a transition as it is, and may
            be stored without asking.

    Raises:
        ConfigError: A setting is out of its range.
    """

    def __init__(
        self,
        n_step: int = 1,
        gamma: float = 0.99,
        *,
        normalize_rewards: bool = False,
        clip_rewards: float | None = None,
    ) -> None:
        self._gamma = gamma
        self._windows = NStepWindows(n_step, gamma)
        self._rewards = RewardScaler(gamma, normalize=normalize_rewards, clip=clip_rewards)
        self.changes_steps = n_step > 1 or self._rewards.changes_rewards

    def process(self, experience: Experience) -> Sequence[Transition]:
        """Take one experience in; return the transitions that are now complete, oldest first.

        An experience that ends an episode, for either reason, completes all of that actor's. What the policy
        remembered about an action does not come with it.
        """
        if self._rewards.changes_rewards:
            experience = msgspec.structs.replace(experience, reward=self._rewards.scaled(experience))
        return self._windows.add(experience)

    def give_up(self, actor_id: ActorId) -> Sequence[Transition]:
        """An actor's episode will not go on: return what is left of it, oldest first.

        They lead to its last observation, whose value counts: nothing says that the episode ended there.
        """
        self._rewards.give_up(actor_id)
        return self._windows.give_up(actor_id)

    def state_dict(self) -> dict[str, Any]:
        """The open windows, and the statistics of rewards with the returns of running episodes."""
        return {"windows": self._windows.state_dict(), "rewards": self._rewards.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what ``state_dict`` described; where it lacks ``rewards``, nothing is known of them yet."""
        self._windows.load_state_dict(state["windows"])
        self._rewards.load_state_dict(state.get("rewards") or RewardScaler(self._gamma).state_dict())
