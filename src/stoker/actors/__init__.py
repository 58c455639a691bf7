"""Environments as actors on a session: as tasks, on threads, in processes, or in vectors.

Names are imported at their first use, so that the process of an actor starts without a session's parts.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.actors.copies import OwnPolicy, PolicyFeed, Weights
    from stoker.actors.episodes import (
        EnvFactory,
        EnvironmentFailed,
        FailureCount,
        FailureLimit,
        opened_env,
        play_episode,
    )
    from stoker.actors.group import ActorGroup, run_actors
    from stoker.actors.messages import (
        Mailbox,
        WorkerCommand,
        WorkerEvent,
        WorkerExited,
        WorkerMessage,
        decode_command,
        decode_message,
        encode_message,
    )
    from stoker.actors.places import Link, Place
    from stoker.actors.report import ActorReport, Gate, OnStep, StepMetrics
    from stoker.actors.vector import run_vector_actors
    from stoker.actors.worker import Assignment, Worker
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "stoker.actors.copies": "OwnPolicy PolicyFeed Weights",
            "stoker.actors.episodes": (
                "EnvFactory EnvironmentFailed FailureCount FailureLimit opened_env play_episode"
            ),
            "stoker.actors.group": "ActorGroup run_actors",
            "stoker.actors.messages": (
                "Mailbox WorkerCommand WorkerEvent WorkerExited WorkerMessage "
                "decode_command decode_message encode_message"
            ),
            "stoker.actors.places": "Link Place",
            "stoker.actors.report": "ActorReport Gate OnStep StepMetrics",
            "stoker.actors.vector": "run_vector_actors",
            "stoker.actors.worker": "Assignment Worker",
        },
    )

__all__ = [
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
    "decode_command",
    "decode_message",
    "encode_message",
    "opened_env",
    "play_episode",
    "run_actors",
    "run_vector_actors",
]
