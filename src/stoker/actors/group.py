"""Many actors at once on one session: environments as concurrent tasks, on threads or in processes."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, cast

import anyio

from stoker.actors.actor import Actor, Player, PlayerSettings, RoundRobin
from stoker.actors.episodes import EnvFactory, FailureLimit
from stoker.actors.places import Place, ReportsWorkers, place_of
from stoker.actors.remote import RemoteActor
from stoker.actors.sessions import ActorSession
from stoker.actors.streams import ActorReport, Gate, OnStep, PolicyFeed
from stoker.envs import Stepping
from stoker.errors import ConfigError, SessionClosed, Stalled
from stoker.exits import single_error
from stoker.notices import KNOWN
from stoker.runs.events import ActorFellSilent
from stoker.session import TrainingSession
from stoker.session.workers import WorkerStatus
from stoker.stalls import Activity, StallDetector
from stoker.types import ActorId, PlaceName

_logger = logging.getLogger("stoker.actors")
_DONE_S = 5.0
"""How long an environment may finish its step when the session is done, or ``actor_timeout_s`` if shorter."""


class PlayerGroup:
    """Players that live and end together, and the watch over their environments.

    Args:
        session: the session they play on, entered.
        players: the players.
        others: further sessions that they play on; the group ends when one of all is done.
        place: where they play; None: on the event loop.
    """

    def __init__(
        self,
        session: ActorSession,
        players: Sequence[Player],
        *others: ActorSession,
        place: Place | None = None,
    ) -> None:
        self._place = place
        self._session = session
        self._sessions = (session, *others)
        self._players = players

    @property
    def reports(self) -> list[ActorReport]:
        """What each actor has done so far."""
        return [report for player in self._players for report in player.reports]

    @property
    def env_s(self) -> float:
        """Seconds that all of them together have spent in their environments."""
        return sum(player.reports[0].env_s for player in self._players)

    @property
    def restarts(self) -> int:
        """How often an environment failed and was made again."""
        return sum(player.reports[0].restarts for player in self._players)

    def workers(self) -> tuple[WorkerStatus, ...]:
        """How the workers of its place stand; empty where the place does not report them. From any thread."""
        return self._place.workers() if isinstance(self._place, ReportsWorkers) else ()

    async def run(self) -> None:
        """Play until the session is done, and return when everything the actors did is consumed.

        The first actor that fails ends the others. ``session.total_steps`` counts every accepted step then.
        With the session's ``lockstep`` they take turns and, after a resume, continue the running episodes.

        Raises:
            ActorFailed: An environment failed too often.
            Stalled: One is stuck, and the session's ``on_silent_actor`` is ``"fail"``.
            ConfigError: The factory does not make environments that can be played.
            SessionError: The session does not run.
        """
        if self._place is not None and isinstance(self._session, TrainingSession):
            self._session.report_workers(self.workers)
        try:
            with single_error():
                async with anyio.create_task_group() as watched:
                    watched.start_soon(self._watch)
                    async with anyio.create_task_group() as tasks:
                        for player in self._players:
                            tasks.start_soon(player.run, name=f"actor {player.actor_id}")
                    watched.cancel_scope.cancel()
        finally:
            for session in self._sessions:
                session.supervised_actors.difference_update(report.actor_id for report in self.reports)
        for session in self._sessions:
            with contextlib.suppress(SessionClosed):  # closed while they played: closing it consumes the rest
                await session.barrier()

    async def _watch(self) -> None:
        """Look for environments that are stuck, and treat them as the session's settings say.

        When the session is done, they are abandoned soon: a training must not wait for them.

        Raises:
            Stalled: One is stuck, and that is to end the session.
        """
        limit_s = self._session.config.actor_timeout_s
        detector = StallDetector(limit_s)
        done_at = math.inf
        while True:
            now = await detector.next_look()
            is_done = any(session.is_done for session in self._sessions)
            done_at = min(done_at, now if is_done else math.inf)
            in_env: dict[Player, Activity] = {}
            for player in self._players:
                since = player.calls.since
                if since is None:
                    if player.is_starting and now >= done_at:
                        player.leave()
                elif now - done_at >= min(_DONE_S, limit_s):
                    _logger.warning(
                        "actor %r: its environment did not return; it is abandoned", player.actor_id
                    )
                    player.leave()
                else:
                    in_env[player] = Activity("in its environment", since)
            for player, still_s in detector.stalled(in_env, now):
                self._handle_stall(player, still_s)

    def _handle_stall(self, player: Player, still_s: float) -> None:
        steps = player.reports[0].steps
        last = f"its last event was step {steps} of its life" if steps else "it has not done a step yet"
        self._session.log_event(
            ActorFellSilent(actor_id=player.actor_id, doing=f"in its environment; {last}", still_s=still_s)
        )
        stalled = Stalled(
            f"actor {player.actor_id!r} (in its environment; {last})",
            still_s,
            "look at the environment, or raise actor_timeout_s",
        )
        match self._session.config.on_silent_actor:
            case "fail":
                raise stalled
            case "restart":
                player.leave(stalled)
            case _:
                _logger.warning("%s", stalled, extra=KNOWN)


class ActorGroup(PlayerGroup):
    """A group of actors that live and end together.

    The place changes nothing in what they do: the same seeds, episodes, failures and reports. A thread or
    process that is lost costs its running episode, and of its steps those that were not sent yet: at most 16,
    and no more than 20 ms of them.

    Args:
        session: the session they play on, entered.
        factory: makes one environment for each. For processes it must be picklable: a function of a module
            that can be imported, or ``functools.partial`` of one.
        actors: how many, with ids from 0; or their ids, each an int or a str.
        place: ``"tasks"``, ``"threads"``, ``"processes"``, or a ``Place`` of the user.
        sync_interval: they act on copies of the policy that are updated when the session publishes a policy
            that is this many optimization steps ahead; checked by tasks before each step, by threads and
            processes with each batch of steps. None: tasks have no copies and use the session's ``act``; for
            threads and processes it is 1.
        stepping: for tasks, where plain environments are stepped; elsewhere it is where their actor is.
        seed: seeds the episodes and the generators of the copies; None: no seeds.
        limit: how many failures of its environment each of them survives.
        on_step: awaited after each step that the session accepted.
        gate: asked before each step, and may end the actor that asks. With it, or with the session's
            ``max_staleness``, threads and processes ask before each step instead of playing ahead.

    Raises:
        ConfigError: There are no actors, or two of one id; they need copies of a policy that is no
            ``PortablePolicy``, or with ``lockstep``; what a process needs cannot be sent to it.
    """

    def __init__(
        self,
        session: ActorSession,
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
        where = place_of(place)
        feed = feed_for(session, factory, where, sync_interval)
        resume_point = session.take_resume_point()
        turns = RoundRobin(ids, resume_point) if session.config.lockstep else None
        settings = PlayerSettings(
            factory=factory,
            seed=seed,
            limit=limit or FailureLimit(),
            stepping=stepping,
            on_step=on_step,
            gate=gate,
            feed=feed,
            turns=turns,
            running=resume_point.episodes,
        )
        starting = start_limiter()
        players = [
            RemoteActor(session, actor_id, settings, place=where, feed=feed, starting=starting)
            if where is not None and feed is not None and isinstance(session, TrainingSession)
            else Actor(session, actor_id, settings)
            for actor_id in ids
        ]
        super().__init__(session, players, place=where)


def start_limiter() -> anyio.CapacityLimiter:
    """Limits how many workers of a group start at a time."""
    return anyio.CapacityLimiter(max(2, os.cpu_count() or 1))


def feed_for(
    session: ActorSession, factory: EnvFactory, place: Place | None, sync_interval: int | None
) -> PolicyFeed | None:
    """The source of the actors' copies of the policy; None: the session's ``act`` chooses actions.

    Raises:
        ConfigError: A setting is invalid, or the factory or the policy cannot be sent there.
    """
    if place is None and sync_interval is None:
        return None
    interval = 1 if sync_interval is None else sync_interval
    if type(interval) is not int or interval < 1:
        raise ConfigError(f"sync_interval={sync_interval!r}: give an int of at least 1, or None")
    if session.config.lockstep:
        raise ConfigError(
            "lockstep=True: on threads, in processes or with sync_interval actors act on copies of the "
            "policy, which a resume could not restore; use place='tasks' (--actors tasks) without "
            "sync_interval, or train without lockstep"
        )
    session.require_open("ActorGroup")
    feed = PolicyFeed(session.policy_source(), interval)
    if place is not None:
        place.check(factory, feed.fork(0, 0, 0))
    return feed


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
        if type(actor_id) not in (int, str):
            raise ConfigError(
                f"actors holds {actor_id!r} ({type(actor_id).__name__}): an id is an int or a str"
            )
    twice = [repr(actor_id) for actor_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise ConfigError(f"actor ids {', '.join(twice)} are given twice: one id, one stream of episodes")
    return ids


async def run_actors(
    session: ActorSession, factory: EnvFactory, actors: int | Iterable[ActorId] = 8, **settings: Any
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
