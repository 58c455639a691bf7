"""What goes between a host and the training: commands for many links one way, messages of many the other.

Both are msgpack. The messages and commands of the links inside are those of ``stoker.actors.messages``;
weights go beside a ``Delivery``, because Ray keeps one copy of them for all hosts of a node.
"""

from __future__ import annotations

import msgspec

from stoker.actors.worker import Assignment
from stoker.distributed.versions import Versions


class _Parcel(msgspec.Struct, frozen=True, array_like=True):
    """Something sent as an array of its fields."""


class Hello(_Parcel, frozen=True):
    """What a host says of itself before it gets any link.

    Attributes:
        versions: of what it runs on.
        node_id: Ray's identifier of its node.
        node: the name of its node.
        pid: of its process.
        played_path: the file with its counts of played steps.
        output_path: the file with what it prints; empty if unknown.
    """

    versions: Versions
    node_id: str
    node: str
    pid: int
    played_path: str
    output_path: str


class Opening(_Parcel, frozen=True):
    """Starts a link.

    Attributes:
        link: its number within the host's incarnation.
        assignment: what it plays.
        backend: the kind of event loop, by anyio's name.
        load: the pickled factory and policy, made by the training.
    """

    link: int
    assignment: Assignment
    backend: str
    load: bytes


class Delivery(_Parcel, frozen=True):
    """Commands for links, carried out in the order of the fields.

    Attributes:
        opened: links that start.
        updated: links that get the newest weights, which came with this delivery or with an earlier one.
        credits: steps that links may do in addition, by link.
        stopped: links that close their environments and end.
        abandoned: links whose environments do not return; their threads are left behind.
    """

    opened: tuple[Opening, ...] = ()
    updated: tuple[int, ...] = ()
    credits: dict[int, int] = {}
    stopped: tuple[int, ...] = ()
    abandoned: tuple[int, ...] = ()


class Ended(_Parcel, frozen=True):
    """A link has ended.

    Attributes:
        link: its number.
        why: the reason in words, if it is known.
        unsent_steps: steps that it played and never sent, because it was abandoned.
    """

    link: int
    why: str = ""
    unsent_steps: int = 0


class Batch(_Parcel, frozen=True):
    """What the links of a host have sent since its last batch.

    Attributes:
        number: 0, 1, 2, ... within one incarnation of the host.
        messages: each with the number of its link, in order for each link.
        ended: links that have ended; their messages are in this batch or in an earlier one.
    """

    number: int
    messages: tuple[tuple[int, bytes], ...] = ()
    ended: tuple[Ended, ...] = ()
