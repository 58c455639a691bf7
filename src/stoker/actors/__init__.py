"""Environments as actors on a session: as tasks, on threads, in processes, or in vectors.

Names are imported at their first use, so that the process of an actor does not wait for a session's parts.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.actors.episodes import EnvFactory, close_played, open_played, play_episode
    from stoker.actors.failures import EnvironmentFailed, FailureCount, FailureLimit
    from stoker.actors.group import ActorGroup, run_actors
    from stoker.actors.metrics import Gate, OnStep, StepMetrics
    from stoker.actors.playing import Actor
    from stoker.actors.report import ActorReport
    from stoker.actors.vector import run_vector_actors
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Actor": "stoker.actors.playing",
            "ActorReport": "stoker.actors.report",
            "ActorGroup": "stoker.actors.group",
            "EnvFactory": "stoker.actors.episodes",
            "EnvironmentFailed": "stoker.actors.failures",
            "FailureCount": "stoker.actors.failures",
            "FailureLimit": "stoker.actors.failures",
            "Gate": "stoker.actors.metrics",
            "OnStep": "stoker.actors.metrics",
            "StepMetrics": "stoker.actors.metrics",
            "close_played": "stoker.actors.episodes",
            "open_played": "stoker.actors.episodes",
            "play_episode": "stoker.actors.episodes",
            "run_actors": "stoker.actors.group",
            "run_vector_actors": "stoker.actors.vector",
        },
    )

__all__ = [
    "Actor",
    "ActorGroup",
    "ActorReport",
    "EnvFactory",
    "EnvironmentFailed",
    "FailureCount",
    "FailureLimit",
    "Gate",
    "OnStep",
    "StepMetrics",
    "close_played",
    "open_played",
    "play_episode",
    "run_actors",
    "run_vector_actors",
]
