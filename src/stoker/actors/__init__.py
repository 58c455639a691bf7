"""Environments as actors on a session: as tasks, on threads, in processes, or in vectors.

Names are imported at their first use, so that the process of an actor does not wait for a session's parts.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.actors.copies import OwnPolicy, PolicyFeed, Weights
    from stoker.actors.episodes import EnvFactory, close_played, open_played, play_episode
    from stoker.actors.failures import EnvironmentFailed, FailureCount, FailureLimit
    from stoker.actors.group import ActorGroup, run_actors
    from stoker.actors.links import Link, Place
    from stoker.actors.mailbox import Mailbox
    from stoker.actors.messages import (
        WorkerCommand,
        WorkerEvent,
        WorkerExited,
        WorkerMessage,
        decode_command,
        decode_message,
        encode_command,
        encode_message,
    )
    from stoker.actors.metrics import Gate, OnStep, StepMetrics
    from stoker.actors.playing import Actor
    from stoker.actors.report import ActorReport
    from stoker.actors.vector import run_vector_actors
    from stoker.actors.worker import Assignment, Worker
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Actor": "stoker.actors.playing",
            "ActorGroup": "stoker.actors.group",
            "ActorReport": "stoker.actors.report",
            "Assignment": "stoker.actors.worker",
            "EnvFactory": "stoker.actors.episodes",
            "EnvironmentFailed": "stoker.actors.failures",
            "FailureCount": "stoker.actors.failures",
            "FailureLimit": "stoker.actors.failures",
            "Gate": "stoker.actors.metrics",
            "Link": "stoker.actors.links",
            "Mailbox": "stoker.actors.mailbox",
            "OnStep": "stoker.actors.metrics",
            "OwnPolicy": "stoker.actors.copies",
            "Place": "stoker.actors.links",
            "PolicyFeed": "stoker.actors.copies",
            "StepMetrics": "stoker.actors.metrics",
            "Weights": "stoker.actors.copies",
            "Worker": "stoker.actors.worker",
            "WorkerCommand": "stoker.actors.messages",
            "WorkerEvent": "stoker.actors.messages",
            "WorkerExited": "stoker.actors.messages",
            "WorkerMessage": "stoker.actors.messages",
            "close_played": "stoker.actors.episodes",
            "decode_command": "stoker.actors.messages",
            "decode_message": "stoker.actors.messages",
            "encode_command": "stoker.actors.messages",
            "encode_message": "stoker.actors.messages",
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
    "Assignment",
    "EnvFactory",
    "EnvironmentFailed",
    "FailureCount",
    "FailureLimit",
    "Gate",
    "Link",
    "Mailbox",
    "OnStep",
    "OwnPolicy",
    "Place",
    "PolicyFeed",
    "StepMetrics",
    "Weights",
    "Worker",
    "WorkerCommand",
    "WorkerEvent",
    "WorkerExited",
    "WorkerMessage",
    "close_played",
    "decode_command",
    "decode_message",
    "encode_command",
    "encode_message",
    "open_played",
    "play_episode",
    "run_actors",
    "run_vector_actors",
]
