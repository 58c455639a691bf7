"""What every question shares: repeating, medians, the table, the machine."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from stoker import Experience
from stoker.testing import FakeAgent
from stoker.types import ActorId

QUICK = "--quick" in sys.argv


class Idle(FakeAgent):
    """An agent that does nothing but count, not even remember."""

    def observe(self, experiences: Sequence[Experience]) -> None:
        self.total_steps += len(experiences)

    def learn(self) -> None:
        return None

    def episode_extras(self, actor_id: ActorId) -> Mapping[str, float]:
        return {}

    def on_episode_start(self, actor_id: ActorId) -> None:
        pass


def machine() -> str:
    """The processor, the cores and the versions that a number depends on."""
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    threads = torch.get_num_threads()
    return (
        f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__} on {threads} thread{'s' if threads > 1 else ''}"
    )


def file_system(path: Path) -> str:
    """What holds the path, such as ``ext4 on /dev/sda1``; rates of durable writes depend on it."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown file system"
    held = path.resolve()
    found = [line.split()[:3] for line in mounts.read_text().splitlines()]
    holding = [one for one in found if held.is_relative_to(one[1])]
    device, _, kind = max(holding, key=lambda one: len(one[1]))
    return f"{kind} on {device}"


def held_bytes() -> int:
    """The memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def repeated(measure: Mapping[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """Run each contender ``runs`` times, in turn, so that a drift of the machine hits all alike."""
    found: dict[str, list[float]] = {name: [] for name in measure}
    for _ in range(runs):
        for name, once in measure.items():
            found[name].append(once())
    return found


def report(
    question: str,
    unit: str,
    rows: Mapping[str, Sequence[float]],
    ratios: Mapping[str, float],
    notes: Sequence[str] = (),
) -> None:
    """Print a table and the ratios; with ``--json`` one line of JSON instead."""
    summary = {
        name: {"min": min(values), "median": statistics.median(values), "max": max(values)}
        for name, values in rows.items()
    }
    if "--json" in sys.argv:
        line = {"question": question, "unit": unit, "rows": summary, "ratios": ratios, "machine": machine()}
        print(json.dumps(line))
        return
    print(f"\n{question}\n  {machine()}")
    width = max(len(name) for name in [*summary, *ratios])
    print(f"  {'':{width}}  {'min':>12} {'median':>12} {'max':>12}   {unit}")
    for name, row in summary.items():
        print(f"  {name:{width}}  {row['min']:12,.2f} {row['median']:12,.2f} {row['max']:12,.2f}")
    for name, ratio in ratios.items():
        print(f"  {name:{width}}  {ratio:12.2f} x")
    for note in notes:
        print(f"  {note}")
    sys.stdout.flush()
