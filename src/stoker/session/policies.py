"""Policies that actors use: the learner publishes copies, double-buffered, and evaluators pin one.

The learner writes to a copy that nobody reads and then swaps the two, so that acting never waits for
learning and never sees half-written weights. Safe for any number of acting threads and one learner.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from stoker.agents.protocol import LearningAgent, Policy
from stoker.types import ActMode

__all__ = ["PinnedPolicy", "PolicyBuffer", "PolicySnapshot", "PolicySource"]


class PolicySource(Protocol):
    """Where actors and inference take the policy from."""

    @property
    def version(self) -> int:
        """How many times a policy was published."""
        ...

    @property
    def published(self) -> int:
        """The optimization steps behind the policy that ``acquire`` hands out."""
        ...

    def acquire(self) -> tuple[Policy, int]:
        """The policy to act with, and the ticket to give back with ``release``."""
        ...

    def release(self, ticket: int) -> None:
        """Give the policy back."""
        ...

    def opt_steps(self, ticket: int) -> int:
        """The optimization steps behind the policy that an open ticket stands for."""
        ...


class PinnedPolicy:
    """Always the same policy; for evaluation."""

    version = published = 0

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def acquire(self) -> tuple[Policy, int]:
        """The policy."""
        return self._policy, 0

    def release(self, ticket: int) -> None:
        """Do nothing."""

    def opt_steps(self, ticket: int) -> int:
        """It has no version."""
        return 0


class PolicyBuffer:
    """Acting copies, versioned: the newest in use, one to write to, and more while old ones are used.

    Args:
        agent: whose policies.
        opt_steps: the optimization steps behind its weights.
    """

    def __init__(self, agent: LearningAgent, opt_steps: int = 0) -> None:
        self._agent = agent
        self._copies = [agent.policy(), agent.policy()]
        self._users = [0, 0]
        self._opt_steps = [opt_steps, opt_steps]
        self._front = 0
        self._lock = threading.Lock()
        self.version = 0
        """How many times weights were published."""

    @property
    def published(self) -> int:
        """The optimization steps behind the policy that ``acquire`` hands out."""
        return self._opt_steps[self._front]

    def acquire(self) -> tuple[Policy, int]:
        """The newest whole policy, and the ticket to give back with ``release``."""
        with self._lock:
            front = self._front
            self._users[front] += 1
            return self._copies[front], front

    def release(self, ticket: int) -> None:
        """Give the policy back."""
        with self._lock:
            self._users[ticket] -= 1

    def opt_steps(self, ticket: int) -> int:
        """The optimization steps behind the policy that an open ticket stands for."""
        return self._opt_steps[ticket]

    def publish(self, opt_steps: int) -> None:
        """Bring an idle copy up to date and hand it out from now on. For the learner's thread.

        The learner never waits for actors: if all copies are in use, it makes one more.
        """
        back = self._idle()
        self._agent.publish(self._copies[back])  # nobody can acquire it yet
        self._opt_steps[back] = opt_steps
        with self._lock:
            self._front = back
            self.version += 1

    def _idle(self) -> int:
        with self._lock:
            for place, n_users in enumerate(self._users):
                if place != self._front and not n_users:
                    return place
        policy = self._agent.policy()
        with self._lock:
            self._copies.append(policy)
            self._users.append(0)
            self._opt_steps.append(0)
            return len(self._copies) - 1


class PolicySnapshot:
    """The policy as it was at ``total_steps``, with the weights that ``best`` will hold if it wins.

    Belongs to the caller that asked for it; the learner never writes to it.

    Args:
        policy: an acting copy of its own.
        total_steps: environment steps consumed when it was taken.
        policy_version: how many times weights had been published by then.
        state: the agent's staged state.
        opt_steps: optimization steps done when it was taken.
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
