"""The first record of a segment: where it begins, and all that its events are learned with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

import stoker.journal.codec as codec
from stoker.agents.protocol import PriorData
from stoker.journal.events import EventDecoder, JournalEvent, Optimized, encode_header
from stoker.types import Experience

VERSION = 4
"""Of the format; a reader refuses all others."""


class OtherFormat(msgspec.DecodeError):
    """A header of another version of the format."""


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Where a segment begins, and the settings of its attempt, which decide what is learned from its events.

    Attributes:
        attempt: the attempt of the run that wrote it.
        first_event: the number of the first event in it.
        total_steps: steps of the training before that event.
        agent_type: the name of the agent's class.
        agent: the agent's settings as plain values by name; None: it has none.
        opt_interval: transitions per call of ``learn``; 0: it is never called.
        warmup_period: transitions before the first call.
        max_opts: optimization steps after which there are no more calls; None: no limit.
        offline: whether the steps of the training are optimization steps, and not transitions.
        lockstep: whether actors took turns, each with its own forward pass.
        numbered: whether events carry their numbers in the streams of remote actors.
        prior: the prior data that batches have a share of; None: there are none.
        torch_threads: with how many threads torch computes, which decides how sums are rounded.
        origin: a digest of the new agent, in the header of the first event; empty: there is none.
        rebuild: what the agent needs to take the events in from here on, for example a small dict of arrays.
        version: of the format.
    """

    attempt: int
    first_event: int
    total_steps: int
    agent_type: str
    agent: Mapping[str, Any] | None = None
    opt_interval: int
    warmup_period: int = 0
    max_opts: int | None = None
    offline: bool = False
    lockstep: bool = False
    numbered: bool = False
    prior: PriorData | None = None
    torch_threads: int = 1
    origin: str = ""
    rebuild: Any = None
    version: int = VERSION

    def steps_of(self, event: JournalEvent) -> int:
        """How many steps of the training an event of the segment is."""
        if self.offline:
            return event.n if isinstance(event, Optimized) else 0
        return int(isinstance(event, Experience))


def encoded_header(header: SegmentHeader) -> bytes:
    """The record of a header.

    Raises:
        ConfigError: ``agent`` or ``rebuild`` holds a value that a journal cannot.
    """
    fields = msgspec.structs.asdict(header) | {"prior": msgspec.to_builtins(header.prior)}
    # Encoded by themselves, so that an error names the place within them.
    return encode_header(fields | {name: codec.encode(fields[name], name) for name in _NESTED})


def decoded_header(record: bytes) -> SegmentHeader:
    """The header that the first record of a segment holds.

    Raises:
        OtherFormat: It is of another version of the format.
        msgspec.DecodeError: It holds none.
    """
    fields = EventDecoder().header(record)
    if (version := fields.get("version")) != VERSION:
        raise OtherFormat(
            f"it is of journal format {version}, and this stoker reads format {VERSION}: use the stoker that "
            "wrote it, or train a new run"
        )
    try:
        nested = {name: codec.decode(cast("bytes", fields[name])) for name in _NESTED}
        return msgspec.convert({**fields, **nested}, SegmentHeader)
    except (KeyError, TypeError) as error:
        raise msgspec.DecodeError(f"no header: {type(error).__name__}: {error}") from error


_NESTED = ("agent", "rebuild")
