"""A policy pinned at one point of the training, to be evaluated while the learner goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stoker.agents.protocol import Policy
from stoker.types import ActMode

__all__ = ["PolicySnapshot"]


class PolicySnapshot:
    """The policy as it was at ``total_steps``, with the weights that ``best`` will hold if it wins.

    Belongs to whoever asked for it; the learner never writes to it.

    Args:
        policy: an acting copy of its own.
        total_steps: environment steps consumed when it was taken.
        policy_version: how many times weights had been published by then.
        state: the agent's staged state.
        opt_steps: optimisation steps done when it was taken.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        total_steps: int,
        policy_version: int,
        state: Mapping[str, Any],
        opt_steps: int = 0,
    ) -> None:
        self.policy = policy
        self.total_steps = total_steps
        self.policy_version = policy_version
        self.opt_steps = opt_steps
        self.state = state

    def act(self, observations: Sequence[Any], mode: ActMode = ActMode.EXPLOIT) -> Sequence[Any]:
        """One action per observation, in one forward pass; from one thread at a time."""
        actions, _ = self.policy.act(observations, mode)
        return actions
