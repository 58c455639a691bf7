"""OpenTelemetry spans of a training and of requests, where the program has set a tracer provider.

    rl.sample, rl.train, rl.sync         a forward pass, an optimization step, a publication of the weights
    stoker.commit, stoker.checkpoint     rows and journal made durable, a checkpoint written

Without a provider a session makes no objects and no calls for this: functions are wrapped when it is opened,
or not at all. The package ``opentelemetry-api`` is looked for, never imported first: who sets a provider has
imported it. The names follow OpenTelemetry's proposal for reinforcement learning.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter_ns
from typing import Any, ParamSpec, TypeVar

_INTERVAL_NS = 20_000_000
"""Of calls that come more often than this, one is traced and the others are counted on its span: a thousand
spans per second would cost more than the calls, and show no more."""

P = ParamSpec("P")
T = TypeVar("T")


class Spans:
    """Makes spans, as children of the span in which the session was opened if there was one.

    Args:
        tracer: of OpenTelemetry.
        context: what the spans belong to.
        attributes: of every span.
    """

    def __init__(self, tracer: Any, context: Any, attributes: Mapping[str, Any]) -> None:
        self._tracer = tracer
        self._context = context
        self._attributes = attributes

    def span(self, name: str, attributes: Mapping[str, Any]) -> contextlib.AbstractContextManager[Any]:
        """A span around a block; it notes an exception that leaves the block."""
        return self._tracer.start_as_current_span(
            name, context=self._context, attributes={**self._attributes, **attributes}
        )

    def traced(self, name: str, function: Callable[P, T]) -> Callable[P, T]:
        """The function with a span around a call, at most one every 20 ms; ``stoker.calls`` counts all.

        For calls from one thread at a time.
        """
        traced_at, n_calls = -_INTERVAL_NS, 0

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            nonlocal traced_at, n_calls
            n_calls += 1
            now = perf_counter_ns()
            if now - traced_at < _INTERVAL_NS:
                return function(*args, **kwargs)
            attributes, traced_at, n_calls = {"stoker.calls": n_calls}, now, 0
            with self.span(name, attributes):
                return function(*args, **kwargs)

        return call

    def request(
        self, route: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> contextlib.AbstractContextManager[Any]:
        """A span around the answer to a request that brings a ``traceparent``; without one there is none.

        A ``traceparent`` that is not valid begins a new trace, as the W3C's Trace Context says.

        Args:
            route: the template of the path, such as ``/v1/actors/{actor}``.
            headers: as in an ASGI scope, with their names in lower case.
        """
        context = _context_of(headers)
        return contextlib.nullcontext() if context is None else self._served(route, context, {})

    def messages(
        self, route: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> Callable[[], contextlib.AbstractContextManager[Any]] | None:
        """What gives a span around each message of a connection that brought a ``traceparent``.

        Of messages at most one every 20 ms, as of calls. None: the connection brought none. The arguments are
        those of ``request``.
        """
        context = _context_of(headers)
        if context is None:
            return None
        traced_at, n_messages = -_INTERVAL_NS, 0

        def span() -> contextlib.AbstractContextManager[Any]:
            nonlocal traced_at, n_messages
            n_messages += 1
            now = perf_counter_ns()
            if now - traced_at < _INTERVAL_NS:
                return contextlib.nullcontext()
            attributes, traced_at, n_messages = {"stoker.calls": n_messages}, now, 0
            return self._served(route, context, attributes)

        return span

    def _served(
        self, route: str, context: Any, attributes: Mapping[str, Any]
    ) -> contextlib.AbstractContextManager[Any]:
        from opentelemetry.trace import SpanKind

        return self._tracer.start_as_current_span(
            route,
            context=context,
            kind=SpanKind.SERVER,
            attributes={**self._attributes, "http.route": route, **attributes},
        )


def _context_of(headers: Iterable[tuple[bytes, bytes]]) -> Any:
    """The trace that headers name; None: they name none."""
    found = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in headers
        if name in (b"traceparent", b"tracestate")
    }
    if "traceparent" not in found:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(found)


def spans_here(attributes: Mapping[str, Any] = {}) -> Spans | None:
    """What makes spans for the tracer provider of this program; None: it has set none so far."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        return None
    from opentelemetry.context import get_current

    return Spans(provider.get_tracer("stoker"), get_current(), attributes)


def traced(spans: Spans | None, name: str, function: Callable[P, T]) -> Callable[P, T]:
    """The function as ``Spans.traced`` makes it, or as it is if nobody collects spans."""
    return function if spans is None else spans.traced(name, function)


def span_of(
    spans: Spans | None, name: str, attributes: Mapping[str, Any]
) -> contextlib.AbstractContextManager[Any]:
    """A span around a block that is no hot path, if anybody collects spans."""
    return contextlib.nullcontext() if spans is None else spans.span(name, attributes)
