"""Self-play: a policy learns in games against frozen policies of its own past.

In each episode the learner plays one *side*, in turn, and a frozen policy, chosen anew, plays all others.
What the frozen ones do is neither learned nor counted. A game is won by the side whose agents have the higher
mean total reward; equal ones are a draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from stoker.actors import EnvFactory, LearningSeat, Seat
from stoker.actors.episodes import EnvironmentFailed, opened_env
from stoker.envs import Stepping
from stoker.envs.pettingzoo import joint_env
from stoker.envs.results import then
from stoker.errors import ConfigError
from stoker.multi.opponents import FrozenPolicy, OpponentPool
from stoker.session import TrainingSession
from stoker.stats import EpisodeRecord
from stoker.types import ActorId, Experience


def sides_of(agents: Sequence[str], side_of: Callable[[str], str] | None = None) -> dict[str, list[str]]:
    """The agents of each side, in the order in which sides appear; without ``side_of`` each agent is one.

    Raises:
        ConfigError: There are fewer than two sides.
    """
    sides: dict[str, list[str]] = {}
    for agent in agents:
        sides.setdefault(agent if side_of is None else side_of(agent), []).append(agent)
    if len(sides) < 2:
        raise ConfigError(
            f"self-play needs two sides at least, and the agents {list(agents)} make {len(sides)}"
        )
    return sides


class SelfPlay:
    """Seats for the games of a session against its own past; ``assign`` is for ``JointActorGroup``.

    Args:
        session: what learns, entered.
        pool: the opponents, opened on the session.
        agents: of the environment; all have the same spaces.
        side_of: the side of an agent, where several play together; None: each plays by itself.

    Raises:
        ConfigError: The agents make fewer than two sides.
    """

    def __init__(
        self,
        session: TrainingSession,
        pool: OpponentPool,
        agents: Sequence[str],
        side_of: Callable[[str], str] | None = None,
    ) -> None:
        self._session = session
        self._pool = pool
        self._sides = list(sides_of(agents, side_of).values())

    @classmethod
    async def open(
        cls,
        session: TrainingSession,
        pool: OpponentPool,
        factory: EnvFactory,
        side_of: Callable[[str], str] | None = None,
        *,
        stepping: Stepping = "auto",
    ) -> Self:
        """Open the pool on the session, and make one environment to see which agents there are.

        Raises:
            ConfigError: The environment cannot be made; or as for the class and ``OpponentPool.open``.
        """
        agents: tuple[str, ...] = ()

        def noted(made: Any) -> Any:
            nonlocal agents
            env = joint_env(made)
            agents = env.agents
            return env

        try:
            async with opened_env(lambda: then(factory(), noted), stepping, "self-play"):
                pass
        except EnvironmentFailed as failure:
            raise ConfigError(
                f"self-play: the environment cannot be made: {failure.__cause__}"
            ) from failure.__cause__
        await pool.open(session)
        return cls(session, pool, agents, side_of)

    @property
    def seats(self) -> dict[str, Seat]:
        """The seat that learns, for ``JointActorGroup``; its agents get theirs from ``assign``."""
        return {"learner": LearningSeat(self._session)}

    def assign(self, index: int, episode: int) -> Mapping[str, Seat]:
        """The seat of each agent in an episode of an environment: the learner's side comes in turn."""
        mine = self._sides[(index + episode) % len(self._sides)]
        game = _Game(self._pool, self._pool.choose(index, episode))
        learner, frozen = _LearnerSeat(self._session, game), _FrozenSeat(game)
        return {agent: learner if agent in mine else frozen for side in self._sides for agent in side}


class _Game:
    """Adds up who gets what in one episode, until its last agent has ended."""

    def __init__(self, pool: OpponentPool, opponent: FrozenPolicy) -> None:
        self.opponent = opponent
        self._pool = pool
        self._n_running = 0
        self._totals: dict[bool, list[float]] = {True: [], False: []}  # whether it is the learner's

    def begin(self) -> None:
        self._n_running += 1

    async def end(self, total_reward: float, *, is_learner: bool) -> None:
        self._n_running -= 1
        self._totals[is_learner].append(total_reward)
        if self._n_running or not all(self._totals.values()):
            return
        ours, theirs = (sum(totals) / len(totals) for totals in self._totals.values())
        score = 0.5 if ours == theirs else float(ours > theirs)
        self._pool.standings.add(self.opponent.standing, score)
        await self._pool.freeze_if_due()


class _LearnerSeat(LearningSeat):
    """The learner's agents in one game."""

    def __init__(self, session: TrainingSession, game: _Game) -> None:
        super().__init__(session)
        self._game = game

    async def start_episode(self, actor_id: ActorId, seed: int | None) -> None:
        self._game.begin()
        await super().start_episode(actor_id, seed)

    async def end_episode(self, actor_id: ActorId, record: EpisodeRecord) -> None:
        await super().end_episode(actor_id, record)
        await self._game.end(record.total_reward, is_learner=True)


class _FrozenSeat:
    """The agents of a frozen policy in one game: they only act."""

    session = None

    def __init__(self, game: _Game) -> None:
        self._game = game

    async def act(self, observations: Sequence[Any], actor_ids: Sequence[ActorId]) -> Sequence[Any]:
        return self._game.opponent.act(observations, actor_ids)

    async def observe(self, experiences: Sequence[Experience]) -> None:
        pass

    async def start_episode(self, actor_id: ActorId, seed: int | None) -> None:
        self._game.begin()

    async def end_episode(self, actor_id: ActorId, record: EpisodeRecord) -> None:
        self._game.opponent.end_episode(actor_id)
        await self._game.end(record.total_reward, is_learner=False)

    def lose_action(self, actor_id: ActorId) -> None:
        pass
