"""Environments as actors on a session: as tasks, on threads, in processes, or in vectors.

Names are imported at their first use, so that the process of an actor starts without a session's parts.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.actors.episodes import EnvFactory as EnvFactory, FailureLimit as FailureLimit
    from stoker.actors.group import (
        ActorGroup as ActorGroup,
        PlayerGroup as PlayerGroup,
        run_actors as run_actors,
    )
    from stoker.actors.joint import (
        JointActorGroup as JointActorGroup,
        run_joint_actors as run_joint_actors,
    )
    from stoker.actors.messages import (
        Mailbox as Mailbox,
        Waiting as Waiting,
        Weights as Weights,
        WorkerCommand as WorkerCommand,
        WorkerEvent as WorkerEvent,
        WorkerExited as WorkerExited,
        WorkerMessage as WorkerMessage,
        decode_command as decode_command,
        decode_message as decode_message,
        encode_message as encode_message,
    )
    from stoker.actors.places import Link as Link, Place as Place
    from stoker.actors.seats import LearningSeat as LearningSeat, Seat as Seat
    from stoker.actors.streams import (
        ActorReport as ActorReport,
        Gate as Gate,
        OnStep as OnStep,
        StepMetrics as StepMetrics,
    )
    from stoker.actors.vector import (
        VectorActorGroup as VectorActorGroup,
        run_vector_actors as run_vector_actors,
    )
    from stoker.actors.worker import Assignment as Assignment, OwnPolicy as OwnPolicy, Worker as Worker
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
