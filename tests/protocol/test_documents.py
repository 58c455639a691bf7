"""The documents of the API: they are what the structs say, valid, and complete."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import jsonschema
import msgspec
import pytest
from docs.documents.__main__ import generated

from stoker.protocol import ProtocolError, decode_step
from stoker.protocol.documents import DOCUMENTS, document
from stoker.protocol.problems import KINDS, Kind

ENDPOINTS = {
    "POST /v1/step",
    "POST /v1/episodes",
    "GET /v1/actors/{actor}",
    "DELETE /v1/actors/{actor}",
    "GET /v1/spec",
    "GET /v1/policy",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    *(f"GET {address}" for address in DOCUMENTS.values()),
}
STREAM_ONLY = {"bad-hello", "hello-timeout", "spaces-differ", "credit-exceeded", "too-many-connections"}


def loaded(name: str) -> dict[str, Any]:
    return json.loads(document(name))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_what_the_structs_say(name: str) -> None:
    assert document(name) == generated(name), "the messages have changed: `make documents` writes them anew"


def values_in(value: Any) -> Iterator[Any]:
    yield value
    parts: Any = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from values_in(part)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reference_leads_somewhere(name: str) -> None:
    whole = loaded(name)
    found = {value["$ref"] for value in values_in(whole) if isinstance(value, dict) and "$ref" in value}
    assert found
    for reference in found:
        place = whole
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert isinstance(place, dict)


def test_the_schemas_are_json_schemas_that_describe_everything() -> None:
    schema = loaded("schema")
    jsonschema.Draft202012Validator.check_schema(schema)
    for name, struct in schema["$defs"].items():
        assert struct["description"], name
        for field, each in struct["properties"].items():
            if field not in ("type", "status", "hello", "welcome", "error"):
                assert each.get("description"), f"{name}.{field}"


def test_all_endpoints_and_problems_are_described() -> None:
    openapi = loaded("openapi")
    methods = ("get", "post", "delete")
    paths = openapi["paths"].items()
    assert {f"{m.upper()} {path}" for path, each in paths for m in methods if m in each} == ENDPOINTS
    assert tuple(KINDS) == get_args(Kind)
    operations = [each[m] for _, each in paths for m in methods if m in each]
    described: set[str] = set()
    for response in (each for operation in operations for each in operation["responses"].values()):
        described |= set(re.findall(r"`([a-z-]+)`: ", response["description"]))
    assert described == set(KINDS) - STREAM_ONLY
    for operation in operations:
        assert {"403", "405", "421", "500"} <= set(operation["responses"])
        is_open = operation.get("security") == [{}]
        assert ("401" in operation["responses"]) is not is_open
    assert len({operation["operationId"] for operation in operations}) == len(ENDPOINTS)
    stream = loaded("asyncapi")["channels"]["stream"]["description"]
    for kind, each in KINDS.items():
        assert each.close is None or f"{int(each.close)} (" in stream, kind


def test_a_generator_of_hostile_requests_reads_the_document() -> None:
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_dict(loaded("openapi"))
    schema.validate()
    assert {operation.ok().label for operation in schema.get_all_operations()} == ENDPOINTS


STEP = {"actor": "npc-7", "seq": 2, "observation": [0.5], "reward": 1.0, "action": 1}


@pytest.mark.parametrize(
    "sent",
    [
        {"steps": [STEP], "ack": "durable", "id": 3},
        {"steps": [STEP | {"terminated": True, "extras": {"wins": 1}}]},
        {"steps": [{"actor": "a", "seq": 1, "start": True, "seed": 3, "observation": {"x": 1}}]},
        {"steps": []},
        {"steps": [STEP], "foo": 1},
        {"steps": [STEP | {"foo": 1}]},
        {"steps": [STEP | {"seq": 0}]},
        {"steps": [STEP | {"reward": 1e39}]},
        {"steps": [STEP | {"mode": "greedy"}]},
        {"steps": [{"actor": "a", "seq": 1}]},
    ],
)
def test_the_schema_takes_what_the_service_takes(sent: Any) -> None:
    schema = loaded("schema")
    validator = jsonschema.Draft202012Validator({"$defs": schema["$defs"], "$ref": "#/$defs/StepMessage"})
    try:
        decode_step(msgspec.json.encode(sent), "json")
    except ProtocolError:
        assert not validator.is_valid(sent)
    else:
        assert validator.is_valid(sent)
