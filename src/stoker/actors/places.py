"""The built-in places by name, and what actors need to play there."""

from __future__ import annotations

from typing import get_args

from stoker.actors.copies import OwnPolicy, PolicyFeed
from stoker.actors.episodes import EnvFactory
from stoker.actors.links import Link, Place
from stoker.actors.process_links import ProcessLink, check_portable
from stoker.actors.thread_links import ThreadLink
from stoker.actors.worker import Assignment
from stoker.errors import ConfigError
from stoker.session import TrainingSession
from stoker.threads import on_asyncio
from stoker.types import PlaceName

__all__ = ["feed_for", "place_of"]


class _Threads:
    """A thread for each actor."""

    def check(self, factory: EnvFactory, feed: PolicyFeed) -> None:
        """Everything can be used from a thread."""

    def link(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy, feed: PolicyFeed) -> Link:
        return ThreadLink(assignment, factory, policy, feed, _backend())


class _Processes:
    """A process for each actor."""

    def check(self, factory: EnvFactory, feed: PolicyFeed) -> None:
        """Refuse what cannot be pickled."""
        check_portable(factory, feed)

    def link(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy, feed: PolicyFeed) -> Link:
        return ProcessLink(assignment, factory, policy, _backend())


_BUILT_IN: dict[str, Place] = {"threads": _Threads(), "processes": _Processes()}


def place_of(place: PlaceName | Place) -> Place | None:
    """The place of that name, or the user's own; None: actors are tasks.

    Raises:
        ConfigError: There is no place of that name.
    """
    if not isinstance(place, str):
        return place
    if place not in get_args(PlaceName):
        choices = ", ".join(get_args(PlaceName))
        raise ConfigError(f"place={place!r}: choose one of {choices}, or give a Place of your own")
    return _BUILT_IN.get(place)


def feed_for(
    session: TrainingSession, factory: EnvFactory, place: Place | None, sync_interval: int | None
) -> PolicyFeed | None:
    """Where copies of the policy come from; None: the session's ``act`` chooses actions.

    Raises:
        ConfigError: The settings cannot be used, or the factory or the policy cannot be sent there.
    """
    if place is None and sync_interval is None:
        return None
    interval = 1 if sync_interval is None else sync_interval
    if type(interval) is not int or interval < 1:
        raise ConfigError(f"sync_interval={sync_interval!r}: give an int of at least 1, or None")
    if session.config.lockstep:
        raise ConfigError(
            "lockstep=True: on threads, in processes or with sync_interval actors act on copies of the "
            "policy, which a resume could not bring back; use place='tasks' without sync_interval, or train "
            "without lockstep"
        )
    session.require_open("ActorGroup")
    feed = PolicyFeed(session.policy_source(), interval)
    if place is not None:
        place.check(factory, feed)
    return feed


def _backend() -> str:
    return "asyncio" if on_asyncio() else "trio"
