"""Environments as concurrent tasks on a session."""

from stoker.actors.crew import Crew, run_actors
from stoker.actors.failures import EnvironmentFailed, FailureCount, FailureLimit
from stoker.actors.playing import Actor, EnvFactory, close_played, open_played, play_episode
from stoker.actors.report import ActorReport

__all__ = [
    "Actor",
    "ActorReport",
    "Crew",
    "EnvFactory",
    "EnvironmentFailed",
    "FailureCount",
    "FailureLimit",
    "close_played",
    "open_played",
    "play_episode",
    "run_actors",
]
