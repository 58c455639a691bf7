"""``subprocess.Popen`` and ``subprocess.run`` for Python programs, without their two seconds of imports.

A server, one for each pytest process, has imported stoker and torch and forks itself for each program. The
program is a process like any other: it has its own pid, session, working directory, environment, arguments,
streams and signals. At its end it reports its error, joins its threads and calls what ``atexit`` knows. It
differs from ``python ...`` in this: modules of stoker and torch are already imported, and no module and
nothing of C++ is destroyed at the end, its parent is the server, ``/proc/PID/cmdline`` is the server's, and
``PYTHONHASHSEED`` has no effect. Tests of these, and of the installed command, start a real interpreter.

Processes that multiprocessing spawns are forked from the server, too, those of tests and those of programs.
A program's are in its process group, as real ones are.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import fcntl
import functools
import gc
import importlib
import io
import multiprocessing.util
import os
import pickle
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Generator, Sequence
from multiprocessing import popen_spawn_posix
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

_NUMBER = struct.Struct("=i")
_PRELOADED = (
    "anyio._backends._asyncio",
    "gymnasium.envs.classic_control",
    "torch.fx.experimental.symbolic_shapes",
    "torch.utils.serialization.config",
    "uvloop",
)
"""What a training imports at its first use, besides stoker's own modules."""
_LEFT_OUT = (".__main__", ".onnx_graph")
"""Modules that run a program, or import one that works at the end of each process: onnx."""


class _Program(NamedTuple):
    """What the server forks for; the descriptors of its standard streams come beside it."""

    words: list[str]
    cwd: str
    env: dict[str, str]
    closed: Sequence[int]
    ignored: list[int]
    blocked: list[int]
    kept: Sequence[int] = ()
    """Descriptors that the program has beside its standard streams, under the same numbers."""
    group: int = 0
    """The process group that it joins; 0: one of its own."""


# In the test --------------------------------------------------------------------------------------


class Popen(subprocess.Popen):
    """A program that is forked from the server: the words begin with ``sys.executable``.

    Args:
        closed: standard streams that are closed in the program.
    """

    def __init__(self, args: Sequence[str], *, closed: Sequence[int] = (), **options: Any) -> None:
        self._closed = closed
        super().__init__(args, **options)

    # The three methods with which Popen creates a process and waits for it, the same in Python 3.11 to 3.13.
    # Everything else is its own.

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest) -> None:
        pipes = rest[3:9]  # behind startupinfo, creationflags, shell
        assert args[0] == sys.executable
        assert executable is None
        assert preexec_fn is None
        assert not pass_fds
        p2cread, _, _, c2pwrite, _, errwrite = pipes
        streams = [own if own >= 0 else number for number, own in enumerate((p2cread, c2pwrite, errwrite))]
        words = list(map(os.fspath, args[1:]))
        environment = dict(os.environ if env is None else env)
        program = _Program(
            words, os.fspath(cwd or Path.cwd()), environment, self._closed, _ignored(), _blocked()
        )
        self.pid, self._connection = _fork(program, streams)
        self._child_created = True
        self._close_pipe_fds(*pipes)

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                status = self._connection.recv(_NUMBER.size)
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
            assert status, "the server of launching.py has ended"
            self._connection.close()
            self.returncode = os.waitstatus_to_exitcode(*_NUMBER.unpack(status))
        return self.returncode

    def _internal_poll(self, **_: Any) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._wait(0.0)
        return self.returncode


def run(
    args: Sequence[str],
    *,
    capture_output: bool = False,
    timeout: float = 60.0,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """``subprocess.run`` of a program that is forked from the server."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(args, **options) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(args, process.returncode, stdout, stderr)
    if check:
        done.check_returncode()
    return done


class Spawned(popen_spawn_posix.Popen):
    """A process that multiprocessing spawns, forked from the server."""

    _lock = threading.Lock()
    _connections: ClassVar[dict[int, socket.socket]] = {}

    @staticmethod
    def spawnv_passfds(path: bytes, args: Sequence[str], passfds: Sequence[int]) -> int:
        """Start a process of multiprocessing: its tracker of resources is not one to fork."""
        if "--multiprocessing-fork" not in args or popen_spawn_posix.Popen is not Spawned:
            return _spawnv_passfds(path, args, passfds)
        words = list(args[args.index("-c") :])
        kept, group = sorted(passfds), os.getpgrp() if _inherited else 0
        program = _Program(words, str(Path.cwd()), dict(os.environ), (), _ignored(), _blocked(), kept, group)
        with Spawned._lock:
            pid, connection = _fork(program, [0, 1, 2, *program.kept])
        Spawned._connections[pid] = connection
        return pid

    def _launch(self, process_obj: Any) -> None:
        super()._launch(process_obj)
        self._status = self._connections.pop(self.pid).detach()
        Finalize(self, os.close, (self._status,))

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        while self.returncode is None:
            with self._lock:  # several threads may wait
                if self.returncode is None and select.select([self._status], [], [], 0.0)[0]:
                    status = os.read(self._status, _NUMBER.size)
                    assert status, "the server of launching.py has ended"
                    self.returncode = os.waitstatus_to_exitcode(*_NUMBER.unpack(status))
            if flag == os.WNOHANG:
                break
            select.select([self._status], [], [], 1.0)
        return self.returncode


_spawnv_passfds = multiprocessing.util.spawnv_passfds


@contextlib.contextmanager
def real_spawns() -> Generator[None]:
    """Lets multiprocessing spawn interpreters meanwhile."""
    popen_spawn_posix.Popen = Spawned.__base__
    try:
        yield
    finally:
        popen_spawn_posix.Popen = Spawned


def _ignored() -> list[int]:
    return [number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN]


def _blocked() -> list[int]:
    """The signals that this thread blocks, which a process inherits from the thread that starts it."""
    return [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]


def _fork(program: _Program, descriptors: Sequence[int]) -> tuple[int, socket.socket]:
    """The pid of the program, and where its exit status comes from."""
    connection, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(_server().control, [b"."], [theirs.fileno()])
    data = pickle.dumps(tuple(program))
    socket.send_fds(connection, [_NUMBER.pack(len(data))], descriptors)
    connection.sendall(data)
    [pid] = _NUMBER.unpack(connection.recv(_NUMBER.size))
    return pid, connection


class _Server(NamedTuple):
    process: subprocess.Popen[bytes] | None
    control: socket.socket


_inherited: list[socket.socket] = []
"""In a program: its connection to the server that it is forked from."""


@functools.cache
def _server() -> _Server:
    """This process's server, started for its first program."""
    if _inherited:
        return _Server(None, _inherited[0])
    control, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # a Ctrl-C for pytest is not for the server
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},  # no threads: it forks
        )
    return _Server(process, control)


def server_pid() -> int | None:
    """The process id of this process's server, if it has started."""
    process = _server().process if _server.cache_info().currsize else None
    return process and process.pid


def stop() -> None:
    """End this process's server, if it has started, with the programs that still run."""
    if _server.cache_info().currsize:
        process, control = _server()
        control.close()
        if process is not None:
            process.wait(30.0)
        _server.cache_clear()


# In the server ------------------------------------------------------------------------------------


def _serve(control: socket.socket) -> tuple[_Program, list[int]]:
    """Fork a process for each program. Returns in these processes only, with what each is to run."""
    running: dict[int, socket.socket] = {}
    controls = [control]

    def reap(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                with running.pop(ended[0]) as connection, contextlib.suppress(OSError):  # the test is over
                    connection.sendall(_NUMBER.pack(ended[1]))

    signal.signal(signal.SIGCHLD, reap)
    # A signal that comes right before the system call of select would not end it: the handler would wait.
    woken, waking = socket.socketpair()
    waking.settimeout(0.0)
    signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
    while control in controls:
        for ready in select.select([woken, *controls], [], [])[0]:
            if ready is woken:
                woken.recv(4096)
                continue
            message = socket.recv_fds(ready, 1, 1)
            if not message[0]:
                controls.remove(ready)
                ready.close()
                continue
            connection = socket.socket(fileno=message[1][0])
            descriptors: list[int] = []
            try:
                size, descriptors, _, _ = socket.recv_fds(connection, _NUMBER.size, 64)
                with connection.makefile("rb") as file:
                    program = _Program(*pickle.loads(file.read(*_NUMBER.unpack(size))))
            except (OSError, EOFError, struct.error, pickle.UnpicklingError):
                for descriptor in descriptors:  # a program was killed while it asked
                    os.close(descriptor)
                connection.close()
                continue
            own, its = socket.socketpair()
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                for each in (woken, waking, *controls, own, connection, *running.values()):
                    each.close()
                _inherited.append(its)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
                return program, descriptors
            running[pid] = connection
            controls.append(own)
            its.close()
            for descriptor in descriptors:
                os.close(descriptor)
            with contextlib.suppress(OSError):
                connection.sendall(_NUMBER.pack(pid))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    for pid in list(running):
        os.kill(pid, signal.SIGKILL)
    sys.exit()


def _become(program: _Program, descriptors: list[int]) -> None:
    """Turn this fork of the server into the program's process, as the system and the interpreter would."""
    with contextlib.suppress(PermissionError):  # the group has ended
        os.setpgid(0, program.group)
    popen_spawn_posix.Popen = Spawned
    multiprocessing.util.spawnv_passfds = Spawned.spawnv_passfds
    os.chdir(program.cwd)
    own_path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(program.env)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in program.ignored else default)
    signal.pthread_sigmask(signal.SIG_SETMASK, program.blocked)
    numbers = [0, 1, 2, *program.kept]
    above = max(*numbers, *descriptors) + 1
    with _inherited.pop() as low:
        _inherited.append(socket.socket(fileno=fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, above)))
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, above) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for number, descriptor in zip(numbers, moved, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for number in program.closed:
        os.close(number)
    encoding, _, errors = program.env.get("PYTHONIOENCODING", "").partition(":")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, name, _stream(number, encoding or "utf-8", errors or "strict"))
        setattr(sys, f"__{name}__", getattr(sys, name))
    sys.path[:] = [
        *filter(None, program.env.get("PYTHONPATH", "").split(os.pathsep)),
        *(path for path in sys.path[1:] if path not in own_path),
    ]
    importlib.invalidate_caches()


def _stream(number: int, encoding: str, errors: str) -> io.TextIOWrapper | None:
    """A standard stream as the interpreter makes it; None if it is closed."""
    try:
        os.fstat(number)
    except OSError:
        return None
    if number == 0:
        return open(0, encoding=encoding, errors=errors, closefd=False)
    return io.TextIOWrapper(
        open(number, "wb", closefd=False),
        encoding=encoding,
        errors="backslashreplace" if number == 2 else errors,
        line_buffering=number == 2 or os.isatty(number),
        write_through=bool(os.environ.get("PYTHONUNBUFFERED")),
    )


def _execute(words: list[str]) -> None:
    """Do what the interpreter does with its command line."""
    sys.orig_argv = [sys.executable, *words]
    while words[0] == "-W":
        action, _, category = words[1].partition("::")
        warnings.simplefilter(action, getattr(builtins, category or "Warning"))
        words = words[2:]
    kind, rest = (words[0], words[1:]) if words[0] in ("-m", "-c") else ("", words)
    sys.argv = rest if kind != "-c" else ["-c", *rest[1:]]
    if kind == "-m":
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.path.insert(0, str(Path(rest[0]).resolve().parent))
        runpy.run_path(rest[0], run_name="__main__")


def _status(error: BaseException) -> int:
    """What ``Popen.returncode`` is for a program that ends with this error."""
    match error:
        case SystemExit(code=None):
            return 0
        case SystemExit(code=int(code)):
            return code & 0xFF
        case KeyboardInterrupt():
            return -signal.SIGINT
        case _:
            return 1


def _leave_ray() -> None:
    """What Ray does at the end, if it is in use: without a connection it only touches its memory."""
    if ray.is_initialized():
        ray.shutdown(_exiting_interpreter=True)


def _exit(status: list[int]) -> None:
    """End the process before the interpreter takes all modules apart, which would copy their memory."""
    sys.modules.pop("__main__", None)
    gc.collect()  # calls the finalizers of what the program left behind
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except (OSError, ValueError):  # the interpreter reports it, and knows the exit code
        return
    if status[0] < 0:
        signal.signal(-status[0], signal.SIG_DFL)
        os.kill(os.getpid(), -status[0])
    os._exit(status[0])


if __name__ == "__main__":
    _end = [0]
    atexit.register(_exit, _end)  # first, so that it is the last to be called
    import ray

    import stoker

    for _module in (*_PRELOADED, *(each.name for each in pkgutil.walk_packages(stoker.__path__, "stoker."))):
        if not _module.endswith(_LEFT_OUT):
            importlib.import_module(_module)
    for _finalizer in list(weakref.finalize._registry):  # of torch: it would take back its operators
        _finalizer.atexit = False
    atexit.unregister(ray._private.worker.shutdown)
    atexit.register(_leave_ray)
    gc.collect()
    gc.freeze()  # a fork copies only the memory that it changes
    _the_program = _serve(socket.socket(fileno=int(sys.argv[1])))
    _become(*_the_program)
    try:
        _execute(_the_program[0].words)
    except BaseException as _error:
        _end[0] = _status(_error)
        raise
