"""Documents of the service's API, made from its messages: ``python -m docs.documents NAME`` prints one.

``make documents`` writes all of them into ``src/stoker/protocol``, from where they are served.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import msgspec
from docs.documents.asyncapi import asyncapi
from docs.documents.openapi import openapi
from docs.documents.schemas import MESSAGES, schemas_of_messages

from stoker.protocol.messages import PROTOCOL


def _schema() -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:stoker:protocol:{PROTOCOL}",
        "title": f"Messages of {PROTOCOL}",
        "anyOf": [{"$ref": f"#/$defs/{message.__name__}"} for message in MESSAGES],
        "$defs": schemas_of_messages("#/$defs/"),
    }


_MAKERS: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "schema": _schema,
    "openapi": openapi,
    "asyncapi": asyncapi,
}


def generated(name: str) -> bytes:
    """A document made from the structs, as the one that is served must be."""
    return msgspec.json.format(msgspec.json.encode(_MAKERS[name]()), indent=2) + b"\n"


if __name__ == "__main__":
    sys.stdout.buffer.write(generated(sys.argv[1]))
