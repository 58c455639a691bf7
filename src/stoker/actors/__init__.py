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
            "stoker.actors.copies": "OwnPolicy PolicyFeed Weights",
            "stoker.actors.episodes": "EnvFactory close_played open_played play_episode",
            "stoker.actors.failures": "EnvironmentFailed FailureCount FailureLimit",
            "stoker.actors.group": "ActorGroup run_actors",
            "stoker.actors.links": "Link Place",
            "stoker.actors.mailbox": "Mailbox",
            "stoker.actors.messages": (
                "WorkerCommand WorkerEvent WorkerExited WorkerMessage decode_command decode_message "
                "encode_command encode_message"
            ),
            "stoker.actors.metrics": "Gate OnStep StepMetrics",
            "stoker.actors.playing": "Actor",
            "stoker.actors.report": "ActorReport",
            "stoker.actors.vector": "run_vector_actors",
            "stoker.actors.worker": "Assignment Worker",
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
