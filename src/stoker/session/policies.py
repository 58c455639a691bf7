"""The policy on its way from the learner to those who act: two copies, one of them in use.

The learner writes to the copy that nobody reads and then turns the two round, so that acting never waits
for learning and never sees half-written weights. Safe for any number of acting threads and one learner.
"""

from __future__ import annotations

import threading
from typing import Protocol

from stoker.agents.protocol import LearningAgent, Policy

__all__ = ["PinnedPolicy", "PolicyBuffer", "PolicySource"]


class PolicySource(Protocol):
    """Where a forward pass gets its policy from."""

    def acquire(self) -> tuple[Policy, int]:
        """The policy to act with, and the ticket to give back with ``release``."""
        ...

    def release(self, ticket: int) -> None:
        """Say that the policy is no longer used."""
        ...


class PinnedPolicy:
    """Always the same policy; for evaluation."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def acquire(self) -> tuple[Policy, int]:
        """The policy; the ticket means nothing."""
        return self._policy, 0

    def release(self, ticket: int) -> None:
        """Nothing to give back."""


class PolicyBuffer:
    """A double buffer of acting copies, versioned."""

    def __init__(self, agent: LearningAgent) -> None:
        self._agent = agent
        self._copies = (agent.policy(), agent.policy())
        self._users = [0, 0]
        self._front = 0
        self._lock = threading.Lock()
        self.version = 0
        """How many times weights were published; the version that ``acquire`` hands out."""

    def acquire(self) -> tuple[Policy, int]:
        """The newest whole policy, and the ticket to give back with ``release``."""
        with self._lock:
            front = self._front
            self._users[front] += 1
            return self._copies[front], front

    def release(self, ticket: int) -> None:
        """Say that the policy is no longer used."""
        with self._lock:
            self._users[ticket] -= 1

    def publish(self) -> bool:
        """Bring the idle copy up to date and hand it out from now on. For the learner's thread.

        Returns:
            False where somebody still acts on the idle copy, from before the last turn: then the newest
            weights wait for the next call, rather than the learner for the actors.
        """
        with self._lock:
            back = 1 - self._front
            if self._users[back]:
                return False
        self._agent.publish(self._copies[back])  # nobody can acquire it before the turn
        with self._lock:
            self._front = back
            self.version += 1
        return True
