"""What a training and a worker that plays for it say to each other.

A worker tells what it played and asks; the training commands. In one process messages are passed as they are.
Between processes they are bytes: values by the journal's encoding, nothing of which is ever unpickled.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Literal
from weakref import WeakKeyDictionary

import msgspec

from stoker.actors.copies import Weights
from stoker.actors.failures import RemoteFailure, described
from stoker.errors import UnexpectedExit
from stoker.journal import EpisodeEnded, EpisodeStarted, JournalEvent
from stoker.journal.codec import decode, encode
from stoker.stats import EpisodeRecord
from stoker.types import ActorId, EpisodeStatus, Experience

__all__ = [
    "Blame",
    "Credit",
    "DiscardEnv",
    "EnvDiscarded",
    "Failed",
    "Granted",
    "Played",
    "Ready",
    "RestartEnv",
    "Stop",
    "WorkerCommand",
    "WorkerEvent",
    "WorkerExited",
    "WorkerMessage",
    "decode_command",
    "decode_message",
    "encode_command",
    "encode_message",
]

Blame = Literal["environment", "exit", "policy", "setup"]
"""Whose fault a failure is: the environment raised, or raised what ends a process; the policy raised; or
something is set up in a way that fails again at each try."""


# What a worker tells -------------------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True):
    """It is up, and is about to make its environment."""


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """What it played since the last time.

    Attributes:
        events: steps, and beginnings and ends of episodes, in order.
        env_s, act_s, wait_s: where its time went so far, in seconds, since it is up.
        syncs: how often its policy was brought up to date since then.
        version: the optimization steps behind its policy.
        asks: whether it waits for permission for its next step.
    """

    events: tuple[JournalEvent, ...]
    env_s: float
    act_s: float
    wait_s: float
    syncs: int
    version: int
    asks: bool

    @property
    def n_steps(self) -> int:
        """How many of the events are steps."""
        return sum(type(event) is Experience for event in self.events)


class Failed(msgspec.Struct, frozen=True):
    """Something went wrong; it waits for ``RestartEnv``, unless it is the setup: then it ends.

    Attributes:
        blame: whose fault it seems to be.
        error: what was raised; from another process a ``RemoteFailure``.
        observation: where the policy failed, what it was to act on.
    """

    blame: Blame
    error: BaseException
    observation: Any = None


class EnvDiscarded(msgspec.Struct, frozen=True):
    """The worker gave up its environment after ``DiscardEnv`` and waits for ``RestartEnv``."""


WorkerMessage = Ready | Played | Failed | EnvDiscarded


class WorkerExited(msgspec.Struct, frozen=True):
    """The worker has ended; the last message, posted by its link.

    Attributes:
        exit_code: of its process, negative for a signal; None: not known, or there was none.
        why: what is known beside that, in words.
    """

    exit_code: int | None = None
    why: str = ""

    @property
    def in_words(self) -> str:
        """How it ended."""
        code = self.exit_code
        if self.why or code is None:
            return self.why or "its worker has ended"
        return f"its process has ended ({f'killed by signal {-code}' if code < 0 else f'exit code {code}'})"


WorkerEvent = WorkerMessage | WorkerExited


# Commands -----------------------------------------------------------------------------------


class Credit(msgspec.Struct, frozen=True):
    """So many of its steps were taken in."""

    n_steps: int


class Granted(msgspec.Struct, frozen=True):
    """It may do the step that it asked for."""


class DiscardEnv(msgspec.Struct, frozen=True):
    """What its environment gave cannot be taken: give the environment up."""


class RestartEnv(msgspec.Struct, frozen=True):
    """Make another environment and play on."""


class Stop(msgspec.Struct, frozen=True):
    """Close the environment and end."""


WorkerCommand = Weights | Credit | Granted | DiscardEnv | RestartEnv | Stop


# As bytes ------------------------------------------------------------------------------------------

_STATUSES = dict(enumerate(EpisodeStatus))
_CODES = {status: code for code, status in _STATUSES.items()}


def encode_message(message: WorkerMessage) -> bytes:
    """What a worker tells, as bytes.

    Raises:
        ConfigError: A value in it is of a type that cannot be sent.
    """
    match message:
        case Ready():
            return encode((0,))
        case Played():
            rows = _rows(message.events)
            m = message
            return encode((1, rows, m.env_s, m.act_s, m.wait_s, m.syncs, m.version, m.asks), "what is sent")
        case Failed():
            trace = "".join(traceback.format_exception(message.error))
            text = str(message.error) if message.blame == "exit" else described(message.error)
            return encode((2, message.blame, text, trace, message.observation))
        case EnvDiscarded():
            return encode((3,))


def decode_message(data: bytes, actor_id: ActorId) -> WorkerMessage:
    """The message of a worker that plays this actor.

    Raises:
        msgspec.DecodeError: These are no such bytes.
    """

    def played(rows: Any, *rest: Any) -> Played:
        return Played(events=_events(rows, actor_id), **dict(zip(_PLAYED, rest, strict=True)))

    def failed(blame: Blame, text: str, trace: str, observation: Any) -> Failed:
        error: Exception = RemoteFailure(text, trace)
        if blame == "exit":
            error = UnexpectedExit(text)
            error.add_note(trace)
        return Failed(blame, error, observation)

    return _made(data, {0: Ready, 1: played, 2: failed, 3: EnvDiscarded})


_PLAYED = ("env_s", "act_s", "wait_s", "syncs", "version", "asks")


_encoding = threading.Lock()
_encoded: WeakKeyDictionary[Weights, bytes] = WeakKeyDictionary()


def _weights_as_bytes(order: Weights) -> bytes:
    """Encoded once for all workers that are due together: weights may be megabytes."""
    with _encoding:
        if (data := _encoded.get(order)) is None:
            data = encode((1, order.version, dict(order.weights)), "the policy's weights")
            _encoded[order] = data
        return data


def encode_command(order: WorkerCommand) -> bytes:
    """A command as bytes.

    Raises:
        ConfigError: The policy's weights hold a value of a type that cannot be sent.
    """
    match order:
        case Credit():
            return encode((0, order.n_steps))
        case Weights():
            return _weights_as_bytes(order)
        case Granted():
            return encode((2,))
        case DiscardEnv():
            return encode((3,))
        case RestartEnv():
            return encode((4,))
        case Stop():
            return encode((5,))


def decode_command(data: bytes) -> WorkerCommand:
    """The order that these bytes are.

    Raises:
        msgspec.DecodeError: They are none.
    """
    return _made(data, {0: Credit, 1: Weights, 2: Granted, 3: DiscardEnv, 4: RestartEnv, 5: Stop})


def _made(data: bytes, makers: Mapping[int, Callable[..., Any]]) -> Any:
    try:
        kind, *fields = decode(data)
        return makers[kind](*fields)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise msgspec.DecodeError(f"this is no message: {type(error).__name__}: {error}") from error


def _rows(events: tuple[JournalEvent, ...]) -> list[tuple[Any, ...]]:
    """Each event as a tuple. An observation that the step before it led to is not sent twice."""
    rows: list[tuple[Any, ...]] = []
    seen: Any = None
    for event in events:
        match event:
            case Experience():
                e = event
                continues = e.observation is seen and seen is not None
                rest = (e.action, e.reward, e.next_observation, _CODES[e.status])
                rows.append(
                    (
                        0,
                        continues,
                        None if continues else e.observation,
                        *rest,
                        e.policy_extras,
                        e.policy_version,
                    )
                )
                seen = e.next_observation
            case EpisodeStarted():
                rows.append((1, event.seed))
            case EpisodeEnded():
                record = event.record
                status = _CODES[record.status]
                rows.append((2, record.total_reward, record.length, status, record.extras))
    return rows


def _events(rows: list[tuple[Any, ...]], actor_id: ActorId) -> tuple[JournalEvent, ...]:
    events: list[JournalEvent] = []
    seen: Any = None
    row: list[Any]
    for kind, *row in rows:
        match kind:
            case 0:
                continues, observation, action, reward, following, status, extras, version = row
                before = seen if continues else observation
                step = Experience(
                    before, action, reward, following, _STATUSES[status], actor_id, extras, version
                )
                events.append(step)
                seen = following
            case 1:
                events.append(EpisodeStarted(actor_id, row[0]))
            case 2:
                total_reward, length, status, extras = row
                record = EpisodeRecord(total_reward, length, _STATUSES[status], extras)
                events.append(EpisodeEnded(record, actor_id))
            case _:
                raise msgspec.DecodeError(f"{kind!r} is no event")
    return tuple(events)
