"""Scrapes as Prometheus sees them: parsed by the parser of its own client library."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from stoker.telemetry.prometheus import Exposition

Scrape = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
"""Each series, by its name and labels, with its value."""


def parsed(text: str) -> Scrape:
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, key
            found[key] = sample.value
    return found


def scraped(expose: Exposition) -> Scrape:
    body, _ = expose()
    return parsed(body.decode())


def value(scrape: Scrape, series: str, /, **labels: str) -> float:
    return scrape[series, frozenset(labels.items())]


def counters_that_fell(earlier: Scrape, later: Scrape) -> list[str]:
    """Counters and parts of histograms with a lower value than before, or none."""
    suffixes = ("_total", "_count", "_sum", "_bucket")
    return [
        name
        for (name, labels), before in earlier.items()
        if name.endswith(suffixes) and later.get((name, labels), -1.0) < before
    ]
