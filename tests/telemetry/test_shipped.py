"""The Grafana board and the alert rules that are shipped name only series that a real scrape has."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from reported import status_of
from scraping import scraped

from stoker import DQN, DQNConfig, TrainingRun, TrainingSession, run_actors
from stoker.stats import EpisodeRecord
from stoker.telemetry import ServiceCounts
from stoker.telemetry.prometheus import Exposition
from stoker.testing import ChainEnv
from stoker.types import EpisodeStatus

SHIPPED = files("stoker.telemetry")
BOARD: dict[str, Any] = json.loads(SHIPPED.joinpath("grafana.json").read_text())
RULES: list[dict[str, Any]] = yaml.safe_load(SHIPPED.joinpath("alerts.yml").read_text())["groups"][0]["rules"]


def series_of(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The series that an expression names, and the labels that it asks for or groups by."""
    for name, selector in re.findall(r"(stoker_\w+)(?:\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", selector)) - {"job", "instance"}
    names = set(re.findall(r"stoker_\w+", expression))
    for grouped in re.findall(r"by \(([^)]*)\)", expression):
        for name in names:
            yield name, set(re.findall(r"\w+", grouped)) - {"job", "instance"}


def expressions() -> Iterator[str]:
    for rule in RULES:
        yield rule["expr"]
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) - {"instance"}
            yield f"sum by ({', '.join(sorted(shown))}) ({target['expr']})"
    for variable in BOARD["templating"]["list"]:
        yield variable["query"]


@pytest.fixture(scope="module")
def labels() -> dict[str, set[str]]:
    """The labels of each series in the last scrape of a training in a service."""

    counts = ServiceCounts(lambda: {"connected": 1})
    counts.requests["/v1/step", 200] += 1
    counts.swaps["taken"] += 1

    async def train(root: Path) -> dict[str, set[str]]:
        env = ChainEnv()
        config = DQNConfig(hidden_sizes=(8,), learning_starts=10, batch_size=4)
        agent = DQN(env.observation_space, env.action_space, config, seed=0)
        run = await TrainingRun.create("shown", root=root)
        async with TrainingSession(agent, run, max_steps=100, max_staleness=100) as session:
            session.store({"own": 1.0})
            session.report_workers(lambda: (status_of(0), status_of(1, node="", state="waiting")))
            await run_actors(session, ChainEnv, 2, seed=0)
            await session.on_eval_episode(EpisodeRecord(1.0, 3, EpisodeStatus.TERMINATED))
            await session.maybe_save_best(1.0)
            await session.checkpoint()
            scrape = scraped(Exposition(session.telemetry, counts))
        found: dict[str, set[str]] = {}
        for name, pairs in scrape:
            found.setdefault(name, set()).update(label for label, _ in pairs)
        return found

    with tempfile.TemporaryDirectory() as root:
        return anyio.run(train, Path(root))


def missing(expression: str, labels: dict[str, set[str]]) -> list[str]:
    return [
        f"{name}{sorted(wanted)}"
        for name, wanted in series_of(expression)
        if name not in labels or not wanted <= labels[name]
    ]


def test_every_series_that_they_name_exists(labels: dict[str, set[str]]) -> None:
    assert [gap for expression in expressions() for gap in missing(expression, labels)] == []


def test_every_series_is_on_the_board(labels: dict[str, set[str]]) -> None:
    """But for the parts of histograms, of which a quantile or a mean is shown."""
    shown = {name for expression in expressions() for name, _ in series_of(expression)}
    parts = re.compile(r"(_bucket|_sum|_count)$")
    assert {parts.sub("", name) for name in labels} - {parts.sub("", name) for name in shown} == set()


def test_a_series_or_label_that_does_not_exist_is_found(labels: dict[str, set[str]]) -> None:
    assert missing("rate(stoker_env_step_total[5m])", labels) == ["stoker_env_step_total[]"]
    assert missing('stoker_actors{phase="silent"} > 0', labels) == ["stoker_actors['phase']"]
    assert missing("sum by (reasons) (stoker_refused_total)", labels) == ["stoker_refused_total['reasons']"]
    assert missing('stoker_actors{job=~"$job",state="silent"} > 0', labels) == []


def test_there_are_six_rules_which_say_what_to_do() -> None:
    assert [rule["alert"] for rule in RULES] == [
        "StokerLearnerStuck",
        "StokerNotDurable",
        "StokerNoCheckpoint",
        "StokerRefusals",
        "StokerSilentActors",
        "StokerWorkersMissing",
    ]
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description"} == rule["annotations"].keys()


def test_the_panels_of_the_board_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        taken = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        cells |= taken
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
