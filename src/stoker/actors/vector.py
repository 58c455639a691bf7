"""The sub-environments of one vector environment as actors on a session.

They step together: in each round all of them act, the environment is stepped once, and what came of it is
observed in the order of their places. So they live, fail and get stuck together, too: a vector environment
that raises costs the running episodes of all, and is made again.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from stoker.actors.episodes import of_env
from stoker.actors.failures import EnvironmentFailed, FailureLimit
from stoker.actors.group import ActorGroup, ids_of
from stoker.actors.playing import Actor, EnvFactory
from stoker.actors.report import ActorReport
from stoker.envs import PlayedEnv, Stepping, episode_seed
from stoker.envs.vector import Moves, Round, VectorRounds, VectorTransition
from stoker.errors import ConfigError, InvalidExperience
from stoker.session import TrainingSession
from stoker.types import ActorId, Experience

__all__ = ["run_vector_actors"]

T = TypeVar("T")


async def run_vector_actors(
    session: TrainingSession,
    make_env: EnvFactory,
    actor_ids: Iterable[ActorId] | None = None,
    *,
    seed: int | None = None,
    stepping: Stepping = "auto",
    limit: FailureLimit | None = None,
) -> list[ActorReport]:
    """Play the sub-environments of a vector environment on a session until it is done, each as an actor.

    Every ``AutoresetMode`` of Gymnasium is understood, and gives the same transitions. ``actor_timeout_s``
    and ``on_silent_actor`` of the session hold for the vector environment as for a single one. What
    sub-environments have to say of their episodes (``episode_extras``) is not asked for.

    Seeds: the first episodes are seeded from ``seed``, the actor and the episode's number, as those of
    ``run_actors``. Later ones are so only with ``AutoresetMode.DISABLED``, in a ``SyncVectorEnv`` or an
    ``AsyncVectorEnv``; otherwise the environment resets itself with its own generators, and the
    journal holds no seed. A vector environment that takes one seed for all gets the first actor's.

    Args:
        session: an entered session.
        make_env: makes the vector environment; may be async. Called again after a failure.
        actor_ids: the actors' ids, one per sub-environment; None: 0 to N - 1.
        seed: the run's; None: nothing is seeded.
        stepping: where the environment is stepped; see ``Stepping``.
        limit: how many failures are put up with.

    Returns:
        What each actor has done; ``env_s`` of each is the time of the whole environment, and ``restarts``
        count for all.

    Raises:
        ActorFailed: The environment failed too often.
        Stalled: It is stuck, and the session's ``on_silent_actor`` is ``"fail"``.
        ConfigError: What is made is no vector environment, does not say how it resets, or has another number
            of sub-environments than there are ids; the session is ``lockstep``; or its ``max_staleness`` is
            below what a round needs.
        SessionError: The session does not run.
    """
    group = _VectorGroup(session, make_env, actor_ids, stepping=stepping, seed=seed, limit=limit)
    await group.run()
    return group.reports


class _VectorGroup(ActorGroup):
    """A group of the one task that plays the vector environment; supervised as any other group.

    Args:
        session: the session.
        make_env: makes the vector environment.
        actor_ids: the actors' ids; None: 0 to N - 1.
        settings: ``stepping``, ``seed`` and ``limit``.
    """

    def __init__(
        self,
        session: TrainingSession,
        make_env: EnvFactory,
        actor_ids: Iterable[ActorId] | None,
        **settings: Any,
    ) -> None:
        if session.config.lockstep:
            raise ConfigError(
                "lockstep=True: the sub-environments of a vector environment step at once and cannot take "
                "turns; play single environments with run_actors, or train without lockstep"
            )
        ids = None if actor_ids is None else ids_of(actor_ids)
        super().__init__(session, make_env, ids or [0], **settings)
        self._player = _VectorActor(session, make_env, ids, **settings)
        self._actors = [self._player]

    @property
    def reports(self) -> list[ActorReport]:
        return self._player.reports

    async def run(self) -> None:
        supervised = self._session.supervised_actors
        try:
            await super().run()
        finally:
            supervised -= {report.actor_id for report in self._player.reports}


class _VectorActor(Actor):
    """Plays a vector environment: an actor whose steps are rounds.

    What an actor has one of (``report``, its failures) stands for the first of them.
    """

    def __init__(
        self,
        session: TrainingSession,
        make_env: EnvFactory,
        actor_ids: Sequence[ActorId] | None,
        **settings: Any,
    ) -> None:
        self._ids = actor_ids
        first = 0 if self._ids is None else self._ids[0]
        n_ids = None if self._ids is None else len(self._ids)
        super().__init__(session, _rounds_of(make_env, n_ids), first, **settings)
        self.reports = [self.report, *(ActorReport(actor_id) for actor_id in (self._ids or [])[1:])]
        self._numbers: dict[int, int] = {}  # of the next episode of each, by index
        self._sums: list[_Sum] = []

    async def _play(self, env: PlayedEnv) -> None:
        seed_of: Any = self._seed_of
        begun, _ = await self._asked(env, env.reset(seed_of))
        now: Round = begun
        self._take_places(len(now.observations))
        await self._begin(now)
        while await self.goes_on():
            actions = await self._act_together(now)
            if self._session.is_done:
                return
            now, *_ = await self._asked(env, env.step(Moves(actions, self._seed_of)))
            try:
                await self._tell(now)
            except InvalidExperience as error:  # a NaN reward, an observation of another shape
                raise EnvironmentFailed from error
            await self._begin(now)

    def _take_places(self, count: int) -> None:
        """Be as many actors as the environment has sub-environments, which is known once it is there."""
        config = self._session.config
        if config.max_staleness is not None and config.opt_interval:
            behind = -(-(count - 1) // config.opt_interval)
            if behind > config.max_staleness:
                raise ConfigError(
                    f"max_staleness={config.max_staleness}: {count} sub-environments act at once, so that "
                    f"the last to be learned of lags by {behind} optimization steps; allow so many, or raise "
                    "opt_interval"
                )
        self._sums = [_Sum() for _ in range(count)]
        self.reports += [ActorReport(self._id(index)) for index in range(len(self.reports), count)]
        supervised = self._session.supervised_actors
        supervised |= {report.actor_id for report in self.reports}

    def _id(self, index: int) -> ActorId:
        return index if self._ids is None else self._ids[index]

    def _seed_of(self, index: int) -> int | None:
        """The seed of the next episode; changes nothing, as it may be asked on the environment's thread."""
        if self._seed is None:
            return None
        actor_id = self._id(index)
        number = self._numbers.get(index, self._session.actor_episodes(actor_id))
        return episode_seed(self._seed, actor_id, number)

    async def _begin(self, now: Round) -> None:
        for index, seed in now.begun:
            actor_id = self._id(index)
            self._numbers[index] = self._numbers.get(index, self._session.actor_episodes(actor_id)) + 1
            self._sums[index] = _Sum()
            await self._session.on_episode_start(actor_id, seed)

    async def _act_together(self, now: Round) -> list[Any]:
        """An action for each sub-environment that needs one, all from one forward pass."""
        if self._session.config.max_staleness is not None:
            # Some would be let act and the others not, and none of them could go on, were there still
            # transitions to learn: so those of the last round first.
            await self._session.barrier()
        acting = list(now.acting)
        try:
            chosen = await self._session.act_many(
                [now.observations[index] for index in acting], map(self._id, acting)
            )
        except InvalidExperience as error:  # no agent can act on what the environment showed
            raise EnvironmentFailed from error
        actions: list[Any] = [None] * len(now.observations)
        for index, action in zip(acting, chosen, strict=True):
            actions[index] = action
        return actions

    async def _tell(self, now: Round) -> None:
        """Tell the session what was done, and which episodes ended with it."""
        session = self._session
        await session.observe_many([self._experience(transition) for transition in now.transitions])
        for transition in now.transitions:
            index, status = transition.place, transition.status
            report, sums = self.reports[index], self._sums[index]
            report.steps += 1
            sums.steps += 1
            sums.total_reward += transition.reward
            if status.is_done:
                report.episodes += 1
                await session.on_episode(sums.total_reward, sums.steps, status, actor_id=report.actor_id)

    def _experience(self, done: VectorTransition) -> Experience:
        return Experience(
            done.observation,
            done.action,
            done.reward,
            done.next_observation,
            done.status,
            self._id(done.place),
        )

    async def _asked(self, env: PlayedEnv, call: Awaitable[T]) -> T:
        """What the environment returns; what it raises is marked as its own fault."""
        before_s = self.report.env_s - env.busy_s
        self.in_env_since = time.monotonic()
        try:
            return await of_env(call)
        finally:
            self.in_env_since = None
            for report in self.reports:
                report.env_s = before_s + env.busy_s

    async def _recover(self, cause: BaseException) -> None:
        for report in self.reports[1:]:
            report.restarts += 1
            report.last_error = f"{type(cause).__name__}: {cause}"
        await super()._recover(cause)


class _Sum:
    """What is summed up over a running episode."""

    __slots__ = ("steps", "total_reward")

    def __init__(self) -> None:
        self.steps = 0
        self.total_reward = 0.0


def _rounds_of(make_env: EnvFactory, num_envs: int | None) -> Callable[[], Any]:
    """A factory of what plays the vector environment in rounds, made where the environment is made."""

    async def awaited(env: Awaitable[Any]) -> VectorRounds:
        return VectorRounds(await env, num_envs)

    def make() -> Any:
        made = make_env()
        return awaited(made) if inspect.isawaitable(made) else VectorRounds(made, num_envs)

    return make
