"""AsyncAPI 3.0 of the stream: the messages on the WebSocket ``/v1/stream``."""

from __future__ import annotations

from typing import Any, Final

from docs.documents.schemas import schemas_of_messages

from stoker.protocol.messages import PROTOCOL
from stoker.protocol.problems import KINDS, CloseCode

_MESSAGES: Final = {
    "hello": ("HelloFrame", "The first message of a client."),
    "welcome": ("WelcomeFrame", "The answer to a hello."),
    "steps": ("StreamMessage", "Records of actors, or a ping."),
    "answer": ("StepAnswer", "The answer to records; it has the id of their message."),
    "pong": ("PongFrame", "The answer to a ping."),
    "error": ("ErrorFrame", "Why a message was refused; it has the id of that message."),
}
_INTRODUCTION: Final = (
    "The WebSocket of the service; what goes over HTTP is in `/openapi.json`. A text frame is JSON, a binary "
    "frame is MessagePack, and an answer comes in the form of its message. Messages may be sent before the "
    "ones ahead of them are answered, within the credit of the welcome; answers may overtake each other."
)
_TOKEN: Final = (
    f"In the header `Authorization: Bearer`, as a subprotocol `token.<base64url of the token>` beside "
    f"`{PROTOCOL}`, or in the hello."
)


def asyncapi() -> dict[str, Any]:
    """The document, in builtins."""
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "stoker", "version": "1", "description": _INTRODUCTION},
        "defaultContentType": "application/json",
        "servers": {
            "service": {
                "host": "localhost:8000",
                "protocol": "ws",
                "description": "The service; `wss` where it has a certificate.",
                "security": [{"$ref": "#/components/securitySchemes/token"}],
            }
        },
        "channels": {
            "stream": {
                "address": "/v1/stream",
                "title": "Steps and actions",
                "description": f"With the subprotocol `{PROTOCOL}`. It is closed with {_close_codes()}.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _MESSAGES},
                "bindings": {"ws": {"method": "GET"}},
            }
        },
        "operations": {
            "greet": _operation("A client says who it is.", "hello", "welcome", "error"),
            "step": _operation("A client sends records, or a ping.", "steps", "answer", "pong", "error"),
        },
        "components": {
            "messages": {name: _message(name, *each) for name, each in _MESSAGES.items()},
            "schemas": schemas_of_messages("#/components/schemas/"),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": _TOKEN}},
        },
    }


def _operation(summary: str, message: str, *replies: str) -> dict[str, Any]:
    def named(name: str) -> dict[str, str]:
        return {"$ref": f"#/channels/stream/messages/{name}"}

    channel = {"$ref": "#/channels/stream"}
    return {
        "action": "receive",
        "summary": summary,
        "channel": channel,
        "messages": [named(message)],
        "reply": {"channel": channel, "messages": [named(name) for name in replies]},
    }


def _message(name: str, struct: str, summary: str) -> dict[str, Any]:
    return {"name": name, "summary": summary, "payload": {"$ref": f"#/components/schemas/{struct}"}}


def _close_codes() -> str:
    kinds = {code: [kind for kind, each in KINDS.items() if each.close == code] for code in CloseCode}
    named = (f"{int(code)} ({', '.join(kinds[code])})" for code in CloseCode if kinds[code])
    return ", ".join(named)
