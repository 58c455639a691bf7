"""Actors in processes: the pipe to each, and what runs at its far end.

A process, for environments that hold the interpreter lock or may crash, unpickles the factory and the policy
that this process sends. After that nothing is unpickled, and only messages go through the pipe. A child never
outlives its parent. It ends at once, without closing its environment, when the other end of its pipe is
closed; on Linux the kernel ends it even while its environment holds the interpreter lock. There processes are
forked from multiprocessing's server, which has imported torch and this package once for all; elsewhere each
is started anew (``spawn``).
"""

from __future__ import annotations

import atexit
import functools
import logging
import multiprocessing
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from multiprocessing import parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd, ForkingPickler
from typing import Any, ClassVar, cast

import anyio
import msgspec
import numpy as np

import stoker.actors.messages as messages
from stoker.actors.episodes import EnvFactory
from stoker.actors.messages import Mailbox, WorkerCommand, WorkerEvent, WorkerMessage
from stoker.actors.worker import Assignment, OwnPolicy, Worker
from stoker.errors import ConfigError
from stoker.threads import backend_here

_EXIT_S = 5.0
"""How long a process may take to end after it has closed its pipe."""


class Processes:
    """A process for each actor."""

    def check(self, factory: EnvFactory, policy: OwnPolicy) -> None:
        """Refuse what cannot be pickled."""
        for what, value, way_out in (
            ("factory", factory, "give a function of a module or functools.partial of one, not a lambda"),
            ("policy", policy.policy, "its class must be picklable"),
        ):
            try:
                PicklerByValue.dumps(value)
            except Exception as error:
                raise ConfigError(
                    f"the {what} {value!r} cannot be sent to another process ("
                    f"{type(error).__name__}: {error}): {way_out}; or use place='threads'"
                ) from error

    def link(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy) -> _ProcessLink:
        """A link to a process that has not been started yet."""
        return _ProcessLink(assignment, factory, policy)


class PicklerByValue(ForkingPickler):
    """Pickles tensors by value; torch's reducers would share their memory, and run out of it."""

    _extra_reducers: ClassVar[dict[Any, Any]] = {}


_starting = threading.Lock()
"""multiprocessing keeps a list of all children, which one thread at a time may change."""


class _ProcessLink:
    """A daemonic process and the pipe to it.

    One thread starts the process, reads its messages and joins it, and another one writes, so that no event
    loop waits for a pipe.
    """

    def __init__(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy) -> None:
        self.messages: Mailbox[WorkerEvent] = Mailbox()
        self._outgoing: queue.SimpleQueue[WorkerCommand | None] = queue.SimpleQueue()
        self._assignment = assignment
        self._load: Any = (factory, policy)
        self._lock = threading.Lock()
        self._has_started = self._is_killed = False

    def open(self) -> None:
        """Start the process; ``Ready`` or ``WorkerExited`` is posted when it has started or failed to."""
        name = f"stoker-actor-{self._assignment.actor_id}"
        self._pipe, self._far_end = multiprocessing.Pipe()
        policy = type(self._load[1].policy).__module__
        self._needed = [module for module in (__name__, policy) if module.startswith("stoker.")]
        # Not as arguments of the process: its start, under a lock, would wait until the child has read them,
        # and without bound if the child never does.
        self._load = PicklerByValue.dumps(self._load)
        self._process = _context().Process(
            target=run_child,
            args=(self._far_end, self._assignment, backend_here(), _Surroundings()),
            name=name,
            daemon=True,
        )
        writer = threading.Thread(target=self._write, name=f"{name}-writer", daemon=True)
        writer.start()
        threading.Thread(target=self._serve, args=(writer,), name=f"{name}-reader", daemon=True).start()

    def send(self, command: WorkerCommand) -> None:
        self._outgoing.put(command)

    def kill(self) -> None:
        """End the process at once, even one that is about to be started."""
        with self._lock:
            self._is_killed = True
            if self._has_started:
                self._process.kill()

    # On the reader's thread ---------------------------------------------------------------------------

    def _serve(self, writer: threading.Thread) -> None:
        exited = messages.WorkerExited()
        try:
            self._start()
            exited = self._read_to_the_end()
        except (OSError, EOFError) as error:  # no more processes, or no server, which may pass
            exited = messages.WorkerExited(why=f"its process could not be started ({error})")
        except ConfigError as error:
            self.messages.post(messages.Failed(error))
        finally:
            self._outgoing.put(None)
            writer.join(_EXIT_S)
            if not writer.is_alive():  # else another process holds the pipe open and does not read
                self._pipe.close()
            self.messages.post(exited)

    def _start(self) -> None:
        # Ctrl-C in a terminal reaches children, too. A blocked signal stays blocked in a new process, so it
        # cannot interrupt a child before that ignores it; starting the tracker would unblock it here.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with _starting:
                _prepare_server(self._needed)
                self._process.start()
        except (OSError, EOFError):
            raise
        except Exception as error:  # this process is a daemon, say
            why = f"its process cannot be started ({type(error).__name__}: {error})"
            raise ConfigError(f"actor {self._assignment.actor_id!r}: {why}") from error
        finally:
            self._far_end.close()
        with self._lock:
            self._has_started = True
            if self._is_killed:
                self._process.kill()

    def _read_to_the_end(self) -> messages.WorkerExited:
        n_read, why = 0, ""
        try:
            while True:
                self.messages.post(messages.decode_message(self._pipe.recv_bytes()))
                n_read += 1
        except (EOFError, OSError):
            pass  # it has ended, or is about to
        except msgspec.DecodeError as error:
            self.kill()
            why = f"its process sent an invalid message ({error})"
        exit_code = self._join()
        if exit_code == 1 and not n_read:
            raise ConfigError(
                f"actor {self._assignment.actor_id!r}: its process ended before it could begin; what it "
                "printed says why. The environment's factory must be importable there, and a script that "
                "starts processes needs its `if __name__ == '__main__':`"
            )
        return messages.WorkerExited(exit_code, why)

    def _join(self) -> int | None:
        process = self._process
        process.join(_EXIT_S)
        if process.is_alive():
            process.kill()
            process.join(_EXIT_S)
        with _starting:  # another thread that starts a process may have collected the exit code
            return process.exitcode

    # On the writer's thread ---------------------------------------------------------------------------

    def _write(self) -> None:
        try:
            self._pipe.send_bytes(self._load)
            self._load = None
            while (command := self._outgoing.get()) is not None:
                self._pipe.send_bytes(messages.encode_message(command))
        except OSError:
            pass  # the process is gone, which the reader reports
        except ConfigError as error:
            self.messages.post(messages.Failed(error))


def _context() -> Any:
    """How processes are started: forked on Linux, from a server without threads; or anew."""
    can_listen = sys.platform == "linux" and _has_room_for_a_socket()
    return multiprocessing.get_context("forkserver" if can_listen else "spawn")


def _prepare_server(modules: Sequence[str]) -> None:
    """Say what the server imports when it starts, with the first process: torch takes a second.

    Args:
        modules: of this package, that processes need.
    """
    if sys.platform == "linux":
        packages = _preloadable()
        own = modules if "stoker" in packages else ()
        multiprocessing.get_context("forkserver").set_forkserver_preload([*packages, *own])


_FIND = "import sys, importlib.util as u; print(*[u.find_spec(n).origin for n in sys.argv[1:]], sep='|')"


@functools.cache
def _preloadable() -> Sequence[str]:
    """The packages that a new interpreter finds where this one did, which may have changed ``sys.path``."""
    names = [name for name in ("gymnasium", "torch", "stoker") if name in sys.modules]
    command = [sys.executable, "-c", _FIND, *names]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_EXIT_S)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = done.stdout.rstrip("\n").split("|")
    return [name for name, file in zip(names, found, strict=False) if file == sys.modules[name].__file__]


def _has_room_for_a_socket() -> bool:
    """Whether the server can listen: its socket is a temporary file, with a path of at most 107 bytes."""
    try:
        return len(os.fsencode(tempfile.gettempdir())) <= 70
    except OSError:  # there is no place for them
        return False


class _Surroundings:
    """What a process has of the training, and not of the server that it is forked from, once it is unpickled.

    Its environment variables, standard output and standard error; and random numbers of its own.
    """

    def __reduce__(self) -> Any:
        streams = {number: DupFd(number) for number in (1, 2) if _is_open(number)}
        return _surround, (dict(os.environ), streams)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _surround(environ: dict[str, str], streams: dict[int, Any]) -> None:
    os.environ.clear()
    os.environ.update(environ)
    for number, stream in streams.items():
        if (given := stream.detach()) != number:  # as it is in a process that is started anew
            os.dup2(given, number)
            os.close(given)
    np.random.seed()  # an environment may draw from it; Python reseeds its own generator


# In the child ---------------------------------------------------------------------------------------


def run_child(pipe: Connection, assignment: Assignment, backend: str, surroundings: object) -> None:
    """Play until stopped, or until the training is gone.

    Args:
        pipe: to the training, which sends the pickled factory and policy first.
        assignment: what to play.
        backend: the kind of event loop, by anyio's name.
        surroundings: what it is in, since this was unpickled.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training, which ends this process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _end_with_the_parent()
    try:
        load = pipe.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)
    factory, policy = cast("Any", ForkingPickler).loads(load)
    # Processes that the environment starts must not hold the pipe open.
    os.set_inheritable(pipe.fileno(), False)  # noqa: FBT003 - it takes no keyword
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)  # the actors run in parallel instead
    commands: Mailbox[WorkerCommand] = Mailbox()
    threading.Thread(target=_listen, args=(pipe, commands), name="stoker-commands", daemon=True).start()

    def post(message: WorkerMessage) -> None:
        try:
            pipe.send_bytes(messages.encode_message(message))
        except OSError:
            os._exit(1)
        except ConfigError as error:
            raise ConfigError(f"actor {assignment.actor_id!r}: {error}") from error

    try:
        anyio.run(Worker(assignment, factory, policy, commands, post).run, backend=backend)
    finally:
        # Processes of the server leave them out: before Python 3.13 all, since then those of its imports.
        atexit._run_exitfuncs()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        logging.shutdown()


def _listen(pipe: Connection, commands: Mailbox[WorkerCommand]) -> None:
    try:
        while True:
            commands.post(messages.decode_command(pipe.recv_bytes()))
    except (EOFError, OSError):
        os._exit(1)


def _end_with_the_parent() -> None:
    """Have the kernel end this process when its parent ends.

    multiprocessing keeps a pipe open between the two that nothing is written to. SIGIO comes when the other
    end is closed, and ends a process that does not handle it; only on Linux.
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
