"""Many actors at once: environments as concurrent tasks on one session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio

from stoker.actors.failures import FailureLimit
from stoker.actors.playing import Actor, EnvFactory
from stoker.actors.report import ActorReport
from stoker.envs import Stepping
from stoker.errors import ConfigError, first_error
from stoker.session import TrainingSession
from stoker.types import ActorId

__all__ = ["Crew", "run_actors"]


class Crew:
    """A group of actors that live and die together.

    Args:
        session: the session they play on.
        factory: makes one environment for each.
        actors: how many, with ids from 0; or their ids.
        stepping: where plain environments are stepped.
        seed: episodes are seeded from it; None: not at all.
        limit: how many failures each of them puts up with.

    Raises:
        ConfigError: There are no actors, or two of one id.
    """

    def __init__(
        self,
        session: TrainingSession,
        factory: EnvFactory,
        actors: int | Sequence[ActorId] = 8,
        *,
        stepping: Stepping = "auto",
        seed: int | None = None,
        limit: FailureLimit | None = None,
    ) -> None:
        ids: Sequence[ActorId] = range(actors) if isinstance(actors, int) else actors
        if not ids:
            raise ConfigError(f"actors={actors!r}: give at least one")
        twice = sorted({str(actor_id) for actor_id in ids if list(ids).count(actor_id) > 1})
        if twice:
            raise ConfigError(f"actor ids {', '.join(twice)} are given twice: one id, one stream of episodes")
        self._session = session
        self._actors = [
            Actor(session, factory, actor_id, stepping=stepping, seed=seed, limit=limit) for actor_id in ids
        ]

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
        """Play until the session is done. The first actor that fails takes the others along.

        Raises:
            ActorFailed: An environment failed too often.
            ConfigError: The factory does not make environments that can be played.
            SessionError: The session does not run.
        """
        try:
            async with anyio.create_task_group() as tasks:
                for actor in self._actors:
                    tasks.start_soon(actor.run, name=f"actor {actor.report.actor_id}")
        except BaseExceptionGroup as group:
            error = first_error(group)
            raise error from error.__cause__


async def run_actors(
    session: TrainingSession, factory: EnvFactory, actors: int | Sequence[ActorId] = 8, **settings: Any
) -> list[ActorReport]:
    """Play environments on a session until it is done, each as a task of its own.

    Args:
        session: an entered session.
        factory: makes one environment, plain or async; called once per actor, and again after a failure.
        actors: how many, with ids from 0; or their ids.
        settings: ``stepping``, ``seed`` and ``limit`` of ``Crew``.

    Returns:
        What each actor has done.

    Raises:
        ActorFailed, ConfigError, SessionError: As for ``Crew.run``.
    """
    crew = Crew(session, factory, actors, **settings)
    await crew.run()
    return crew.reports
