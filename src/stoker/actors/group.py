"""Many actors at once on one session: environments as concurrent tasks, on threads or in processes."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol, cast

import anyio

from stoker.actors.episodes import EnvFactory
from stoker.actors.failures import FailureLimit
from stoker.actors.links import Place
from stoker.actors.metrics import Gate, OnStep
from stoker.actors.places import feed_for, place_of
from stoker.actors.playing import Actor
from stoker.actors.remote import RemoteActor
from stoker.actors.report import ActorReport
from stoker.actors.round_robin import RoundRobin, first_place
from stoker.envs import Stepping
from stoker.errors import ConfigError, SessionClosed, Stalled
from stoker.exits import single_error
from stoker.session import TrainingSession
from stoker.session.watching import Rounds
from stoker.types import ActorId, PlaceName

__all__ = ["ActorGroup", "ids_of", "run_actors"]

logger = logging.getLogger("stoker.actors")
_DONE_S = 5.0
"""An environment that is in a step when the session is done has so long to come back, or
``actor_timeout_s`` if that is shorter."""


class _Player(Protocol):
    """One of a group."""

    report: ActorReport
    in_env_since: float | None
    is_starting: bool

    async def run(self, turns: RoundRobin | None = None, place: int = 0) -> None: ...

    def give_up(self) -> None: ...

    def restart(self, stuck: Stalled) -> None: ...


class ActorGroup:
    """A group of actors that live and die together.

    Where they play changes nothing in what they do: the same seeds, episodes, failures and reports. A thread
    or process that is lost costs the episode that it was in, and of its steps those that were not told yet:
    at most 16, and no more than 20 ms of them.

    Args:
        session: the session they play on, entered.
        factory: makes one environment for each. For processes it must be picklable: a function of a module
            that can be imported, or ``functools.partial`` of one.
        actors: how many, with ids from 0; or their ids, each an int or a str.
        place: ``"tasks"``, ``"threads"``, ``"processes"``, or a ``Place`` of the user.
        sync_interval: they act on copies of the policy that are brought up to date when the session hands out
            one that is so many optimization steps ahead of theirs; asked before each step, by processes
            with each batch of steps. None: in tasks they have no copies and ask the session's ``act``; on
            threads and in processes it is 1: as soon as there is a newer one.
        stepping: for tasks, where plain environments are stepped; elsewhere it is where their actor is.
        seed: episodes are seeded from it, and so are the generators of the copies; None: not at all.
        limit: how many failures each of them puts up with.
        on_step: awaited after each step that the session accepted.
        gate: asked before each step, and may end the actor that asks. With it, or with the session's
            ``max_staleness``, threads and processes ask before each step instead of playing ahead.

    Raises:
        ConfigError: There are no actors, or two of one id; they are to have copies of a policy that is no
            ``PortablePolicy``, or with ``lockstep``; what a process needs cannot be sent to it.
    """

    def __init__(
        self,
        session: TrainingSession,
        factory: EnvFactory,
        actors: int | Iterable[ActorId] = 8,
        *,
        place: PlaceName | Place = "tasks",
        sync_interval: int | None = None,
        stepping: Stepping = "auto",
        seed: int | None = None,
        limit: FailureLimit | None = None,
        on_step: OnStep | None = None,
        gate: Gate | None = None,
    ) -> None:
        ids = ids_of(actors)
        self._session = session
        where = place_of(place)
        feed = feed_for(session, factory, where, sync_interval)
        resume_point = session.take_resume_point()
        same: dict[str, Any] = {"seed": seed, "limit": limit, "on_step": on_step, "gate": gate}
        self._actors: list[_Player] = []
        if where is None or feed is None:
            self._actors += [
                Actor(
                    session,
                    factory,
                    actor_id,
                    stepping=stepping,
                    running=resume_point.episodes.get(actor_id),
                    feed=feed,
                    **same,
                )
                for actor_id in ids
            ]
        else:
            booting = anyio.CapacityLimiter(max(2, os.cpu_count() or 1))
            self._actors += [
                RemoteActor(session, actor_id, where, factory, feed, booting, **same) for actor_id in ids
            ]
        self._turns = (
            RoundRobin(len(ids), first_place(ids, resume_point)) if session.config.lockstep else None
        )

    @property
    def reports(self) -> list[ActorReport]:
        """What each has done so far."""
        return [actor.report for actor in self._actors]

    @property
    def env_s(self) -> float:
        """Seconds that all of them together have spent in their environments."""
        return sum(actor.report.env_s for actor in self._actors)

    @property
    def restarts(self) -> int:
        """How often an environment failed and was made again."""
        return sum(actor.report.restarts for actor in self._actors)

    async def run(self) -> None:
        """Play until the session is done, and return when everything the actors did is consumed.

        The first actor that fails ends the others. ``session.total_steps`` counts every accepted step then.

        With the session's ``lockstep`` they take turns, and after a resume go on with the episodes that were
        running.

        Raises:
            ActorFailed: An environment failed too often.
            Stalled: One is stuck, and the session's ``on_silent_actor`` is ``"fail"``.
            ConfigError: The factory does not make environments that can be played.
            SessionError: The session does not run.
        """
        ids = {actor.report.actor_id for actor in self._actors}
        supervised = self._session.supervised_actors
        supervised |= ids
        try:
            with single_error():
                async with anyio.create_task_group() as watched:
                    watched.start_soon(self._watch)
                    async with anyio.create_task_group() as tasks:
                        for place, actor in enumerate(self._actors):
                            name = f"actor {actor.report.actor_id}"
                            tasks.start_soon(actor.run, self._turns, place, name=name)
                    watched.cancel_scope.cancel()
        finally:
            supervised -= ids
        with contextlib.suppress(SessionClosed):  # closed while they played: closing it consumes the rest
            await self._session.barrier()

    async def _watch(self) -> None:
        """Look for environments that do not come back, and do with them what the session's settings say.

        When the session is done, they are let go after a moment: a training must not wait for them.

        Raises:
            Stalled: One is stuck, and that is to end the session.
        """
        config = self._session.config
        limit_s = config.actor_timeout_s
        warned: set[tuple[ActorId, float]] = set()
        rounds = Rounds(min(1.0, limit_s / 10))
        done_at = 0.0
        while True:
            now = await rounds.next()
            done_at = done_at or (now if self._session.is_done else 0.0)
            for actor in self._actors:
                since, actor_id = actor.in_env_since, actor.report.actor_id
                if done_at and actor.is_starting:
                    actor.give_up()
                    continue
                if since is not None and done_at and now - done_at >= min(_DONE_S, limit_s):
                    logger.warning("actor %r: its environment has not come back; it is let go", actor_id)
                    actor.give_up()
                    continue
                if (
                    since is None
                    or now - max(since, rounds.awake_since) < limit_s
                    or (actor_id, since) in warned
                ):
                    continue
                last = (
                    f"its last event was step {actor.report.steps} of its life"
                    if actor.report.steps
                    else ("it has not done a step yet")
                )
                stalled = Stalled(
                    f"actor {actor_id!r} (in its environment; {last})",
                    now - since,
                    "look at the environment, or raise actor_timeout_s",
                )
                if config.on_silent_actor == "fail":
                    raise stalled
                warned.add((actor_id, since))
                if config.on_silent_actor == "restart":
                    actor.restart(stalled)
                else:
                    logger.warning("%s", stalled)


def ids_of(actors: Any) -> list[ActorId]:
    """The actors' ids, from how many there are or from any iterable of ids.

    Raises:
        ConfigError: There are none, two are equal, or one is neither an int nor a str.
    """
    if isinstance(actors, str | bytes | bool) or not isinstance(actors, int | Iterable):
        raise ConfigError(f"actors={actors!r}: give how many actors, or an iterable of their ids")
    ids: list[Any] = list(range(actors) if isinstance(actors, int) else cast("Iterable[Any]", actors))
    if not ids:
        raise ConfigError(f"actors={actors!r}: give at least one")
    for actor_id in ids:
        if type(actor_id) is not int and type(actor_id) is not str:
            raise ConfigError(
                f"actors holds {actor_id!r} ({type(actor_id).__name__}): an id is an int or a str"
            )
    twice = [repr(actor_id) for actor_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise ConfigError(f"actor ids {', '.join(twice)} are given twice: one id, one stream of episodes")
    return ids


async def run_actors(
    session: TrainingSession, factory: EnvFactory, actors: int | Iterable[ActorId] = 8, **settings: Any
) -> list[ActorReport]:
    """Play environments on a session until it is done, each under its own ``actor_id``.

    Returns when everything that they did is consumed, so that ``session.total_steps`` counts it.

    Args:
        session: an entered session.
        factory: makes one environment, plain or async; called once per actor, and again after a failure.
        actors: how many, with ids from 0; or their ids.
        settings: those of ``ActorGroup``: ``place``, ``sync_interval``, ``stepping``, ``seed``, ``limit``,
            ``on_step`` and ``gate``.

    Returns:
        What each actor has done.

    Raises:
        ActorFailed, ConfigError, SessionError: As for ``ActorGroup.run``.
    """
    group = ActorGroup(session, factory, actors, **settings)
    await group.run()
    return group.reports
