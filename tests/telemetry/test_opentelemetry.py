"""Spans of a training in a program that collects them, and nothing at all in one that does not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import launching
from stoker import TrainingSession
from stoker.telemetry import Spans, span_of, spans_here, traced
from stoker.testing import FakeAgent


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    program = Path(__file__).with_name("traced_program.py")
    root = tmp_path_factory.mktemp("traced")
    done = launching.run(
        [sys.executable, str(program), str(root)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def named(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [span for span in found["spans"] if span["name"] == name]


def of_the_run(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [span for span in named(found, name) if span["attributes"].get("rl.run.id") == found["run"]]


def test_each_part_of_a_training_is_traced_under_the_span_that_opened_it(found: dict[str, Any]) -> None:
    for name in ("rl.sample", "rl.train", "rl.sync", "stoker.commit", "stoker.checkpoint"):
        spans = of_the_run(found, name)
        assert spans, name
        for span in spans:
            assert span["trace"] == found["program"]
            assert span["attributes"]["rl.algorithm"] == "FakeAgent"


def test_frequent_calls_are_counted_on_the_spans_of_some(found: dict[str, Any]) -> None:
    spans = of_the_run(found, "rl.sample")
    assert sum(span["attributes"]["stoker.calls"] for span in spans) <= found["passes"]
    assert len(spans) < found["passes"] >= 150


def test_a_request_continues_the_trace_that_it_names(found: dict[str, Any]) -> None:
    continued, anew = named(found, "/v1/step")
    assert continued["trace"] == "0af7651916cd43dd8448eb211c80319c"
    assert continued["parent"] == "b7ad6b7169203331"
    assert continued["attributes"]["http.route"] == "/v1/step"
    assert anew["parent"] is None, "a traceparent that is not valid"


def test_messages_of_a_websocket_continue_the_trace_of_its_handshake(found: dict[str, Any]) -> None:
    spans = named(found, "/v1/stream")
    assert spans
    assert {(span["trace"], span["parent"]) for span in spans} == {
        ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    }
    assert 1 <= sum(span["attributes"]["stoker.calls"] for span in spans) <= 3


def test_a_span_notes_the_error_that_leaves_it(found: dict[str, Any]) -> None:
    [span] = named(found, "fails")
    assert span["events"] == ["exception"]


@pytest.mark.anyio
async def test_without_a_provider_functions_stay_as_they_are() -> None:
    assert spans_here() is None
    assert traced(None, "rl.sample", len) is len
    with span_of(None, "stoker.commit", {}) as span:
        assert span is None
    async with TrainingSession(FakeAgent()) as session:
        parts = session.engine.parts
        assert parts.spans is None
        assert parts.inference._act == session.core.learner.policies.act


def test_at_most_fifty_spans_per_second_are_made_of_one_function() -> None:
    class Tracer:
        def start_as_current_span(self, name: str, **options: Any) -> Any:
            made.append(options["attributes"]["stoker.calls"])
            return span_of(None, name, {})

    made: list[int] = []
    call = Spans(Tracer(), None, {}).traced("rl.sample", abs)
    assert [call(-k) for k in range(1000)] == list(range(1000))
    assert made[0] == 1
    assert len(made) < 500
    assert sum(made) <= 1000
