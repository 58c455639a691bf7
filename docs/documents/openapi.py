"""OpenAPI 3.1 of what a service answers over HTTP."""

from __future__ import annotations

from typing import Any, Final

from docs.documents.schemas import schemas_of_messages

from stoker.protocol.problems import KINDS, Kind

_PREFIX: Final = "#/components/schemas/"
_ALWAYS: Final[tuple[Kind, ...]] = ("wrong-origin", "wrong-host", "method-not-allowed", "internal")
_CLOSED: Final[tuple[Kind, ...]] = ("unauthenticated", "forbidden")
_SESSION: Final[tuple[Kind, ...]] = ("not-ready", "training-failed", "going-down")
_BODY: Final[tuple[Kind, ...]] = (
    "malformed", "too-deep", "slow-request", "too-large", "unsupported-media-type", "invalid",
    "rate-exceeded",
)  # fmt: skip
_RECORDS: Final[tuple[Kind, ...]] = (
    "gap", "no-episode", "held", "fenced", "different", "off-policy", "too-many-actors", "busy",
    "training-done",
)  # fmt: skip
_INTRODUCTION: Final = (
    "Remote actors in any language play, and one learner trains: each step is one numbered, self-contained "
    "record, taken exactly once. What goes over the WebSocket `/v1/stream` is in `/asyncapi.json`. A request "
    "that is refused changes nothing: send the same bytes again after a cut connection, a time-out, or a "
    "problem with `retry_after`."
)


def openapi() -> dict[str, Any]:
    """The document, in builtins."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "stoker", "version": "1", "description": _INTRODUCTION},
        "servers": [{"url": "/", "description": "The service, or where an application mounts it."}],
        "security": [{"token": []}, {}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": _TOKEN}},
            "schemas": schemas_of_messages(_PREFIX, discriminators=True),
        },
    }


_TAGS: Final = {
    "actors": "Play: send steps, get actions.",
    "policy": "Choose actions in the client.",
    "service": "How the service is.",
    "documents": "The documents of this API.",
}
_TOKEN: Final = "Needed if the service was started with a token file."  # noqa: S105 - says what it is for


def _paths() -> dict[str, Any]:
    actor = {
        "name": "actor",
        "in": "path",
        "required": True,
        "description": "Percent-encoded.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    }
    taking = (*_CLOSED, *_BODY, *_RECORDS, *_SESSION)
    of_actor = (*_CLOSED, "not-found", "unknown-actor", "busy", *_SESSION)
    return {
        "/v1/step": {
            "post": _operation("sendSteps", body="StepMessage", answer="StepAnswer", problems=taking)
        },
        "/v1/episodes": {
            "post": _operation("sendEpisode", body="EpisodeMessage", answer="EpisodeAnswer", problems=taking)
        },
        "/v1/actors/{actor}": {
            "parameters": [actor],
            "get": _operation("getActor", answer="ActorState", problems=of_actor),
            "delete": _operation("endActor", problems=(*of_actor, "held", "fenced")),
        },
        "/v1/spec": {"get": _operation("getSpec", answer="Spec", problems=_CLOSED)},
        "/v1/policy": {"get": _policy()},
        "/healthz": {"get": _operation("isAlive", answer="Liveness", problems=("training-failed",))},
        "/readyz": {"get": _operation("isReady", answer="Readiness", problems=_SESSION)},
        "/metrics": {"get": _metrics()},
        "/v1/schema.json": {"get": _document("getSchema")},
        "/openapi.json": {"get": _document("getOpenapi")},
        "/asyncapi.json": {"get": _document("getAsyncapi")},
    }


_ABOUT: Final = {
    "sendSteps": ("actors", "Take records of one or many actors, and answer the next action of each."),
    "sendEpisode": ("actors", "Take a whole episode that was played elsewhere, once for each id."),
    "getActor": ("actors", "Where the stream of an actor stands."),
    "endActor": ("actors", "End the stream of an actor: its episode is abandoned, its number is forgotten."),
    "getPolicy": ("policy", "The newest policy as one file."),
    "getSpec": ("service", "What a client must know: spaces, limits, and how the training stands."),
    "isAlive": ("service", "Whether the process works."),
    "isReady": ("service", "Whether steps are taken now; else the detail says what they wait for."),
    "getMetrics": ("service", "Metrics for Prometheus."),
    "getSchema": ("documents", "JSON Schemas of all messages."),
    "getOpenapi": ("documents", "This document."),
    "getAsyncapi": ("documents", "AsyncAPI 3.0 of the stream."),
}
"""The tag of each operation, and a sentence about it."""

_OPEN: Final = {"isAlive", "isReady", "getSchema", "getOpenapi", "getAsyncapi"}
"""The operations that need no token."""


def _operation(
    name: str, *, body: str | None = None, answer: str | None = None, problems: tuple[Kind, ...] = ()
) -> dict[str, Any]:
    """One operation.

    Args:
        name: its id.
        body: the struct of its body. Then body and answer may be MessagePack, too.
        answer: the struct of its answer; None: the answer has no body.
        problems: the kinds that it may answer, besides those that all do.
    """
    tag, summary = _ABOUT[name]
    operation: dict[str, Any] = {"operationId": name, "tags": [tag], "summary": summary}
    if name in _OPEN:
        operation["security"] = [{}]
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _content(body, both=True)}
    if answer is None:
        responses: dict[str, Any] = {"204": {"description": "Done."}}
    else:
        responses = {"200": {"description": "Done.", "content": _content(answer, both=body is not None)}}
    return operation | {"responses": responses | _problems(problems)}


def _content(struct: str, *, both: bool) -> dict[str, Any]:
    types = ("application/json", "application/msgpack") if both else ("application/json",)
    return {each: {"schema": {"$ref": _PREFIX + struct}} for each in types}


def _problems(kinds: tuple[Kind, ...]) -> dict[str, Any]:
    """The responses of all of these kinds, by status."""
    found: dict[str, Any] = {}
    for kind, each in KINDS.items():
        if kind in kinds or kind in _ALWAYS:
            text = f"`{kind}`: {each.title}."
            response = found.setdefault(str(each.status), {"description": ""})
            response["description"] = f"{response['description']} {text}".strip()
            response["content"] = {"application/problem+json": {"schema": {"$ref": _PREFIX + "Problem"}}}
            if each.retry:
                seconds = {"type": "integer", "minimum": 0}
                about = "Seconds after which to send the same request again."
                response["headers"] = {"Retry-After": {"description": about, "schema": seconds}}
    return found


def _policy() -> dict[str, Any]:
    operation = _operation("getPolicy", problems=(*_CLOSED, "no-policy", "invalid", *_SESSION))
    operation["parameters"] = [
        _query("format", "Of the file.", {"enum": ["onnx", "pt2", "numpy"], "default": "onnx"}),
        _query(
            "after",
            "Wait for a policy whose version is above this one.",
            {"type": "integer", "minimum": -1, "maximum": 2**53 - 1, "default": -1},
        ),
        _query(
            "wait",
            "Seconds to wait at most, within the limit of the service.",
            {"type": "number", "minimum": 0, "maximum": 3600},
        ),
    ]
    headers = {
        "ETag": {"description": "The SHA-256 of the file.", "schema": {"type": "string"}},
        "stoker-policy-version": {"description": "Of the policy.", "schema": {"type": "integer"}},
    }
    content: dict[str, Any] = {"application/octet-stream": {}}
    known = "The client has this file: its digest is in `If-None-Match`."
    operation["responses"] |= {
        "200": {"description": "The file.", "headers": headers, "content": content},
        "204": {"description": "No newer policy came in time."},
        "304": {"description": known, "headers": headers},
    }
    return operation


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _metrics() -> dict[str, Any]:
    operation = _operation("getMetrics", answer="Liveness", problems=(*_CLOSED, "not-found"))
    types = ("text/plain", "application/openmetrics-text")
    content = {each: {"schema": {"type": "string"}} for each in types}
    operation["responses"]["200"] = {"description": "The metrics.", "content": content}
    return operation


def _document(name: str) -> dict[str, Any]:
    operation = _operation(name, answer="Liveness")
    content = {"application/json": {"schema": {"type": "object"}}}
    operation["responses"]["200"] = {"description": "The document.", "content": content}
    return operation
