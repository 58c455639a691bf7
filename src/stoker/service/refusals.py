"""What a client gets for an error of the service, and for one of its own."""

from __future__ import annotations

import logging
import math

import msgspec

from stoker.errors import ActorConflict, InvalidExperience, SessionClosed, SessionFailed
from stoker.protocol import ProtocolError
from stoker.service.asgi import Headers

_logger = logging.getLogger("stoker.service")

_PROBLEM = (b"content-type", b"application/problem+json")


def refusal_of(error: Exception) -> ProtocolError:
    """The problem that an error is; one that nobody expects is logged, because no client can do anything."""
    match error:
        case ProtocolError():
            return error
        case SessionFailed():
            return ProtocolError("training-failed", str(error))
        case SessionClosed():
            return ProtocolError(
                "going-down", "the service is ending; connect again in a moment", retry_after=1
            )
        case InvalidExperience():
            return ProtocolError("invalid", str(error))
        case ActorConflict():
            return ProtocolError("busy", str(error), retry_after=1)
        case _:
            _logger.error("a request failed: %s: %s", type(error).__name__, error, exc_info=error)
            return ProtocolError("internal", "the service failed on this request; its log says why")


def problem_json(refusal: ProtocolError) -> bytes:
    """The body of a refusal."""
    return msgspec.json.encode(refusal.problem())


def problem_headers(refusal: ProtocolError, body: bytes) -> Headers:
    """The headers of a refusal over HTTP."""
    headers = [_PROBLEM, (b"content-length", b"%d" % len(body))]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(refusal.retry_after))))
    if refusal.kind == "unauthenticated":
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.kind in ("too-large", "slow-request"):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    return headers
