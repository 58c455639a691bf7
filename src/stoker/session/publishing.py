"""The policies that actors use: copies of the agent's, which the learner brings up to date.

The learner writes to a copy that nobody reads and then swaps the two, so that acting never waits for
learning and never sees half-written weights.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from stoker.agents.protocol import ActsForActors, LearningAgent, Policy
from stoker.errors import ConfigError
from stoker.telemetry import Spans
from stoker.types import ActMode, ActorId

Answer = tuple[Sequence[Any], Sequence[Any] | None, int]
"""Actions, their policy extras or None, and the version of the policy that chose them."""


class PublishedPolicy:
    """An acting copy of the agent's policy.

    Attributes:
        policy: the copy.
        opt_steps: the agent's optimization steps when it was published: the version of the policy.
        n_users: how many callers act on it at this moment.
    """

    __slots__ = ("_for_actors", "n_users", "opt_steps", "policy")

    def __init__(self, policy: Policy, opt_steps: int) -> None:
        self.policy: Policy = policy
        self.opt_steps: int = opt_steps
        self.n_users: int = 0
        self._for_actors = policy if isinstance(policy, ActsForActors) else None

    def act(self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId]) -> Answer:
        """As ``PolicyBuffer.act`` does, with this policy."""
        answer = (
            self.policy.act(observations, mode)
            if self._for_actors is None
            else self._for_actors.act_for(observations, mode, actor_ids)
        )
        return _checked(answer, self.opt_steps, len(observations))


class PolicyBuffer:
    """Acting copies, versioned: the newest in use, one to write to, and more while old ones are used.

    Args:
        agent: whose policies.
        opt_steps: the agent's optimization steps so far.
    """

    def __init__(self, agent: LearningAgent, opt_steps: int = 0) -> None:
        self._agent = agent
        self._newest = PublishedPolicy(agent.policy(), opt_steps)
        self._copies = [self._newest, PublishedPolicy(agent.policy(), opt_steps)]
        self._lock = threading.Lock()
        self._publish = agent.publish
        self.published_at: float = time.monotonic()
        """When the present version was published, in monotonic seconds."""

    @property
    def version(self) -> int:
        """The version of the policy that ``acquire`` returns."""
        return self._newest.opt_steps

    def acquire(self) -> PublishedPolicy:
        """The newest whole policy, which does not change until it is given back with ``release``."""
        with self._lock:
            self._newest.n_users += 1
            return self._newest

    def release(self, published: PublishedPolicy) -> None:
        """Give the policy back."""
        with self._lock:
            published.n_users -= 1

    def act(self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId]) -> Answer:
        """Choose the actions of these actors with the newest policy, in one forward pass.

        Raises:
            ConfigError: The policy returned another number of actions than of observations.
        """
        published = self.acquire()
        try:
            return published.act(observations, mode, actor_ids)
        finally:
            self.release(published)

    def publish(self, opt_steps: int) -> None:
        """Bring an idle copy up to date and hand it out from now on. For the learner's thread.

        The learner never waits for actors: if all copies are in use, it makes one more.
        """
        with self._lock:
            idle = [copy for copy in self._copies if copy is not self._newest and not copy.n_users]
        if not idle:
            idle = [PublishedPolicy(self._agent.policy(), opt_steps)]
            self._copies += idle
        back = idle[0]
        self._publish(back.policy)  # nobody can acquire it yet
        back.opt_steps = opt_steps
        if opt_steps != self.version:
            self.published_at = time.monotonic()
        with self._lock:
            self._newest = back

    def trace(self, spans: Spans) -> None:
        """Trace each publication from here on."""
        self._publish = spans.traced("rl.sync", self._publish)


class PolicySnapshot(msgspec.Struct, frozen=True, eq=False):
    """The policy as it was at ``total_steps``, with the weights that ``best`` will hold if it wins.

    Belongs to the caller that asked for it; the learner never writes to it.

    Attributes:
        policy: an independent acting copy.
        total_steps: environment steps consumed when it was taken.
        state: the agent's staged state.
        opt_steps: optimization steps done when it was taken.
    """

    policy: Policy
    total_steps: int
    state: Mapping[str, Any]
    opt_steps: int = 0

    def __repr__(self) -> str:
        return object.__repr__(self)  # not the weights

    def act(self, observations: Sequence[Any], mode: ActMode = ActMode.EXPLOIT) -> Sequence[Any]:
        """One action per observation, in one forward pass; from one thread at a time."""
        return self.answer(observations, mode)[0]

    def answer(self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId] = ()) -> Answer:
        """The same, with the policy extras and the policy's optimization steps; for whichever actors."""
        return _checked(self.policy.act(observations, mode), self.opt_steps, len(observations))


def _checked(answer: tuple[Sequence[Any], Sequence[Any] | None], opt_steps: int, count: int) -> Answer:
    actions, extras = answer
    if len(actions) != count or (extras is not None and len(extras) != count):
        raise ConfigError(
            f"the policy answered {count} observations with {len(actions)} actions"
            + ("" if extras is None else f" and {len(extras)} policy extras")
        )
    return actions, extras, opt_steps
