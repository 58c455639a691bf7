"""Copies of the policy for actors that choose their own actions, and their updates.

The version of a copy is the number of optimization steps behind it. The copy is updated when the session
publishes a policy that is ``sync_interval`` steps ahead (Horgan et al. 2018, "Distributed Prioritized
Experience Replay", algorithm 1, where actors fetch the learner's weights periodically).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from stoker.actors.episodes import PolicyFailed
from stoker.agents.protocol import PortablePolicy
from stoker.envs import episode_seed
from stoker.errors import ConfigError, InvalidExperience
from stoker.exits import Contained
from stoker.types import ActMode, ActorId

if TYPE_CHECKING:
    from stoker.session.acting import PolicyBuffer

__all__ = ["OwnPolicy", "PolicyFeed", "Weights"]

_ACTING, _LOADING = Contained("policy.act"), Contained("policy.load_weights")


class Weights(msgspec.Struct, frozen=True, eq=False, weakref=True, tag=True, array_like=True):
    """New weights for a copy; also the command that brings them to a worker.

    Attributes:
        version: the optimization steps behind them.
        weights: what ``PortablePolicy.weights`` returned; read-only.
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
        """How often it was updated."""

    def act(self, observation: Any) -> tuple[Any, Any, int]:
        """An exploring action, its policy extras and the version.

        Raises:
            InvalidExperience: The policy refuses the observation.
            PolicyFailed: The policy raised anything else.
        """
        try:
            with _ACTING:
                actions, extras = self.policy.act([observation], ActMode.EXPLORE)
        except InvalidExperience:
            raise
        except Exception as error:
            raise PolicyFailed(observation) from error
        return actions[0], None if extras is None else extras[0], self.version

    def load(self, fresh: Weights) -> None:
        """Act with these weights from now on."""
        with _LOADING:
            self.policy.load_weights(fresh.weights)
        self.version = fresh.version
        self.syncs += 1


class PolicyFeed:
    """Makes copies of the session's policy, and their new weights. For the session's event loop.

    Args:
        policies: the policies that the session acts with.
        sync_interval: a copy that is this many optimization steps behind is updated.

    Raises:
        ConfigError: The session's policies are not ``PortablePolicy``.
    """

    def __init__(self, policies: PolicyBuffer, sync_interval: int) -> None:
        self._policies = policies
        self._interval = sync_interval
        self._newest: tuple[int, Weights] | None = None  # shared by all copies that are due together
        with self._acquired():  # checks it
            pass

    def fork(self, seed: int | None, actor_id: ActorId, episode: int) -> OwnPolicy:
        """A copy of the newest policy, for an actor whose next episode has this number.

        The generator of the copy is determined by ``seed``, the actor and that number; without a seed it is
        random.
        """
        if seed is None:
            drawn = int(np.random.SeedSequence().generate_state(1, np.uint32)[0])
        else:
            drawn = episode_seed(seed, actor_id, episode, stream="policies")
        with self._acquired() as (policy, version):
            return OwnPolicy(policy.fork(drawn), version)

    def is_due(self, version: int) -> bool:
        """Whether a copy of that version is to be updated."""
        return self._policies.published - version >= self._interval

    def newest(self) -> Weights:
        """The newest weights there are."""
        number = self._policies.version  # read first: the acquired policy can only be newer
        if self._newest is None or self._newest[0] != number:
            with self._acquired() as (policy, version):
                self._newest = number, Weights(version, policy.weights())
        return self._newest[1]

    @contextmanager
    def _acquired(self) -> Generator[tuple[PortablePolicy, int]]:
        published = self._policies.acquire()
        try:
            if not isinstance(policy := published.policy, PortablePolicy):
                raise ConfigError(
                    f"{type(policy).__name__} is not a PortablePolicy (fork, weights and load_weights): "
                    "actors can have no copies of it; use place='tasks' without sync_interval"
                )
            yield policy, published.opt_steps
        finally:
            self._policies.release(published)
