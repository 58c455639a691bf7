"""``GET /metrics`` of a real service: its requests, its actors, and the counters of its run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import Service, first, following, served

from stoker.runs.metadata import read_metadata

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(service: Service) -> Series:
    response = service.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(response.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(series: Series, name: str, /, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


def test_what_clients_did_is_counted_and_no_series_names_an_actor(tmp_path: Path) -> None:
    run = tmp_path / "counted" / "v1"
    with served(run=run) as service:
        names = [f"npc-{k}" for k in range(300)]
        service.post({"steps": [first(name) for name in names]})
        steps = [following(2, name) for name in names]
        assert service.post({"steps": steps, "ack": "durable"}).status_code == 200
        assert service.post({"steps": steps, "ack": "durable"}).status_code == 200
        assert service.post({"steps": [following(9, "npc-0")]}).status_code == 409
        assert service.post({"steps": [{}]}).status_code == 422
        series = scraped(service)
    assert value(series, "stoker_service_requests_total", route="/v1/step", code="200") == 3
    assert value(series, "stoker_service_requests_total", route="/v1/step", code="409") == 1
    assert value(series, "stoker_service_requests_total", route="/v1/step", code="422") == 1
    assert value(series, "stoker_service_duplicates_total") == 300
    assert value(series, "stoker_refused_total", reason="gap") == 1
    assert value(series, "stoker_service_actors", state="known") == 300
    assert value(series, "stoker_env_steps_total") == 300
    assert len(series) < 200
    assert not any("npc" in label for _, labels in series for _, label in labels)
    [directory] = run.iterdir()
    assert read_metadata(directory).total_steps == 300


def test_without_the_package_the_answer_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with served() as service:
        response = service.get("/metrics")
        assert response.status_code == 404
        assert "pip install 'stoker[prometheus]'" in response.json()["detail"]
