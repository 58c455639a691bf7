"""What a service refuses, and how it says so: problems of RFC 9457, and the close codes of a stream.

A ``ProtocolError`` is raised where the fault is found. Over HTTP it becomes an answer of type
``application/problem+json``; on a stream it becomes an error frame, and the connection is closed only if its
kind has a close code. A refused message changes nothing: no actor loses its stream.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType

from stoker.errors import StokerError
from stoker.plain import encodable
from stoker.protocol.messages import ActorAnswer, MessageId

PROBLEM_TYPE: Final = "urn:stoker:problem:"
"""What the ``type`` of each problem begins with; its kind follows."""


class CloseCode(enum.IntEnum):
    """Why the server closes a stream; 4000 to 4999 are the protocol's own."""

    NORMAL = 1000
    GOING_AWAY = 1001
    TOO_LARGE = 1009
    BAD_HELLO = 4400
    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    HELLO_TIMEOUT = 4408
    FENCED = 4409
    SPACES_DIFFER = 4422
    TOO_MANY = 4429
    UNAVAILABLE = 4503


Kind = Literal[
    "malformed",
    "too-deep",
    "bad-hello",
    "unauthenticated",
    "forbidden",
    "wrong-origin",
    "not-found",
    "unknown-actor",
    "no-policy",
    "method-not-allowed",
    "slow-request",
    "hello-timeout",
    "gap",
    "no-episode",
    "held",
    "fenced",
    "different",
    "too-large",
    "unsupported-media-type",
    "wrong-host",
    "invalid",
    "off-policy",
    "spaces-differ",
    "credit-exceeded",
    "rate-exceeded",
    "too-many-actors",
    "too-many-connections",
    "busy",
    "internal",
    "not-ready",
    "training-done",
    "training-failed",
    "going-down",
]
"""What went wrong, in one word that clients can compare."""


class ProblemKind(NamedTuple):
    """A kind of problem: what is the same for each of its cases.

    Attributes:
        status: of HTTP.
        title: one short sentence.
        close: the code with which a stream is closed; None: it stays open.
        retry: whether the same request may succeed later.
    """

    status: int
    title: str
    close: CloseCode | None = None
    retry: bool = False


KINDS: Final[Mapping[str, ProblemKind]] = {
    "malformed": ProblemKind(400, "The message cannot be decoded"),
    "too-deep": ProblemKind(400, "The message nests too deep"),
    "bad-hello": ProblemKind(400, "The first message of a stream must be a hello", CloseCode.BAD_HELLO),
    "unauthenticated": ProblemKind(401, "A valid token is needed", CloseCode.UNAUTHENTICATED),
    "forbidden": ProblemKind(403, "The token does not allow this"),
    "wrong-origin": ProblemKind(403, "Requests from this origin are refused", CloseCode.FORBIDDEN),
    "not-found": ProblemKind(404, "There is no such address"),
    "unknown-actor": ProblemKind(404, "The actor has no stream here"),
    "no-policy": ProblemKind(404, "There is no policy to download"),
    "method-not-allowed": ProblemKind(405, "The method is not allowed here"),
    "slow-request": ProblemKind(408, "The request took too long to arrive", retry=True),
    "hello-timeout": ProblemKind(408, "No hello arrived in time", CloseCode.HELLO_TIMEOUT, retry=True),
    "gap": ProblemKind(409, "Records are missing before this one"),
    "no-episode": ProblemKind(409, "The actor has no open episode"),
    "held": ProblemKind(409, "Another connection plays the actor", retry=True),
    "fenced": ProblemKind(409, "Another client has taken the actor over", CloseCode.FENCED),
    "different": ProblemKind(409, "The record was taken before with other values"),
    "too-large": ProblemKind(413, "The message is too large", CloseCode.TOO_LARGE),
    "unsupported-media-type": ProblemKind(415, "The body is not plain JSON or MessagePack"),
    "wrong-host": ProblemKind(421, "This server is not the named host", CloseCode.FORBIDDEN),
    "invalid": ProblemKind(422, "A value is not valid"),
    "off-policy": ProblemKind(422, "The agent learns only from actions that it chose"),
    "spaces-differ": ProblemKind(422, "The spaces are not those of the run", CloseCode.SPACES_DIFFER),
    "credit-exceeded": ProblemKind(429, "Too many records are unanswered", CloseCode.TOO_MANY, retry=True),
    "rate-exceeded": ProblemKind(429, "The token's rate is exceeded", retry=True),
    "too-many-actors": ProblemKind(429, "The service has no room for another actor", retry=True),
    "too-many-connections": ProblemKind(
        429, "The service has no room for another connection", CloseCode.TOO_MANY, retry=True
    ),
    "busy": ProblemKind(429, "The learner did not catch up in time", retry=True),
    "internal": ProblemKind(500, "The service failed"),
    "not-ready": ProblemKind(503, "The service is opening its run", CloseCode.UNAVAILABLE, retry=True),
    "training-done": ProblemKind(503, "The training is done"),
    "training-failed": ProblemKind(503, "The training has failed", CloseCode.UNAVAILABLE),
    "going-down": ProblemKind(503, "The service is going down", CloseCode.GOING_AWAY, retry=True),
}
"""Every kind of problem, in the order of their status."""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request was refused, as RFC 9457 describes it. Nothing of the request was taken.

    Attributes:
        type: the kind, as ``urn:stoker:problem:<kind>``.
        title: what went wrong in general; the same for each case of a kind.
        status: of HTTP.
        detail: what is wrong with this request, and what to do.
        path: the field that is wrong, such as ``steps[3].observation[2]``.
        actors: where the streams of the request stand: go on from ``next``.
        retry_after: seconds after which to send the same request again, where that makes sense.
        id: of the message, on a stream.
    """

    type: str
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    path: str | UnsetType = UNSET
    actors: dict[str, ActorAnswer] | UnsetType = UNSET
    retry_after: float | UnsetType = UNSET
    id: MessageId | UnsetType = UNSET

    @property
    def kind(self) -> str:
        """The last part of the type."""
        return self.type.rpartition(":")[2]


class ProtocolError(StokerError, ValueError):
    """A message that a service refuses as a whole; nothing of it was taken.

    Args:
        kind: one of ``KINDS``.
        detail: what is wrong, and what to do.
        path: the field that is wrong, such as ``steps[3].observation[2]``.
        actors: where the streams of the message stand.
        retry_after: seconds after which to send the same message again.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        path: str | None = None,
        actors: Mapping[str, ActorAnswer] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(kind, detail)
        self.kind: Kind = kind
        self.detail = detail
        self.path = path
        self.actors = actors
        self.retry_after = retry_after
        self.message_id: MessageId | UnsetType = UNSET
        """Of the message, if it has one and could be read."""

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return encodable(f"{KINDS[self.kind].title}: {where}{self.detail}")

    @property
    def status(self) -> int:
        """The status of HTTP."""
        return KINDS[self.kind].status

    @property
    def title(self) -> str:
        """What went wrong in general."""
        return KINDS[self.kind].title

    @property
    def close(self) -> CloseCode | None:
        """The code with which a stream is to be closed; None: it stays open."""
        return KINDS[self.kind].close

    def problem(self, message_id: MessageId | UnsetType = UNSET) -> Problem:
        """What the client gets, with this id, or its own; valid Unicode whatever the message held."""
        return Problem(
            PROBLEM_TYPE + self.kind,
            self.title,
            self.status,
            encodable(self.detail),
            UNSET if self.path is None else encodable(self.path),
            UNSET if self.actors is None else dict(self.actors),
            UNSET if self.retry_after is None else self.retry_after,
            self.message_id if message_id is UNSET else message_id,
        )

    @classmethod
    def from_problem(cls, problem: Problem) -> ProtocolError:
        """The error that a server's problem stands for; of an unknown kind, one of the same status."""
        kind: Any = problem.kind
        if kind not in KINDS:
            kind = next((name for name, each in KINDS.items() if each.status == problem.status), "internal")
        return cls(
            cast("Kind", kind),
            problem.detail,
            path=problem.path or None,
            actors=problem.actors or None,
            retry_after=problem.retry_after or None,
        )


class ErrorFrame(msgspec.Struct, frozen=True):
    """How a problem is sent on a stream."""

    error: Problem
