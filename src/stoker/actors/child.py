"""What runs in the process of an actor: a worker, and a watch over the pipe to its training.

A child never outlives its parent. It ends at once, without closing its environment, when the other end of its
pipe is closed; and on Linux the kernel ends it even while its environment holds the interpreter lock.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, cast

import anyio

from stoker.actors.copies import OwnPolicy
from stoker.actors.episodes import EnvFactory
from stoker.actors.mailbox import Mailbox
from stoker.actors.messages import WorkerCommand, WorkerMessage, decode_command, encode_message
from stoker.actors.worker import Assignment, Worker
from stoker.errors import ConfigError

__all__ = ["main"]


def main(pipe: Connection, assignment: Assignment, backend: str) -> None:
    """Play until told to stop, or until the training is gone.

    Args:
        pipe: to the training; first come the factory and the policy, pickled by the process that started this
            one.
        assignment: what to play.
        backend: the kind of event loop, by anyio's name.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the training, which ends this process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _end_with_the_parent()
    factory: EnvFactory
    policy: OwnPolicy
    try:
        packed = pipe.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)  # nobody is left to play for
    factory, policy = cast("Any", ForkingPickler).loads(packed)
    # What the environment starts must not hold the pipe open.
    os.set_inheritable(pipe.fileno(), False)  # noqa: FBT003 - it takes no keyword
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)  # the actors are what runs in parallel
    commands: Mailbox[WorkerCommand] = Mailbox()
    threading.Thread(target=_listen, args=(pipe, commands), name="stoker-orders", daemon=True).start()

    def tell(message: WorkerMessage) -> None:
        try:
            data = encode_message(message)
        except ConfigError as error:
            raise ConfigError(
                f"actor {assignment.actor_id!r}: what it played cannot be sent to the training ({error}); "
                "use place='threads'"
            ) from error
        try:
            pipe.send_bytes(data)
        except OSError:
            os._exit(1)  # nobody is left to play for

    anyio.run(Worker(assignment, factory, policy, commands, tell).run, backend=backend)


def _listen(pipe: Connection, commands: Mailbox[WorkerCommand]) -> None:
    try:
        while True:
            commands.post(decode_command(pipe.recv_bytes()))
    except (EOFError, OSError):
        os._exit(1)


def _end_with_the_parent() -> None:
    """Have the kernel end this process when its parent has ended.

    multiprocessing keeps a pipe open between the two that nothing is written to. SIGIO comes when its other
    end is closed, and ends a process that does not handle it; on other systems than Linux it does not.
    """
    parent = parent_process()
    if parent is None or sys.platform != "linux":
        return
    import fcntl

    signal.signal(signal.SIGIO, signal.SIG_DFL)
    lifeline = int(parent.sentinel)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it had ended before
        os._exit(1)
