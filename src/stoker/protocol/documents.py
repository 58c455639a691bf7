"""The documents of the API, generated from the structs of its messages and served as they are.

``/v1/schema.json``: JSON Schemas of all messages. ``/openapi.json``: OpenAPI 3.1 of what goes over HTTP.
``/asyncapi.json``: AsyncAPI 3.0 of the stream. They lie beside this module; ``make documents`` writes them
anew, by ``python -m stoker.protocol.documents NAME``, which prints one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import resources
from typing import Any, Final

import msgspec

from stoker.protocol.asyncapi import asyncapi
from stoker.protocol.messages import PROTOCOL
from stoker.protocol.openapi import openapi
from stoker.protocol.schemas import MESSAGES, schemas_of_messages


def _schema() -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:stoker:protocol:{PROTOCOL}",
        "title": f"Messages of {PROTOCOL}",
        "anyOf": [{"$ref": f"#/$defs/{message.__name__}"} for message in MESSAGES],
        "$defs": schemas_of_messages("#/$defs/"),
    }


DOCUMENTS: Final[dict[str, tuple[str, Callable[[], dict[str, Any]]]]] = {
    "schema": ("/v1/schema.json", _schema),
    "openapi": ("/openapi.json", openapi),
    "asyncapi": ("/asyncapi.json", asyncapi),
}
"""The address of each document, and the function that makes it."""


def document(name: str) -> bytes:
    """A document as it is served."""
    return resources.files("stoker.protocol").joinpath(f"{name}.json").read_bytes()


def generated(name: str) -> bytes:
    """A document made from the structs, as ``document`` must be."""
    return msgspec.json.format(msgspec.json.encode(DOCUMENTS[name][1]()), indent=2) + b"\n"


if __name__ == "__main__":
    sys.stdout.buffer.write(generated(sys.argv[1]))
