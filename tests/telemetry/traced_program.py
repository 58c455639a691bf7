"""A program that collects spans: it trains, answers a request, and prints what came of it."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stoker import TrainingRun, TrainingSession, run_actors
from stoker.telemetry import spans_here
from stoker.testing import ChainEnv, FakeAgent

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


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
