"""A program that collects spans: it trains, answers a request, and prints what came of it."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from gymnasium.spaces import Box, Discrete
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stoker import TrainingRun, TrainingSession, run_actors
from stoker.service import make_app, service_lifespan
from stoker.telemetry import spans_here
from stoker.testing import ChainEnv, FakeAgent

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def stream(agent: FakeAgent) -> None:
    """Serve one connection whose handshake brings a trace: three messages, of which the last is refused."""
    app = make_app(
        lambda: TrainingSession(agent, numbered=True), spaces=(Box(-1, 1, (3,), np.float32), Discrete(2))
    )
    step = {"actor": "npc", "seq": 1, "start": True, "observation": [0, 0, 0]}
    texts = [{"hello": {}}, {"steps": [step]}, {"steps": [step]}, {"steps": [{**step, "seq": 9}]}]
    received: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        *({"type": "websocket.receive", "text": json.dumps(text)} for text in texts),
        {"type": "websocket.disconnect", "code": 1000},
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return received.pop(0)

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    headers = [(b"host", b"127.0.0.1"), (b"traceparent", PARENT.encode())]
    async with service_lifespan(app):
        await app({"type": "websocket", "path": "/v1/stream", "headers": headers}, receive, send)
    assert ["error" in json.loads(event["text"]) for event in sent[1:]] == [False, False, False, True]


async def main(root: Path) -> dict[str, Any]:
    assert spans_here() is None, "no provider is set yet"
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    run = await TrainingRun.create("traced", root=root)
    with trace.get_tracer("program").start_as_current_span("program") as program:
        async with TrainingSession(FakeAgent(), run, max_steps=300) as session:
            await run_actors(session, ChainEnv, 2, seed=0)
        passes = session.n_forward_passes
    spans = spans_here()
    assert spans is not None
    for header in ((b"traceparent", PARENT.encode()), (b"accept", b"*/*"), (b"traceparent", b"00-bad")):
        with spans.request("/v1/step", [header]):
            pass
    await stream(FakeAgent())
    with suppress(KeyError), spans.span("fails", {}):
        {}["missing"]
    found = exporter.get_finished_spans()
    return {
        "program": f"{program.get_span_context().trace_id:032x}",
        "passes": passes,
        "run": "/".join(Path(run.directory).parts[-3:]),
        "spans": [
            {
                "name": span.name,
                "trace": f"{span.context.trace_id:032x}",
                "parent": span.parent and f"{span.parent.span_id:016x}",
                "attributes": dict(span.attributes or {}),
                "events": [event.name for event in span.events],
            }
            for span in found
        ],
    }


print(json.dumps(anyio.run(main, Path(sys.argv[1]))))
