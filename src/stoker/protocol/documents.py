"""The documents of the API, as they are served: JSON files beside this module.

``/v1/schema.json``: JSON Schemas of all messages. ``/openapi.json``: OpenAPI 3.1 of what goes over HTTP.
``/asyncapi.json``: AsyncAPI 3.0 of the stream. ``make documents`` writes them anew from the messages.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

DOCUMENTS: Final = {
    "schema": "/v1/schema.json",
    "openapi": "/openapi.json",
    "asyncapi": "/asyncapi.json",
}
"""The address of each document."""


def document(name: str) -> bytes:
    """A document as it is served."""
    return resources.files("stoker.protocol").joinpath(f"{name}.json").read_bytes()
