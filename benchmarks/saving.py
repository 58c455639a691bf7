"""What does saving 200 MB of weights cost the training, the event loop and the memory?

Learning stops while the state is copied; against a plain copy of the same bytes. Then the copy is written,
hashed and fsynced in a thread while a service's loop sleeps 1 ms again and again; against ``torch.save`` in
place, ``torch.save`` in a thread, and torch's own ``async_save``. Each contender is a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import QUICK, held_bytes, report
from stoker.writer import StagingArea, publish_checkpoint

N_TENSORS = 8
TENSOR_BYTES = 25_000_000
STATE_BYTES = N_TENSORS * TENSOR_BYTES
SAVES = 5 if QUICK else 20
SLEEP_S = 1e-3
SETTLE_S = 0.1

Save = Callable[[Path], float]
"""Saves the state; returns the seconds for which it must not change."""


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def stoker(state: dict[str, torch.Tensor]) -> Save:
    area = StagingArea()

    def save(path: Path) -> float:
        started = time.perf_counter()
        staged = area.stage(state)
        stopped_s = time.perf_counter() - started
        publish_checkpoint(staged, path)
        return stopped_s

    return save


def plain_copy(state: dict[str, torch.Tensor]) -> Save:
    return lambda _: timed(lambda: {name: tensor.clone() for name, tensor in state.items()})


def idle(_: dict[str, torch.Tensor]) -> Save:
    def save(_: Path) -> float:
        time.sleep(0.3)
        return 0.0

    return save


def torch_save(state: dict[str, torch.Tensor]) -> Save:
    return lambda path: timed(lambda: torch.save(state, path))


def torch_async_save(state: dict[str, torch.Tensor]) -> Save:
    from torch.distributed import checkpoint

    def save(path: Path) -> float:
        started = time.perf_counter()
        future = checkpoint.async_save(state, checkpoint_id=path.with_suffix(".dcp"), no_dist=True)
        stopped_s = time.perf_counter() - started
        future.result()
        return stopped_s

    return save


CONTENDERS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Save], bool]] = {
    "stoker": (stoker, True),
    "plain copy": (plain_copy, True),
    "torch.save in place": (torch_save, False),
    "torch.save in a thread": (torch_save, True),
    "torch async_save": (torch_async_save, True),
    "idle loop": (idle, True),
}
"""How each saves, and whether it does so in a thread."""


async def measured(save: Save, directory: Path, *, in_a_thread: bool) -> dict[str, Any]:
    """The seconds of each save, the seconds for which learning stops, and the loop's lag meanwhile."""
    lags_ms: list[float] = []
    stopped_s: list[float] = []
    saved_s: list[float] = []

    async def sleeper() -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(SLEEP_S)
            lags_ms.append((time.perf_counter() - started - SLEEP_S) * 1e3)

    path = directory / "state.pt"
    sleeping = asyncio.create_task(sleeper())
    await asyncio.sleep(SETTLE_S)
    lags_ms.clear()
    for _ in range(SAVES):
        started = time.perf_counter()
        stopped_s.append(await asyncio.to_thread(save, path) if in_a_thread else save(path))
        saved_s.append(time.perf_counter() - started)
        await asyncio.sleep(0)
    await asyncio.sleep(2 * SLEEP_S)
    sleeping.cancel()
    return {"stopped_s": stopped_s, "saved_s": saved_s, "lags_ms": lags_ms}


def most_held_bytes() -> int:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def contend(name: str) -> None:
    """One contender, in this process; prints what was measured as a line of JSON."""
    make, in_a_thread = CONTENDERS[name]
    torch.set_num_threads(1)
    state = {f"w{i}": torch.empty(TENSOR_BYTES // 4).uniform_() for i in range(N_TENSORS)}
    save = make(state)
    before = held_bytes()
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(measured(save, Path(directory), in_a_thread=in_a_thread))
    print(json.dumps({**found, "more_bytes": most_held_bytes() - before}))


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for name in CONTENDERS:
        command = [sys.executable, "-m", "benchmarks.saving", "--contender", name]
        ran = subprocess.run([*command, *sys.argv[1:]], capture_output=True, text=True, check=False)
        if ran.returncode:
            notes.append(f"{name} did not run: {ran.stderr.strip().splitlines()[-1]}")
        else:
            found[name] = json.loads(ran.stdout.splitlines()[-1])
    what = f"of {STATE_BYTES / 1e6:.0f} MB, {SAVES} times"
    nothing = found.pop("idle loop")
    copy = found["plain copy"]
    stopped = {name: [s * 1e3 for s in one["stopped_s"]] for name, one in found.items()}
    median = {name: statistics.median(values) for name, values in stopped.items()}
    report(
        f"How long learning stops for a save {what}",
        "ms",
        stopped,
        {f"{name} / stoker": median[name] / median["stoker"] for name in median if name != "stoker"},
        notes,
    )
    report(
        f"How long a save takes until it is on disk {what}",
        "ms",
        {name: [s * 1e3 for s in one["saved_s"]] for name, one in found.items() if one is not copy},
        {},
        ["stoker hashes and fsyncs; torch.save does neither"],
    )
    lags = {
        f"{name}, {label}": [percentile(one["lags_ms"], share)]
        for name, one in {**found, "idle loop": nothing}.items()
        if one is not copy
        for label, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }
    report(f"Overshoot of a 1 ms sleep during saves {what}", "ms", lags, {})
    more = {name: [one["more_bytes"] / 1e6] for name, one in found.items()}
    ratios = {f"{name} / the state": values[0] * 1e6 / STATE_BYTES for name, values in more.items()}
    report(f"Memory on top of the state during saves {what}", "MB", more, ratios)


if __name__ == "__main__":
    if "--contender" in sys.argv:
        contend(sys.argv[sys.argv.index("--contender") + 1])
    else:
        main()
