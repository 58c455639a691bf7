"""Where the agents of joint environments act and learn: a seat for each policy, and who has which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from stoker.actors.sessions import ActorSession
from stoker.envs.joint import CheckedJointEnv, shared_spaces
from stoker.errors import ConfigError
from stoker.stats import EpisodeRecord
from stoker.types import ActorId, Experience

Assign: TypeAlias = Callable[[int, int], Mapping[str, "Seat"]]
"""The seat of each agent in an episode, from the environment's index and the episode's number."""


class Seat(Protocol):
    """Where the agents of one policy act, and learn or not. Each call is for one environment's agents."""

    @property
    def session(self) -> ActorSession | None:
        """The session that learns from them; None: they only act."""
        ...

    async def act(self, observations: Sequence[Any], actor_ids: Sequence[ActorId]) -> Sequence[Any]:
        """Choose the actions of all agents of this seat that act in a joint step, in one forward pass."""
        ...

    async def observe(self, experiences: Sequence[Experience]) -> None:
        """Take the outcomes of one joint step."""
        ...

    async def start_episode(self, actor_id: ActorId, seed: int | None) -> None:
        """Begin the episode of an agent, and abandon an unfinished one; ``seed`` is the environment's."""
        ...

    async def end_episode(self, actor_id: ActorId, record: EpisodeRecord) -> None:
        """End the episode of an agent."""
        ...

    def lose_action(self, actor_id: ActorId) -> None:
        """The outcome of the agent's last action will not come: its environment failed."""
        ...


class LearningSeat:
    """The agents of a session's policy.

    Args:
        session: entered.
    """

    def __init__(self, session: ActorSession) -> None:
        self.session = session

    async def act(self, observations: Sequence[Any], actor_ids: Sequence[ActorId]) -> Sequence[Any]:
        """See ``Seat``."""
        return await self.session.act_many(observations, actor_ids)

    async def observe(self, experiences: Sequence[Experience]) -> None:
        """See ``Seat``."""
        await self.session.observe_many(experiences)

    async def start_episode(self, actor_id: ActorId, seed: int | None) -> None:
        """See ``Seat``."""
        self.session.supervised_actors.add(actor_id)
        await self.session.on_episode_start(actor_id, seed)

    async def end_episode(self, actor_id: ActorId, record: EpisodeRecord) -> None:
        """See ``Seat``."""
        await self.session.on_episode(
            record.total_reward, record.length, record.status, record.extras, actor_id
        )

    def lose_action(self, actor_id: ActorId) -> None:
        """See ``Seat``."""
        self.session.pacing.end(actor_id)


class Seating:
    """Which agent has which seat.

    Args:
        seats: by the policies' names.
        policy_of: as for the group.
        assign: likewise.
    """

    def __init__(
        self,
        seats: Mapping[str, Seat],
        policy_of: Callable[[str], str] | None,
        assign: Assign | None,
    ) -> None:
        self._seats = seats
        self._policy_of = policy_of
        self._assign = assign

    def policy_of(self, agent: str) -> str:
        """The name of an agent's policy.

        Raises:
            ConfigError: There is no such policy.
        """
        if self._policy_of is None:
            return next(iter(self._seats))
        if (name := self._policy_of(agent)) not in self._seats:
            raise ConfigError(
                f"policy_of({agent!r}) is {name!r}, which is none of {', '.join(map(repr, self._seats))}"
            )
        return name

    def check(self, env: CheckedJointEnv) -> None:
        """Refuse agents under one policy that have different spaces; ``assign`` names its seats later."""
        if self._assign is not None:
            return
        policies: dict[str, list[str]] = {}
        for agent in env.agents:
            policies.setdefault(self.policy_of(agent), []).append(agent)
        for name, agents in policies.items():
            shared_spaces(env, agents, name)

    def of(self, index: int, episode: int) -> Callable[[str], Seat]:
        """The seat of each agent in an episode of an environment."""
        if self._assign is None:
            return lambda agent: self._seats[self.policy_of(agent)]
        chosen = self._assign(index, episode)

        def seat_of(agent: str) -> Seat:
            if (seat := chosen.get(agent)) is None:
                raise ConfigError(f"assign({index}, {episode}) gave no seat for agent {agent!r}")
            return seat

        return seat_of
