"""``--metrics-port``: a training that is scraped, killed and resumed, and ports that cannot be used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from stoker.runs.metadata import read_metadata

SMALL = ("--learning-starts", "64", "--hidden-sizes", "16", "--num-envs", "4")


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.fullmatch(r"metrics: (http://127\.0\.0\.1:\d+/metrics)", line.strip()):
            return found[1]
    raise AssertionError(f"no metrics: exit code {process.wait()}")


def counts(url: str) -> dict[str, float]:
    with urlopen(url, timeout=30) as response:
        families = text_string_to_metric_families(response.read().decode())
        return {s.name: s.value for family in families for s in family.samples if not s.labels}


def scraped_until(url: str, least_steps: int) -> list[dict[str, float]]:
    """All scrapes of an open session, up to the first with so many steps."""
    found: list[dict[str, float]] = []
    while not found or found[-1]["stoker_env_steps_total"] < least_steps:
        if "stoker_env_steps_total" in (now := counts(url)):
            found.append(now)
    return found


def test_counters_never_fall_over_a_kill_and_a_resume(started: Any, tmp_path: Path) -> None:
    words = ("CartPole-v1", "-n", "100000", *SMALL, "--checkpoint-freq", "100", "--no-progress")
    first = started("train", *words, "--metrics-port", "0")
    scrapes = scraped_until(url_of(first), 250)
    first.kill()
    first.wait()
    [directory] = (tmp_path / "runs/CartPole-v1/v1").iterdir()
    second = started("resume", str(directory), "--no-progress", "--metrics-port", "0")
    scrapes += scraped_until(url_of(second), int(scrapes[-1]["stoker_env_steps_total"]) + 50)
    second.terminate()
    assert second.wait(timeout=60) == 0
    metadata = read_metadata(directory)
    assert [attempt.number for attempt in metadata.attempts] == [1, 2]
    for name, end in (
        ("stoker_env_steps_total", metadata.total_steps),
        ("stoker_episodes_total", metadata.total_episodes),
        ("stoker_opt_steps_total", sys.maxsize),
    ):
        values = [scrape[name] for scrape in scrapes]
        assert values == sorted(values), "a counter that falls is one that began anew to Prometheus"
        assert values[0] < values[-1] <= end


def test_a_port_that_is_taken_is_refused_before_anything_is_made(
    stoker: Any, started: Any, tmp_path: Path
) -> None:
    other = started("train", "CartPole-v1", "-n", "1000000", "--no-progress", "--metrics-port", "0")
    port = url_of(other).rpartition(":")[2].partition("/")[0]
    for words in (("train", "CartPole-v1", "--name", "second"), ("resume", "runs/CartPole-v1")):
        done = stoker(*words, "--metrics-port", port)
        assert done.returncode == 2
        assert done.stderr.startswith(f"stoker: error: --metrics-port {port}: process {other.pid} ")
    assert not (tmp_path / "runs/second").exists()


def test_a_port_that_no_system_has_is_refused(command: Any, tmp_path: Path) -> None:
    for words, said in (
        (("--metrics-port", "65536"), "--metrics-port 65536: give a port from 0 to 65535"),
        (("--metrics-port", "-1"), "--metrics-port"),
        (("--metrics-port", "0", "--metrics-host", "192.0.2.1"), "--metrics-host 192.0.2.1: this machine"),
    ):
        done = command("train", "CartPole-v1", *words)
        assert done.returncode == 2
        assert said in done.stderr
    assert not (tmp_path / "runs").exists()


def test_several_policies_are_scraped_with_their_names(started: Any, tmp_path: Path) -> None:
    game = Path(__file__).parent.parent / "multi"
    process = started(
        *(
            "train",
            "pettingzoo:counting_game:CountingGame",
            "--policy",
            "one=first",
            "--policy",
            "other=*",
        ),
        *("-n", "1000000", "--hidden-sizes", "8", "--eval-freq", "0", "--no-progress", "--metrics-port", "0"),
        PYTHONPATH=os.pathsep.join([str(game), *filter(None, [os.environ.get("PYTHONPATH")])]),
    )
    url, steps = url_of(process), {}
    while min(steps.values(), default=0) < 50:
        with urlopen(url, timeout=30) as response:
            families = text_string_to_metric_families(response.read().decode())
            samples = [sample for family in families for sample in family.samples]
        steps = {s.labels["policy"]: s.value for s in samples if s.name == "stoker_env_steps_total"}
    assert set(steps) == {"one", "other"}
    process.terminate()
    assert process.wait(timeout=60) == 0
