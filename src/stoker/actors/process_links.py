"""A worker in its own process, for environments that hold the interpreter lock or may crash.

The process is started anew (``spawn``): Python hands it the factory and the policy, pickled. From then on
nothing is unpickled, and only messages go through the pipe. Per process one thread starts it, reads what it
tells and sees it end, and another one writes, so that no event loop waits for a pipe. The other end is
``stoker.actors.child``.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import queue
import signal
import threading
from multiprocessing import resource_tracker
from multiprocessing.reduction import ForkingPickler
from typing import Any, ClassVar

import msgspec

from stoker.actors.child import main
from stoker.actors.copies import OwnPolicy, PolicyFeed
from stoker.actors.episodes import EnvFactory
from stoker.actors.mailbox import Mailbox
from stoker.actors.messages import (
    Failed,
    WorkerCommand,
    WorkerEvent,
    WorkerExited,
    decode_message,
    encode_command,
)
from stoker.actors.worker import Assignment
from stoker.errors import ConfigError

__all__ = ["ProcessLink", "check_portable"]

logger = logging.getLogger("stoker.actors")
_EXIT_S = 5.0
"""A process that has closed its pipe has so long to end."""

_STARTING = threading.Lock()
"""multiprocessing keeps books on all children; they are written by one thread at a time."""


def check_portable(factory: EnvFactory, feed: PolicyFeed) -> None:
    """Refuse what cannot be handed to a process, before there is one.

    Raises:
        ConfigError: The factory or the policy cannot be pickled.
    """
    ways_out = {
        "factory": "give a function of a module that can be imported, or functools.partial of one; a lambda "
        "or a function inside a function cannot be sent",
        "policy": "its class must be picklable",
    }
    for what, value in (("factory", factory), ("policy", feed.fork(0, 0, 0).policy)):
        try:
            _packed(value)
        except Exception as error:
            raise ConfigError(
                f"the {what} {value!r} cannot be sent to another process ({type(error).__name__}: {error}): "
                f"{ways_out[what]}; or use place='threads'"
            ) from error


class _ByValue(ForkingPickler):
    """Pickles tensors as they are; torch would have two processes share their memory, and run out of it."""

    _extra_reducers: ClassVar[dict[Any, Any]] = {}


def _packed(value: Any) -> bytes:
    buffer = io.BytesIO()
    _ByValue(buffer).dump(value)
    return buffer.getvalue()


class ProcessLink:
    """A process, daemonic, and the pipe to it.

    Args:
        assignment: what is to be played.
        factory: makes the environment.
        policy: the worker's own copy.
        backend: the kind of event loop, by anyio's name.
    """

    is_remote = True

    def __init__(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy, backend: str) -> None:
        self.messages: Mailbox[WorkerEvent] = Mailbox()
        self._actor_id = assignment.actor_id
        self._commands: queue.SimpleQueue[WorkerCommand | None] = queue.SimpleQueue()
        self._name = f"stoker-actor-{assignment.actor_id}"
        self._load: Any = (factory, policy)
        self._rest = (assignment, backend)
        self._lock = threading.Lock()
        self._has_started = self._is_killed = self._has_spoken = False

    @property
    def pid(self) -> int | None:
        """The process's id; None before it is started."""
        return self._process.pid if self._has_started else None

    def open(self) -> None:
        """Start the process; ``Ready`` or ``WorkerExited`` is posted when it has started or failed to."""
        context = multiprocessing.get_context("spawn")
        self._pipe, self._far_end = context.Pipe()
        # Not with the process: its start would wait, with the lock, until it has come up and taken them, and
        # for ever if it does not come up.
        self._packed = _packed(self._load)
        arguments = (self._far_end, *self._rest)
        self._process = context.Process(target=main, args=arguments, name=self._name, daemon=True)
        self._load = None
        self._writer = threading.Thread(target=self._write, name=f"{self._name}-writer", daemon=True)
        self._writer.start()
        threading.Thread(target=self._serve, name=f"{self._name}-reader", daemon=True).start()

    def send(self, command: WorkerCommand) -> None:
        """Tell the worker something; does not wait until it reads it."""
        self._commands.put(command)

    def kill(self) -> None:
        """End the process at once, also one that is about to be started."""
        with self._lock:
            self._is_killed = True
            if self._has_started:
                self._process.kill()

    # On the reader's thread ----------------------------------------------------------------------------

    def _serve(self) -> None:
        exit_code: int | None = None
        why = ""
        try:
            why = self._start()
            if not why:
                why = self._read()
                exit_code = self._see_it_end()
                if exit_code == 1 and not self._has_spoken:
                    text = (
                        f"actor {self._actor_id!r}: its process ended before it could begin; what it printed "
                        "says why. What makes the environment must be importable there, and a script that "
                        "starts processes needs its `if __name__ == '__main__':`"
                    )
                    self.messages.post(Failed("setup", ConfigError(text)))
        finally:
            self._commands.put(None)
            self._writer.join(_EXIT_S)
            if not self._writer.is_alive():  # else a pipe that somebody else holds open takes nothing
                self._pipe.close()
            self.messages.post(WorkerExited(exit_code, why))

    def _start(self) -> str:
        """Start the process; returns what kept it from that, if anything did."""
        # Ctrl-C in a terminal reaches children, too. A blocked signal stays blocked in what is started, so
        # that it cannot interrupt a child before that ignores it; the tracker would unblock it here.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with _STARTING:
                self._process.start()
        except OSError as error:  # no more processes, say: that may pass
            return f"its process could not be started ({error})"
        except Exception as error:  # noqa: BLE001 - told; a training in a daemonic process, say
            text = (
                f"actor {self._actor_id!r}: its process cannot be started ({type(error).__name__}: {error})"
            )
            self.messages.post(Failed("setup", ConfigError(text)))
            return text
        finally:
            self._far_end.close()
        with self._lock:
            self._has_started = True
            if self._is_killed:
                self._process.kill()
        return ""

    def _read(self) -> str:
        """Read until it ends; returns what was wrong with it, if that is known."""
        try:
            while True:
                self.messages.post(decode_message(self._pipe.recv_bytes(), self._actor_id))
                self._has_spoken = True
        except (EOFError, OSError):
            return ""  # it has ended, or is about to
        except msgspec.DecodeError as error:
            self.kill()
            return f"its process sent what is no message ({error})"

    def _see_it_end(self) -> int | None:
        process = self._process
        process.join(_EXIT_S)
        if process.is_alive():
            process.kill()
            process.join(_EXIT_S)
        with _STARTING:  # another thread that starts a process may have collected the exit code
            return process.exitcode

    # On the writer's -----------------------------------------------------------------------------------

    def _write(self) -> None:
        try:
            self._pipe.send_bytes(self._packed)
        except OSError:
            return  # the process is gone, which the reader tells
        self._packed = b""
        while (order := self._commands.get()) is not None:
            try:
                self._pipe.send_bytes(encode_command(order))
            except OSError:
                return  # the process is gone, which the reader tells
            except ConfigError as error:
                self.messages.post(Failed("setup", error))
                return
