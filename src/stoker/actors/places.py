"""Where actors play, and what they need for it."""

from __future__ import annotations

from typing import get_args

from stoker.actors.copies import OwnPolicy, PolicyFeed
from stoker.actors.episodes import EnvFactory
from stoker.actors.links import Link
from stoker.actors.process_links import ProcessLink, check_portable
from stoker.actors.thread_links import ThreadLink
from stoker.actors.worker import Assignment
from stoker.errors import ConfigError
from stoker.session import TrainingSession
from stoker.threads import on_asyncio
from stoker.types import Place

__all__ = ["feed_for", "link_to"]


def feed_for(
    session: TrainingSession, factory: EnvFactory, place: Place, sync_interval: int | None
) -> PolicyFeed | None:
    """Where copies of the policy come from; None: the session's ``act`` chooses actions.

    Raises:
        ConfigError: The settings cannot be used, or the factory or the policy cannot be sent to a process.
    """
    if place not in get_args(Place):
        raise ConfigError(f"place={place!r}: choose one of {', '.join(get_args(Place))}")
    if place == "tasks" and sync_interval is None:
        return None
    interval = 1 if sync_interval is None else sync_interval
    if type(interval) is not int or interval < 1:
        raise ConfigError(f"sync_interval={sync_interval!r}: give an int of at least 1, or None")
    if session.config.lockstep:
        raise ConfigError(
            f"lockstep=True: with place={place!r} and sync_interval={sync_interval!r} actors act on copies "
            "of the policy, which a resume could not bring back; use place='tasks' without sync_interval, "
            "or train without lockstep"
        )
    session.require_open("ActorGroup")
    feed = PolicyFeed(session.policy_source(), interval)
    if place == "processes":
        check_portable(factory, feed)
    return feed


def link_to(
    place: Place, factory: EnvFactory, feed: PolicyFeed, assignment: Assignment, policy: OwnPolicy
) -> Link:
    """A worker elsewhere, which has not begun yet."""
    backend = "asyncio" if on_asyncio() else "trio"
    if place == "processes":
        return ProcessLink(assignment, factory, policy, backend)
    return ThreadLink(assignment, factory, policy, feed, backend)
