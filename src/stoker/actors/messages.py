"""Messages between a training and the workers that play for it, and the mailboxes that they arrive in.

A worker sends what it played and asks for permission; the training sends commands. Within one process a
message is passed as the object that it is. Between processes it is msgpack, with arrays and other values in
the journal's encoding; nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import anyio
import msgspec
from msgspec.msgpack import Ext
from msgspec.structs import force_setattr, replace

from stoker.errors import ConfigError, UnexpectedExit
from stoker.journal import ActorEvent
from stoker.journal.codec import form, restore
from stoker.raising import RemoteFailure, described
from stoker.threads import CallSoon, call_soon_here
from stoker.types import Experience, ExperienceBatch

T = TypeVar("T")


class _Sent(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A message between a training and a worker."""


# Messages of a worker -------------------------------------------------------------------------------


class Ready(_Sent, frozen=True):
    """The worker has started and is about to make its environment."""


PlayedEvent = ActorEvent | ExperienceBatch
"""A step, the start or the end of an episode, or the steps of one round of a vector environment."""


class Played(_Sent, frozen=True):
    """What the worker played since its last message.

    Attributes:
        events: in order.
        times_s: seconds in each of the ``ACTOR_STATES`` since the worker started.
        syncs: how often its policy was updated since then.
        version: the version of its policy.
        asks: whether it waits for the credit of one step.
    """

    events: tuple[PlayedEvent, ...]
    times_s: tuple[float, ...]
    syncs: int
    version: int
    asks: bool


class Failed(_Sent, frozen=True):
    """The environment or the policy failed, and the worker ends.

    Attributes:
        error: what was raised; a ``ConfigError`` of the environment means that every retry would fail. From
            another process it arrives as a ``RemoteFailure``, unless it is that or an ``UnexpectedExit``.
        observation: what the policy failed on; None: the environment failed.
    """

    error: BaseException
    observation: Any = None


WorkerMessage = Ready | Played | Failed


class WorkerExited(msgspec.Struct, frozen=True):
    """The worker has ended; the last message, posted by its link.

    Attributes:
        exit_code: of its process, negative for a signal; None: unknown, or there was no process.
        why: the reason in words, if it is known.
        is_lost: the place lost the worker, reports that itself and limits how often it may happen: it does
            not count as a failure of the environment, and the next worker is asked for at once.
    """

    exit_code: int | None = None
    why: str = ""
    is_lost: bool = False

    @property
    def in_words(self) -> str:
        """How it ended."""
        code = self.exit_code
        if self.why or code is None:
            return self.why or "its worker has ended"
        return f"its process has ended ({f'killed by signal {-code}' if code < 0 else f'exit code {code}'})"


class Waiting(msgspec.Struct, frozen=True):
    """The worker waits until its place can start it; posted by its link, before ``Ready``.

    From then on the place bounds the start, and names what is missing; the actor waits as long as it must.
    """


WorkerEvent = WorkerMessage | WorkerExited | Waiting


# Commands of the training ---------------------------------------------------------------------------


class Weights(_Sent, frozen=True, eq=False, weakref=True):
    """New weights for the worker's copy of the policy.

    Attributes:
        version: the agent's optimization steps when they were published.
        weights: what ``PortablePolicy.weights`` returned; read-only.
    """

    version: int
    weights: Mapping[str, Any]


class Credit(_Sent, frozen=True):
    """The worker may do this many more steps."""

    n_steps: int


class Stop(_Sent, frozen=True):
    """Close the environment and end."""


WorkerCommand = Weights | Credit | Stop


# As bytes -------------------------------------------------------------------------------------------

_SAME = Ext(100, b"")
"""Stands for an observation that is the ``next_observation`` of the event before: it is not sent twice."""

_COLUMNS = tuple(name for name in ExperienceBatch.__struct_fields__ if name != "actor_ids")

_RAISED_AGAIN = {kind.__name__: kind for kind in (ConfigError, UnexpectedExit)}

_encoding = threading.Lock()
_encoded: WeakKeyDictionary[Weights, bytes] = WeakKeyDictionary()


def encode_message(message: WorkerMessage | WorkerCommand) -> bytes:
    """A message or a command as bytes.

    Raises:
        ConfigError: It holds a value that cannot be sent; the error names the value.
    """
    try:
        match message:
            case Weights():
                with _encoding:  # once for all workers that need them: weights may be megabytes
                    if message not in _encoded:
                        named = message.weights.items()
                        forms = {name: form(value, f"weights[{name!r}]") for name, value in named}
                        _encoded[message] = _encoder.encode(replace(message, weights=forms))
                    return _encoded[message]
            case Played():
                return _encoder.encode(replace(message, events=tuple(_with_forms(message.events))))
            case Failed():
                observation = form(message.observation, "observation")
                return _encoder.encode(replace(message, observation=observation))
            case _:
                return _encoder.encode(message)
    except (OverflowError, TypeError, ValueError) as error:
        what = "the policy's weights" if isinstance(message, Weights) else "what it played"
        raise ConfigError(
            f"{what} cannot be sent to another process: {error}; use place='threads'"
        ) from error


def decode_message(data: bytes) -> WorkerMessage:
    """The message that a worker encoded.

    Raises:
        msgspec.DecodeError: The bytes are not a message.
    """
    message = _unpacked(_messages, data)
    if isinstance(message, Played):
        last_seen: Any = None
        for event in message.events:
            if isinstance(event, Experience):
                if event.observation is _SAME:
                    force_setattr(event, "observation", last_seen)  # no one else has the event yet
                last_seen = event.next_observation
            elif isinstance(event, ExperienceBatch):
                if event.observations is _SAME:
                    force_setattr(event, "observations", last_seen)
                last_seen = event.next_observations
    return message


def decode_command(data: bytes) -> WorkerCommand:
    """The command that a training encoded.

    Raises:
        msgspec.DecodeError: The bytes are not a command.
    """
    return _unpacked(_commands, data)


def _with_forms(events: tuple[PlayedEvent, ...]) -> Iterator[PlayedEvent]:
    last_seen: Any = None
    for event in events:
        if isinstance(event, Experience):
            is_same = event.observation is last_seen and last_seen is not None
            last_seen = event.next_observation
            yield replace(
                event,
                observation=_SAME if is_same else form(event.observation, "observation"),
                action=form(event.action, "action"),
                next_observation=form(event.next_observation, "next_observation"),
                policy_extras=form(event.policy_extras, "policy_extras"),
            )
        elif isinstance(event, ExperienceBatch):
            is_same = event.observations is last_seen and last_seen is not None
            last_seen = event.next_observations
            columns = {name: form(getattr(event, name), name) for name in _COLUMNS}
            yield replace(event, **columns | ({"observations": _SAME} if is_same else {}))
        else:
            yield event


def _unpacked(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(str(error)) from error


def _error_fields(error: BaseException) -> list[str]:
    name = next((name for name, kind in _RAISED_AGAIN.items() if isinstance(error, kind)), "")
    text = str(error) if name else described(error)
    trace = "".join(traceback.format_exception(error))
    # What is not valid Unicode, as in names of files, is escaped.
    return [field.encode(errors="backslashreplace").decode() for field in (name, text, trace)]


def _error(kind: type, fields: Any) -> BaseException:
    name, text, trace = msgspec.convert(fields, tuple[str, str, str])
    error = _RAISED_AGAIN.get(name, RemoteFailure)(text)
    error.add_note(trace)
    return error


def _value(code: int, data: memoryview) -> Any:
    return _SAME if code == _SAME.code else restore(Ext(code, bytes(data)))


_encoder = msgspec.msgpack.Encoder(enc_hook=_error_fields)
_messages = msgspec.msgpack.Decoder[WorkerMessage](WorkerMessage, ext_hook=_value, dec_hook=_error)
_commands = msgspec.msgpack.Decoder[WorkerCommand](WorkerCommand, ext_hook=_value)


# Mailboxes ------------------------------------------------------------------------------------------


class Mailbox(Generic[T]):
    """An unbounded queue from any number of threads to one task, in order.

    Posting never waits. It wakes the event loop only while the task waits there: a task that checks its
    mailbox between two steps costs the poster no more than an append.
    """

    def __init__(self) -> None:
        self._messages: deque[T] = deque()
        self._waiting: tuple[CallSoon, anyio.Event] | None = None

    def post(self, message: T) -> None:
        """Add a message; safe from any thread, and without effect once nobody takes messages."""
        self._messages.append(message)
        waiting = self._waiting
        if waiting is not None:
            call_soon, arrived = waiting
            with contextlib.suppress(RuntimeError):  # the loop has ended, so nobody waits
                call_soon(arrived.set)

    def __len__(self) -> int:
        return len(self._messages)

    def take_now(self) -> T | None:
        """The next message, or None if there is none."""
        return self._messages.popleft() if self._messages else None

    async def take(self) -> T:
        """Wait for the next message. If cancelled, no message is lost."""
        while not self._messages:
            arrived = anyio.Event()
            self._waiting = (call_soon_here(), arrived)
            try:
                # ``post`` appends first and then looks for a waiting task; here the order is reversed.
                if not self._messages:
                    await arrived.wait()
            finally:
                self._waiting = None
        return self._messages.popleft()
