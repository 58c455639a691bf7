"""JSON Schemas of the messages, with the docstrings of their structs as descriptions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec

from stoker.protocol.greeting import HelloFrame, Spec, WelcomeFrame
from stoker.protocol.messages import (
    ActorState,
    EpisodeAnswer,
    EpisodeMessage,
    Liveness,
    PongFrame,
    Readiness,
    StepAnswer,
    StepMessage,
    StreamMessage,
)
from stoker.protocol.problems import KINDS, PROBLEM_TYPE, ErrorFrame, Problem

MESSAGES: Final[tuple[type[msgspec.Struct], ...]] = (
    StepMessage,
    StepAnswer,
    EpisodeMessage,
    EpisodeAnswer,
    ActorState,
    Spec,
    HelloFrame,
    WelcomeFrame,
    StreamMessage,
    PongFrame,
    ErrorFrame,
    Problem,
    Liveness,
    Readiness,
)
"""The messages that are sent by themselves."""


def schemas_of_messages(prefix: str, *, discriminators: bool = False) -> dict[str, Any]:
    """The schema of each message and of each struct in one, by name.

    Args:
        prefix: where they stand in the document, such as ``#/components/schemas/``.
        discriminators: whether a union says which field tells its members apart, as only OpenAPI knows it.
    """
    _, schemas = msgspec.json.schema_components(MESSAGES, ref_template=prefix + "{name}")
    for struct in _structs(msgspec.Struct):
        if struct.__name__ in schemas:
            _describe(schemas[struct.__name__], struct)
    schemas["Problem"]["properties"]["type"]["enum"] = [PROBLEM_TYPE + kind for kind in KINDS]
    if not discriminators:
        _drop(schemas, "discriminator")
    return schemas


def _drop(schema: Any, keyword: str) -> None:
    """Remove a keyword of schemas, however deep it is."""
    if isinstance(schema, dict):
        members = cast("dict[str, Any]", schema)
        members.pop(keyword, None)
        for each in members.values():
            _drop(each, keyword)
    elif isinstance(schema, list):
        for each in cast("list[Any]", schema):
            _drop(each, keyword)


def _structs(base: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for struct in base.__subclasses__():
        if struct.__module__.startswith("stoker.protocol."):
            yield struct
            yield from _structs(struct)


def _describe(schema: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    """Put the docstrings of a struct into its schema: the text there, and a line for each attribute."""
    lines: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        text, _, attributes = inspect.cleandoc(base.__doc__ or "").partition("\n\nAttributes:\n")
        schema["description"] = _plain(text)
        lines |= re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    for name, field in schema["properties"].items():
        if line := lines.get(name):
            described = {"allOf": [field]} if "$ref" in field else field
            schema["properties"][name] = {"description": _plain(line), **described}


def _plain(text: str) -> str:
    """A docstring's text as one paragraph of Markdown."""
    text = " ".join(text.replace("``", "`").split())
    return text[:1].upper() + text[1:]
