"""What does a remote step cost: from a client's record to the action that answers it?

``stoker serve`` with a [64, 64] DQN that learns, in a separate process, and clients that wait for each answer
(``lockstep.py``): one actor, 16 actors a message, 64 connections; over WebSocket and HTTP; with answers as
soon as the records are accepted, and once they are on disk. Against the trainer of Godot RL Agents' wire over
plain TCP, whose action costs nothing; against OpenEnv's WebSocket server, whose environment costs nothing
(where OPENENV_PYTHON names an interpreter that has it); and against a service of two requests for each step.
Then 2,000 connected actors with heavy-tailed latencies, against the same actors as tasks of one process.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.lockstep import (
    Dialect,
    Godot,
    HTTPSteps,
    OpenEnv,
    Outcome,
    TwoRequests,
    WebSocketSteps,
    ping_times_ms,
    play,
)
from benchmarks.measure import QUICK, repeated, report
from benchmarks.servers import Serving, serving
from benchmarks.slow_envs import Walk, by_hand, stoker_rate

WARMUP_S, MEASURED_S = (0.3, 1.0) if QUICK else (1.0, 4.0)
RUNS = 3 if QUICK else 5
MANY = 64
TOGETHER = 16
CONNECTED = 200 if QUICK else 2000
OPT_INTERVAL = 16
"""Environment steps for each update: with one for each step, contenders that learn measure the update."""
NEVER = 1 << 30
SETTINGS = {"opt_interval": OPT_INTERVAL, "checkpoint_freq": 100_000}
SPACES = {
    "observation": {"type": "box", "shape": [4], "dtype": "float32"},
    "action": {"type": "discrete", "n": 2},
}
PEERS = Path(__file__).with_name("peers")
HERE = "."  # a disk; the system's /tmp may be memory
TARGETS = (
    "targets: one actor's round trip at most 1.5 of Godot's; at least 3 times the steps of OpenEnv and of",
    "two requests; HTTP at least 0.5 of WebSocket; 16 a message at least 0.8 of Godot's; 64 connections at",
    "least 2 times OpenEnv's; durable at least 0.6 of accepted",
)


# Servers ------------------------------------------------------------------------------------------------


def stoker_words(root: Path, settings: Mapping[str, Any]) -> list[str]:
    spaces = root / "spaces.json"
    spaces.write_text(json.dumps(SPACES))
    words = [
        sys.executable,
        "-m",
        "stoker",
        "serve",
        "--spaces",
        str(spaces),
        "--agent",
        "dqn",
        "--port",
        "0",
    ]
    words += ["--runs-dir", str(root / "runs"), "--hidden-sizes", "64", "64", "--seed", "0"]
    words += ["--max-connections", str(2 * CONNECTED)]
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


# What is measured ---------------------------------------------------------------------------------------


class Contender(NamedTuple):
    """A server, and the connections that play on it."""

    server: Serving
    make: Callable[[int], Dialect]
    n_connections: int = 1


class Measured(NamedTuple):
    """What one measurement gave: ``Outcome``, and the server's processor time for each step."""

    outcome: Outcome
    cpu_us: float


def measured(kept: dict[str, list[Measured]], name: str, contender: Contender) -> float:
    """Play with new connections; steps per second."""
    server, make, n_connections = contender
    clients = [make(server.port) for _ in range(n_connections)]
    try:
        before = server.cpu_s()
        outcome = play(clients, MEASURED_S, WARMUP_S)
        n_steps = outcome.steps_per_s * (MEASURED_S + WARMUP_S)
        kept.setdefault(name, []).append(Measured(outcome, 1e6 * (server.cpu_s() - before) / n_steps))
    finally:
        for client in clients:
            client.close()
    return outcome.steps_per_s


def contenders(
    stoker: Serving,
    acting: Serving,
    godot: Serving,
    two: Serving,
    openenv: Serving | None,
    openenv_async: Serving | None,
) -> dict[str, Contender]:
    ws, http = WebSocketSteps, HTTPSteps
    found = {
        "stoker, WebSocket": Contender(stoker, ws),
        "stoker, HTTP": Contender(stoker, http),
        "Godot's wire": Contender(godot, Godot),
        "two requests": Contender(two, TwoRequests),
        f"stoker, WebSocket, {TOGETHER} a message": Contender(stoker, partial(ws, n_actors=TOGETHER)),
        f"stoker, HTTP, {TOGETHER} a message": Contender(stoker, partial(http, n_actors=TOGETHER)),
        f"Godot's wire, {TOGETHER} a message": Contender(godot, partial(Godot, n_agents=TOGETHER)),
        f"stoker, WebSocket, {MANY} connections": Contender(stoker, ws, MANY),
        f"stoker, durable, {MANY} connections": Contender(stoker, partial(ws, ack="durable"), MANY),
        f"stoker, HTTP, {MANY} connections": Contender(stoker, http, MANY),
        f"two requests, {MANY} connections": Contender(two, TwoRequests, MANY),
        "stoker, no updates": Contender(acting, ws),
        f"stoker, no updates, {TOGETHER} a message": Contender(acting, partial(ws, n_actors=TOGETHER)),
        f"stoker, no updates, {MANY} connections": Contender(acting, ws, MANY),
    }
    for name, server in (("OpenEnv", openenv), ("OpenEnv, async", openenv_async)):
        if server is not None:
            found[name] = Contender(server, OpenEnv)
            found[f"{name}, {MANY} connections"] = Contender(server, OpenEnv, MANY)
    return found


def compare(found: Mapping[str, Contender]) -> None:
    kept: dict[str, list[Measured]] = {}
    rows = repeated({name: partial(measured, kept, name, each) for name, each in found.items()}, RUNS)
    rate = {name: statistics.median(values) for name, values in rows.items()}
    trip = {name: statistics.median([each.outcome.p50_us for each in all_]) for name, all_ in kept.items()}
    own, message, many = "stoker, WebSocket", f"{TOGETHER} a message", f"{MANY} connections"
    ratios = {
        "round trip, stoker / Godot": trip[own] / trip["Godot's wire"],
        "steps, stoker / two requests": rate[own] / rate["two requests"],
        "steps, HTTP / WebSocket": rate["stoker, HTTP"] / rate[own],
        f"steps, {message}, stoker / Godot": rate[f"{own}, {message}"] / rate[f"Godot's wire, {message}"],
        f"steps, {many}, durable / accepted": rate[f"stoker, durable, {many}"] / rate[f"{own}, {many}"],
    }
    for peer in ("OpenEnv", "OpenEnv, async"):
        if peer in rate:
            ratios[f"steps, stoker / {peer}"] = rate[own] / rate[peer]
            ratios[f"steps, {many}, stoker / {peer}"] = rate[f"{own}, {many}"] / rate[f"{peer}, {many}"]
    notes = list(TARGETS)
    if "OpenEnv" not in rate:
        notes.append("OpenEnv is not measured: OPENENV_PYTHON must name an interpreter that has `openenv`")
    trips = {
        f"{name}, {part}": [getattr(each.outcome, f"{part}_us") for each in all_]
        for name, all_ in kept.items()
        if "connections" not in name
        for part in ("p50", "p99")
    }
    what = f"a [64, 64] DQN, an update per {OPT_INTERVAL} steps"
    report(f"Remote steps, {what}", "environment steps per second", rows, ratios, notes)
    report("A message's round trip", "us", trips, {})
    cpu = {name: [each.cpu_us for each in all_] for name, all_ in kept.items()}
    report("Processor time of the server, learning included", "us per step", cpu, {})


def connected_rate(port: int, lags: list[float]) -> float:
    """Steps per second of many connected actors, and meanwhile how long pings of another connection take."""
    clients: list[Dialect] = [WebSocketSteps(port) for _ in range(CONNECTED)]
    pinging = threading.Thread(target=lambda: lags.extend(ping_times_ms(port, int(MEASURED_S * 20), 0.05)))
    try:
        latencies = [Walk(seed).latency_s for seed in range(CONNECTED)]
        begins = time.perf_counter() + WARMUP_S

        def begin_pinging() -> None:
            if not pinging.ident and time.perf_counter() >= begins:
                pinging.start()

        return play(clients, MEASURED_S, WARMUP_S, latencies, aside=begin_pinging).steps_per_s
    finally:
        pinging.join()
        for client in clients:
            client.close()


def compare_connected(port: int) -> None:
    lags: list[float] = []
    contenders = {
        f"{CONNECTED} actors, connected": lambda: connected_rate(port, lags),
        "the same as local tasks, uvloop": lambda: stoker_rate(by_hand, CONNECTED, "uvloop"),
    }
    rows = repeated(contenders, 2 if QUICK else 3)
    connected, local = (statistics.median(values) for values in rows.values())
    cuts = statistics.quantiles(lags, n=100, method="inclusive")
    report(
        f"{CONNECTED} actors with heavy-tailed latencies while DQN learns, an update per {CONNECTED} steps",
        "environment steps per second",
        rows,
        {"connected / local": connected / local},
    )
    rows = {"p50": [cuts[49]], "p99": [cuts[98]], "max": [max(lags)]}
    report("How long the server's event loop lets a ping wait meanwhile", "ms", rows, {})


def main() -> None:
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:

        def root() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(dir=HERE)))

        def start(*words: str) -> Serving:
            return stack.enter_context(serving(words))

        python = os.environ.get("OPENENV_PYTHON")
        openenv = str(PEERS / "openenv_server.py")
        found = contenders(
            start(*stoker_words(root(), SETTINGS)),
            start(*stoker_words(root(), {**SETTINGS, "opt_interval": NEVER})),
            start(sys.executable, str(PEERS / "godot_trainer.py")),
            start(sys.executable, str(PEERS / "two_requests.py"), str(root()), json.dumps(SETTINGS)),
            start(python, openenv) if python else None,
            start(python, openenv, "async") if python else None,
        )
        compare(found)
    with contextlib.ExitStack() as stack:
        settings = {"opt_interval": CONNECTED, "queue_capacity": 16 * CONNECTED, "checkpoint_freq": 100_000}
        compare_connected(start(*stoker_words(root(), settings)).port)


if __name__ == "__main__":
    main()
