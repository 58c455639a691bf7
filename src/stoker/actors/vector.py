"""The sub-environments of one vector environment as actors on a session.

They step together: in each round all of them act, the environment is stepped once, and the outcomes are
observed in the order of their indices, as one batch of columns where values are arrays. So they fail and get
stuck together, too: a vector environment that raises costs the running episodes of all, and is made again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from stoker.actors.actor import Player, PlayerSettings
from stoker.actors.episodes import EnvFactory, EpisodeTally, FailureLimit, check_factory
from stoker.actors.group import PlayerGroup, feed_for, ids_of, start_limiter
from stoker.actors.places import Place, n_workers_for, place_of
from stoker.actors.remote import RemoteVectorActor
from stoker.actors.streams import ActorReport, ActorStream
from stoker.actors.timing import ACTING, OBSERVING, RESETTING, STARTING, STEPPING
from stoker.envs import PlayedEnv, Stepping
from stoker.envs.rounds import Round
from stoker.envs.seeding import next_seed
from stoker.envs.vector import Moves, in_rounds
from stoker.errors import ConfigError
from stoker.session import TrainingSession
from stoker.types import ActorId, PlaceName


async def run_vector_actors(
    session: TrainingSession,
    make_env: EnvFactory,
    actor_ids: Iterable[ActorId] | None = None,
    **settings: Any,
) -> list[ActorReport]:
    """Play the sub-environments of a vector environment on a session until it is done, each as an actor.

    Args:
        session: an entered session.
        make_env: makes the vector environment, or that of each worker; may be async. Called again after a
            failure.
        actor_ids: the actors' ids, one per sub-environment; None: 0 to N - 1.
        settings: those of ``VectorActorGroup``: ``place``, ``workers``, ``sync_interval``, ``stepping``,
            ``seed`` and ``limit``.

    Returns:
        What each actor has done; ``env_s`` of each is the time of the whole environment, and ``restarts``
        count for all.

    Raises:
        ActorFailed: The environment failed too often.
        Stalled: It is stuck, and the session's ``on_silent_actor`` is ``"fail"``.
        ConfigError: The factory makes no vector environment, or one that does not say how it resets or has
            another number of sub-environments than there are ids; the session is ``lockstep``; or its
            ``max_staleness`` is below what a round needs.
        SessionError: The session does not run.
    """
    group = VectorActorGroup(session, make_env, actor_ids, **settings)
    await group.run()
    return group.reports


class VectorActorGroup(PlayerGroup):
    """The sub-environments of a vector environment as a group of actors.

    On threads or in processes each worker has a vector environment of its own, with an equal share of the
    actors and a copy of the policy, and plays ahead as the workers of ``ActorGroup`` do. A lost worker costs
    the running episodes of its share.

    All ``AutoresetMode`` of Gymnasium are supported, and give the same transitions. ``actor_timeout_s`` and
    ``on_silent_actor`` of the session apply to the vector environment as to a single one. An ``is_success``
    in the last ``info`` of an episode becomes an extra of it; ``episode_extras`` methods are not called.

    Seeds: the first episodes are seeded from ``seed``, the actor and the episode's number, as those of
    ``run_actors``. Later ones are so only with ``AutoresetMode.DISABLED``, in a ``SyncVectorEnv`` or an
    ``AsyncVectorEnv``; otherwise the environment resets itself with its own generators, and the
    journal holds no seed. A vector environment that takes one seed for all gets the first actor's.

    Args:
        session: the session they play on, entered.
        make_env: makes the vector environment, or that of each worker; may be async. Called again after a
            failure.
        actor_ids: the actors' ids, one per sub-environment; None: 0 to N - 1. Workers need them.
        place: ``"tasks"``: the session's event loop and policy; ``"threads"``, ``"processes"`` or a ``Place``
            of the user: workers, as in ``ActorGroup``.
        workers: how many there are; must divide the actors. None: as many as that allows, up to one for each
            processor.
        sync_interval: of the workers' copies of the policy, as in ``ActorGroup``.
        seed: the run's; None: no seeds.
        stepping: where the environment is stepped; see ``Stepping``.
        limit: how many failures are allowed.

    Raises:
        ConfigError: The session is ``lockstep``, two ids are equal, or the workers cannot share them; as for
            ``ActorGroup``.
    """

    def __init__(
        self,
        session: TrainingSession,
        make_env: EnvFactory,
        actor_ids: Iterable[ActorId] | None = None,
        *,
        place: PlaceName | Place = "tasks",
        workers: int | None = None,
        sync_interval: int | None = None,
        seed: int | None = None,
        stepping: Stepping = "auto",
        limit: FailureLimit | None = None,
    ) -> None:
        if session.config.lockstep:
            raise ConfigError(
                "lockstep=True: the sub-environments of a vector environment step at once and cannot take "
                "turns; play single environments with run_actors, or train without lockstep"
            )
        check_factory(make_env)
        ids = None if actor_ids is None else ids_of(actor_ids)
        shared: dict[str, Any] = {"seed": seed, "limit": limit or FailureLimit(), "stepping": stepping}
        if (where := place_of(place)) is None:
            for name, value in (("workers", workers), ("sync_interval", sync_interval)):
                if value is not None:
                    raise ConfigError(f"{name}={value!r} is for place='threads' or 'processes': give one")
            settings = PlayerSettings(factory=partial(in_rounds, make_env, ids), **shared)
            super().__init__(session, [_VectorPlayer(session, ids, settings)])
            return
        if ids is None:
            raise ConfigError(f"place={place!r}: give actor_ids, of which each worker plays a share")
        width = len(ids) // n_workers_for(len(ids), workers)
        shares = [ids[first : first + width] for first in range(0, len(ids), width)]
        settings = PlayerSettings(factory=make_env, **shared)
        feed = feed_for(session, make_env, where, sync_interval)
        starting = start_limiter()
        players = [
            RemoteVectorActor(session, share, settings, place=where, feed=feed, starting=starting)
            for share in shares
        ]
        super().__init__(session, players, place=where)


class _VectorPlayer(Player):
    """Plays a vector environment in rounds; its failures are those of the first actor.

    Args:
        session: takes the experiences and chooses the actions.
        actor_ids: the actors' ids, one per sub-environment; None: 0 to N - 1.
        settings: as for a single environment.
    """

    def __init__(
        self, session: TrainingSession, actor_ids: list[ActorId] | None, settings: PlayerSettings
    ) -> None:
        super().__init__(session, 0 if actor_ids is None else actor_ids[0], settings)
        self.streams.extend(ActorStream(session, actor_id) for actor_id in (actor_ids or [])[1:])
        self._tally = EpisodeTally(len(self.streams))
        self._env_s = 0.0

    @property
    def reports(self) -> list[ActorReport]:
        """What each actor has done so far."""
        for stream, steps in zip(self.streams, self._tally.steps, strict=True):
            stream.report.steps, stream.report.env_s = steps, self._env_s
        return super().reports

    async def _play_env(self) -> None:
        self.clock.enter(STARTING)
        async with self._opened_env() as env:
            seed_of: Any = self._seed_of
            self.clock.enter(RESETTING)
            now, _ = await self._call(env, env.reset(seed_of))
            self._begin_streams(len(now.shown.all))
            await self._start_episodes(now)
            while not self._is_over:
                self.clock.enter(ACTING)
                actions = await self._act(now)
                if self._is_over:
                    return
                self.clock.enter(STEPPING)
                now, info = await self._call(env, env.step(Moves(actions, self._seed_of)))
                self.clock.enter(OBSERVING)
                await self._observe(now, info)
                await self._start_episodes(now)

    def _begin_streams(self, count: int) -> None:
        """Have a stream for each sub-environment; their number is known once the environment is made.

        Raises:
            ConfigError: The session's ``max_staleness`` does not allow that many.
        """
        self._session.pacing.check_together(count, "sub-environments")
        for index in range(len(self.streams), count):
            self.streams.append(ActorStream(self._session, index))
            self.streams[index].begin()
        self._tally.grow(count)

    def _seed_of(self, index: int) -> int | None:
        """The seed of the next episode; changes nothing, as it may be called on the environment's thread."""
        if index < len(self.streams):
            return self.streams[index].next_seed(self._settings.seed)
        # before the first round there are no streams yet
        return next_seed(self._settings.seed, index, self._session.actor_episodes(index))

    async def _start_episodes(self, now: Round) -> None:
        for index, seed in now.begun:
            self._tally.begin(index)
            await self.streams[index].start_episode(seed)

    async def _act(self, now: Round) -> Sequence[Any]:
        """An action for each sub-environment, those that need one from one forward pass; None for others."""
        return now.spread(await self._session.act_many(now.shown.of(now.acting, now.where), now.actor_ids))

    async def _observe(self, now: Round, info: Mapping[str, Any]) -> None:
        """Send the steps of a round to the session, and the ends of episodes."""
        if (done := now.outcome) is None or not done.acted:
            return
        if (batch := done.batch()) is None:
            await self._session.observe_many(now.transitions)
        else:
            await self._session.observe_batch(batch)
        for index, record in self._tally.add(now, info):
            await self.streams[index].end_episode(record)

    async def _call(self, env: PlayedEnv, call: Awaitable[Any]) -> tuple[Round, Mapping[str, Any]]:
        """Await a call of the environment, which counts as time in it; its round and its info."""
        before_s = self._env_s - env.busy_s
        try:
            now, *_, info = await self.calls(call)
            return now, info
        finally:
            self._env_s = before_s + env.busy_s
