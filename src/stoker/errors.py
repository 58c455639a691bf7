"""Every error that stoker raises on purpose, as one tree.

    StokerError
    ├── ConfigError (ValueError)            a setting, name or flag that cannot be used
    │   └── InvalidDataset                  a data set that cannot be read, or that holds invalid values
    ├── InvalidExperience (ValueError)      a caller gave an invalid value; the session stays usable
    ├── InvalidJointStep (ValueError)       an environment of several agents broke a rule of its steps
    ├── InvalidAgentState (TypeError)       a state_dict that would not load with weights_only=True
    ├── TrainingDiverged (ArithmeticError)  a loss is not finite; the update was not applied
    ├── SessionError (RuntimeError)
    │   ├── SessionClosed                   the caller used a session before entering or after leaving it
    │   ├── SessionFailed                   a part of the session failed; __cause__ is its error
    │   ├── RelearningFailed                the agent failed on an event of the journal
    │   └── ActorConflict                   two actors under one actor_id at the same time
    ├── ActorFailed (RuntimeError)          its environment failed too often; __cause__ is the last failure
    ├── UnexpectedExit (RuntimeError)       an environment, agent or callback raised SystemExit or the like
    ├── RecorderFailed (RuntimeError)       a required recorder failed; __cause__ is its error
    ├── RunDirectoryError (OSError)         the runs directory cannot be used
    │   ├── RunNotFound                     nothing to resume or read there
    │   ├── RunBroken                       a run with a file that cannot be read
    │   ├── RunLocked                       another process writes it
    │   ├── RunFenced                       another process has taken it over
    │   └── JournalBroken                   events that are needed from its journal are damaged or missing
    ├── CheckpointNotFound (LookupError)
    ├── CheckpointCorrupt (ValueError)
    ├── ExportFailed (RuntimeError)         an exported policy acts otherwise than the agent's
    ├── WriteFailed (OSError)               the disk refused a write; __cause__ is the system's error
    ├── Stalled (TimeoutError)              a part made no progress within its time limit
    └── MissingDependency (ImportError)     an optional package is absent; the message names the extra

Who is at fault decides the class. A message names the value and what to do about it. Every error can be
pickled and copied, so that it crosses a process pool as it is.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from stoker.raising import described
from stoker.types import ActorId, AnyPath


class StokerError(Exception):
    """The root of the tree: catches every error that stoker raises on purpose.

    Pickling and copying keep the class, the message, the attributes, the notes and ``__cause__``. A cause
    whose class another process may not have becomes an ``Exception`` with its type and message. The message
    can be written to any log: what is not valid Unicode in it is escaped.
    """

    def __str__(self) -> str:
        return super().__str__().encode(errors="backslashreplace").decode()

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        if self.__cause__ is not None:
            state["__cause__"] = _portable(self.__cause__)
        return _rebuilt, (type(self), self.args), state


class ConfigError(StokerError, ValueError):
    """A setting, a name or a flag cannot be used; nothing was started."""


class InvalidDataset(ConfigError):
    """A data set cannot be read, or holds values that cannot be learned from.

    Args:
        source: the file or directory.
        problem: what is wrong, and what to do about it.
        episode: the number of the episode, from 0; None: it is not about one.
        step: the number of the step in that episode, from 0; None: it is not about one.
    """

    def __init__(
        self, source: AnyPath, problem: str, *, episode: int | None = None, step: int | None = None
    ) -> None:
        self.source: str = os.fspath(source)
        self.problem = problem
        self.episode = episode
        self.step = step
        places = [(name, at) for name, at in (("episode", episode), ("step", step)) if at is not None]
        where = "".join(f", {name} {at}" for name, at in places)
        super().__init__(f"{self.source}{where}: {problem}")


class InvalidExperience(StokerError, ValueError):
    """An experience, observation, action, record or extra is invalid.

    The call had no effect: nothing was counted, learned or written, and the session continues.

    Args:
        args: the message.
        field: what was invalid, such as ``reward``; None: the first field that the message names.
        index: the place of the invalid event among those given together; None: one was given.
    """

    def __init__(self, *args: object, field: str | None = None, index: int | None = None) -> None:
        super().__init__(*args)
        self.index = index
        named = _FIELDS.search(str(args[0])) if args and field is None else None
        self.field: str = field or (named.group(1) if named is not None else "other")


_FIELDS: Final = re.compile(
    r"\b(next_observation|observation|action|reward|terminated|truncated|status|actor_id|policy_version"
    r"|policy_extras|total_reward|length|steps|extras|seed|seq|mean_reward|mode)(?:s|es)?(?![a-z_])"
)
"""The fields that messages of ``InvalidExperience`` name."""


class InvalidJointStep(StokerError, ValueError):
    """A joint environment broke the rules of its steps; that costs the episode, and it is made again.

    Args:
        agent: the agent whose step it is.
        problem: what is wrong with it.
    """

    def __init__(self, agent: str, problem: str) -> None:
        self.agent = agent
        super().__init__(f"agent {agent!r} {problem}")


class InvalidAgentState(StokerError, TypeError):
    """An agent's state holds something that ``torch.load(weights_only=True)`` would refuse.

    Args:
        where: the path to the value inside the state, such as ``agent['optimizer']['lr']``.
        value: the value itself.
    """

    def __init__(self, where: str, value: Any) -> None:
        self.where = where
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        super().__init__(
            f"{where} is a {kind}, which a checkpoint cannot hold: give a tensor, number, string, bytes, "
            "None, or a list, tuple or dict of these (for a numpy array: torch.from_numpy)"
        )


class TrainingDiverged(StokerError, ArithmeticError):
    """A loss is not finite. The update was not applied: the weights are unchanged."""


class SessionError(StokerError, RuntimeError):
    """A session cannot perform a call."""


class SessionClosed(SessionError):
    """A session was used before it was entered or after it was left; ``entered`` tells which."""

    def __init__(self, what: str, *, entered: bool) -> None:
        self.entered = entered
        state = "has been left" if entered else "has not been entered"
        super().__init__(f"{what}: the session {state}; call it inside the session's `with` block")


class SessionFailed(SessionError):
    """A part of the session, such as the writer, failed and ended the session; ``__cause__`` is its error."""

    def __init__(self, part: str, cause: BaseException) -> None:
        self.part = part
        super().__init__(f"the {part} failed: {type(cause).__name__}: {cause}")
        self.__cause__: BaseException | None = cause


class RelearningFailed(SessionError):
    """The agent failed on events that it is to learn again; ``__cause__`` is its error.

    Args:
        first: the number of the first event in the journal that it may have failed on.
        last: the number of the last one.
        total_steps: the environment steps that it had learned.
        cause: its error.
    """

    def __init__(self, first: int, last: int, total_steps: int, cause: BaseException) -> None:
        self.first: int = first
        self.last: int = last
        self.total_steps: int = total_steps
        events = f"event {first}" if first == last else f"one of the events {first} to {last}"
        super().__init__(
            f"the agent failed on {events} of the journal, after step {total_steps}, with "
            f"{type(cause).__name__}: {cause}; use the agent that the run was trained with"
        )
        self.__cause__: BaseException | None = cause


class ActorConflict(SessionError):
    """Two actors used one ``actor_id`` at the same time; the first one waits in the call ``what``."""

    def __init__(self, actor_id: ActorId, what: str) -> None:
        self.actor_id = actor_id
        super().__init__(
            f"actor {actor_id!r} is already waiting in {what}: an actor_id names one stream of episodes, "
            "so give each concurrent actor its own actor_id"
        )


class ActorFailed(StokerError, RuntimeError):
    """An actor's environment failed more often than the limit allows.

    Args:
        actor_id: the actor.
        failures: the number of failures within ``window_s``.
        window_s: the window, in seconds, in which failures are counted.
        cause: the last failure.
    """

    def __init__(self, actor_id: ActorId, failures: int, window_s: float, cause: BaseException) -> None:
        self.actor_id = actor_id
        self.failures = failures
        often = "with" if failures == 1 else f"{failures} times within {window_s:g} s, at last with"
        super().__init__(f"actor {actor_id!r}: its environment failed {often} {described(cause)}")
        self.__cause__: BaseException | None = cause


class UnexpectedExit(StokerError, RuntimeError):
    """Code inside a training raised SystemExit, KeyboardInterrupt or another exception that ends a process.

    ``__cause__`` is that exception. Unchanged, it would end the event loop before the run is saved.
    """


class RecorderFailed(StokerError, RuntimeError):
    """A required recorder failed; ``__cause__`` is its error."""

    def __init__(self, name: str, cause: BaseException) -> None:
        self.name = name
        super().__init__(f"the recorder {name!r} failed: {type(cause).__name__}: {cause}")
        self.__cause__: BaseException | None = cause


class RunDirectoryError(StokerError, OSError):
    """A runs directory, or a file in it, cannot be used."""

    def __init__(self, path: AnyPath, problem: str) -> None:
        self.path: str = os.fspath(path)
        super().__init__(f"{self.path}: {problem}")


class RunNotFound(RunDirectoryError):
    """There is no run at that path."""


class RunBroken(RunDirectoryError):
    """A file of a run cannot be read."""


class RunLocked(RunDirectoryError):
    """Another process writes this run.

    Args:
        path: the run's directory.
        holder: the process, for example ``process 4711 on host-a, since 2026-01-02 03:04:05 UTC``.
    """

    SIGN: Final = "is being written by"
    """Words of each message, by which it is known in the output of another process."""

    def __init__(self, path: AnyPath, holder: str) -> None:
        self.holder = holder
        super().__init__(path, f"{self.SIGN} {holder}; wait for that session to end, or stop it first")


class RunFenced(RunDirectoryError):
    """Another process has taken the run over while this one was thought dead; this one writes nothing more.

    Everything that this process had confirmed as durable is in the run, and the other process continues it.

    Args:
        path: the run's directory.
        token: of this process's lease.
        holder: the process that has the run now, for example ``process 4711 on host-b``.
    """

    def __init__(self, path: AnyPath, token: int, holder: str) -> None:
        self.token = token
        self.holder = holder
        super().__init__(
            path,
            f"was taken over by {holder}, because this process, the holder of lease {token}, did not renew "
            "it in time; the training continues there, and here nothing more is written",
        )


class JournalBroken(RunDirectoryError):
    """Events that are needed from a run's journal are damaged or missing."""


class CheckpointNotFound(StokerError, LookupError):
    """A run has no such checkpoint."""


class CheckpointCorrupt(StokerError, ValueError):
    """A checkpoint file cannot be loaded."""

    def __init__(self, path: AnyPath, problem: str) -> None:
        self.path: str = os.fspath(path)
        super().__init__(f"{self.path}: not a whole checkpoint ({problem}); use another one")


class ExportFailed(StokerError, RuntimeError):
    """An exported policy acts otherwise than the policy that it was made from; nothing was published."""


class WriteFailed(StokerError, OSError):
    """The operating system refused a write; the message says what to do about it."""

    def __init__(self, path: AnyPath, cause: OSError) -> None:
        self.path: str = os.fspath(path)
        super().__init__(f"cannot write {self.path}: {with_way_out(cause)}")
        self.__cause__: BaseException | None = cause


_WAYS_OUT: Final[Mapping[int, str]] = {
    errno.ENOSPC: "free space on that disk and try again",
    errno.EDQUOT: "free space or raise the disk quota, and try again",
    errno.EFBIG: "raise the limit on file sizes (`ulimit -f`) and try again",
    errno.EACCES: "check its owner and permissions (`ls -ld`), and those of the directories above it",
    errno.EPERM: "check its owner, permissions and attributes (`ls -ld`, `lsattr`)",
    errno.EROFS: "that file system is mounted read-only: use another directory",
    errno.ENAMETOOLONG: "choose a shorter name or directory",
    errno.ENOENT: "its directory is gone: keep a run where it is while it is in use",
    errno.ENOTDIR: "a file stands where a directory must be: move it away, or use another directory",
    errno.EEXIST: "a file stands where a directory must be: move it away, or use another directory",
    errno.EISDIR: "a directory stands in its place: move it away",
    errno.ELOOP: "its symbolic links lead nowhere: correct them",
    errno.EIO: "the disk has a fault: check it (`dmesg`), and write to another one",
    errno.ESTALE: "the network file system has lost it: mount it again",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`) and try again",
    errno.ENFILE: "the system has too many open files: close some and try again",
}


class Stalled(StokerError, TimeoutError):
    """A part made no progress within its time limit.

    Args:
        what: the part and its current operation, for example ``the writer (syncing metadata.json)``.
        seconds: the time without progress.
        way_out: what the reader can do.
    """

    def __init__(self, what: str, seconds: float, way_out: str) -> None:
        super().__init__(f"{what} has not moved for {seconds:.3g} s; {way_out}")


class MissingDependency(StokerError, ImportError):
    """An optional package is not installed; ``extra`` is the extra of stoker that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{package} is not installed: run `pip install 'stoker[{extra}]'`")


def with_way_out(refusal: OSError) -> str:
    """The operating system's message for an error, and what to do about it."""
    way_out = _WAYS_OUT.get(refusal.errno or 0, "remove the cause and try again")
    return f"{refusal.strerror or refusal}; {way_out}"


def first_error(error: BaseException) -> BaseException:
    """The error itself, or the most important member of a group, however nested.

    KeyboardInterrupt and SystemExit come first, then errors, and cancellations, which trio adds, come last.
    """
    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        important = group.subgroup((KeyboardInterrupt, SystemExit)) or group.subgroup(Exception) or group
        error = important.exceptions[0]
    return error


# Copies and other processes -------------------------------------------------------------------------


def _rebuilt(kind: type[StokerError], args: tuple[Any, ...]) -> StokerError:
    """The error as it was, without ``__init__``, which builds the message from other arguments."""
    error = kind.__new__(kind)
    super(StokerError, error).__init__(*args)
    return error


def _portable(cause: BaseException) -> BaseException:
    """The cause if any process can load it, else an ``Exception`` with its type and message."""
    if isinstance(cause, StokerError):
        return cause
    if isinstance(cause, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", cause)
        portable: BaseException = BaseExceptionGroup(group.message, [*map(_portable, group.exceptions)])
    elif type(cause).__module__ == "builtins" and _is_plain((cause.args, cause.__dict__)):
        return cause
    else:
        kind = type(cause)
        portable = Exception(f"{kind.__module__}.{kind.__qualname__}: {cause}".removeprefix("builtins."))
    for note in getattr(cast("Any", cause), "__notes__", ()):
        portable.add_note(str(note))
    return portable


def _is_plain(value: Any) -> bool:
    """Whether the value consists of Python's built-in types only."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, cast("list[Any]", value)))
    return type(value) in (type(None), bool, int, float, complex, str, bytes)
