"""Copies of the policy that actors have of their own, and how they are kept up to date.

A copy's version is the number of optimization steps behind it. It is brought up to date when the session
hands out a policy that is ``sync_interval`` steps ahead of it (Horgan et al. 2018, "Distributed Prioritized
Experience Replay", algorithm 1, where actors fetch the learner's weights every so often).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from stoker.agents.protocol import PortablePolicy
from stoker.envs import episode_seed
from stoker.errors import ConfigError
from stoker.exits import Contained
from stoker.types import ActMode, ActorId

if TYPE_CHECKING:
    from stoker.session.policies import PolicySource

__all__ = ["OwnPolicy", "PolicyFeed", "Weights"]


_ACTING, _LOADING = Contained("policy.act"), Contained("policy.load_weights")


class Weights(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """What a copy is brought up to date with.

    Attributes:
        version: the optimization steps behind them.
        weights: what ``PortablePolicy.weights`` gave; only read.
    """

    version: int
    weights: Mapping[str, Any]


class OwnPolicy:
    """A copy that one actor acts on.

    Args:
        policy: the copy.
        version: the optimization steps behind it.
    """

    def __init__(self, policy: PortablePolicy, version: int) -> None:
        self.policy = policy
        self.version = version
        self.syncs = 0
        """How often it was brought up to date."""

    def act(self, observation: Any) -> tuple[Any, Any]:
        """An exploring action, and what is to be remembered of it."""
        with _ACTING:
            actions, extras = self.policy.act([observation], ActMode.EXPLORE)
        return actions[0], None if extras is None else extras[0]

    def load(self, fresh: Weights) -> None:
        """Act with these from now on."""
        with _LOADING:
            self.policy.load_weights(fresh.weights)
        self.version = fresh.version
        self.syncs += 1


class PolicyFeed:
    """Where copies come from, and their weights. May be asked from any thread.

    Args:
        policies: those that the session acts with.
        sync_interval: optimization steps by which a copy may be behind before it is brought up to date.

    Raises:
        ConfigError: The session's policies are not ``PortablePolicy``.
    """

    def __init__(self, policies: PolicySource, sync_interval: int) -> None:
        self._policies = policies
        self._interval = sync_interval
        self._lock = threading.Lock()
        self._newest: tuple[int, Weights] | None = None  # shared by all copies that are due together
        policy, ticket = policies.acquire()
        policies.release(ticket)
        if not isinstance(policy, PortablePolicy):
            raise ConfigError(
                f"{type(policy).__name__} is no PortablePolicy (fork, weights and load_weights): actors can "
                "have no copies of it; use place='tasks' without sync_interval"
            )

    def fork(self, seed: int | None, actor_id: ActorId, episode: int) -> OwnPolicy:
        """A copy for an actor whose next episode has this number, as new as there is.

        What it draws comes from a generator that ``seed``, the actor and that number determine; None:
        from one of its own.
        """
        drawn = _fresh_seed() if seed is None else episode_seed(seed, actor_id, episode, stream="policies")
        policy, ticket = self._policies.acquire()
        try:
            return OwnPolicy(_portable(policy).fork(drawn), self._policies.opt_steps(ticket))
        finally:
            self._policies.release(ticket)

    def is_due(self, version: int) -> bool:
        """Whether a copy of that version is to be brought up to date."""
        return self._policies.published - version >= self._interval

    def newer(self, version: int) -> Weights | None:
        """What a copy of that version is to be brought up to date with, if it is due."""
        return self.newest() if self.is_due(version) else None

    def newest(self) -> Weights:
        """The newest weights there are."""
        with self._lock:
            number = self._policies.version  # read first: what is acquired may only be newer than that
            if self._newest is None or self._newest[0] != number:
                policy, ticket = self._policies.acquire()
                try:
                    weights = Weights(self._policies.opt_steps(ticket), _portable(policy).weights())
                finally:
                    self._policies.release(ticket)
                self._newest = number, weights
            return self._newest[1]


def _fresh_seed() -> int:
    """A seed that nobody has asked for."""
    return int(np.random.SeedSequence().generate_state(1, np.uint32)[0])


def _portable(policy: Any) -> PortablePolicy:
    return policy
