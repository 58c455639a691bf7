"""What do open pages of the dashboard, and traces, cost ``stoker serve``?

The server's processor time in each second in which a remote actor takes a step every 5 ms: alone; with
``--dash`` and nobody who looks; with five pages open; and with a tracer provider of OpenTelemetry whose spans
go nowhere, for an actor that brings a ``traceparent``. DQN learns, an update per 16 steps. Processor time,
because other programs on the machine change it little, and the pages are looked at from the same cores.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.dashboard import VIEWERS, looking
from benchmarks.lockstep import WebSocketSteps, play
from benchmarks.measure import QUICK, repeated, report
from benchmarks.servers import Serving, serving
from benchmarks.service import SETTINGS, stoker_words

PAUSE_S = 5e-3
SECONDS, WARMUP_S = (3.0, 1.0) if QUICK else (8.0, 1.0)
PAIRS = 3 if QUICK else 7
HERE = "."
TRACES = Path(__file__).with_name("peers")
ALONE = "stoker serve"


class TracedSteps(WebSocketSteps):
    """An actor whose program traces its steps."""

    headers = ("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",)


def cpu_ms(server: Serving, actor: type[WebSocketSteps], viewers: int = 0) -> float:
    """Processor time of the server per second, with the processes that it has started."""
    with contextlib.closing(actor(server.port)) as client, looking(server.port, viewers, "/dash"):
        play([client], WARMUP_S, 0.0, [lambda: PAUSE_S])
        before, began = server.cpu_of_all_s(), time.perf_counter()
        play([client], SECONDS, 0.0, [lambda: PAUSE_S])
        return 1e3 * (server.cpu_of_all_s() - before) / (time.perf_counter() - began)


def main() -> None:
    with contextlib.ExitStack() as stack:

        def start(*words: str, **env: str) -> Serving:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=HERE)))
            return stack.enter_context(serving([*stoker_words(root, SETTINGS), *words], env))

        alone, dash = start(), start("--dash")
        traced = start("--import", "traces_nowhere", PYTHONPATH=":".join([str(TRACES), *sys.path]))
        rows = repeated(
            {
                ALONE: partial(cpu_ms, alone, WebSocketSteps),
                "with --dash": partial(cpu_ms, dash, WebSocketSteps),
                f"with --dash, {VIEWERS} pages open": partial(cpu_ms, dash, WebSocketSteps, VIEWERS),
                "traced": partial(cpu_ms, traced, TracedSteps),
            },
            PAIRS,
        )
    ratios = {
        f"{name} / {ALONE}": statistics.median(b / a for a, b in zip(rows[ALONE], values, strict=True))
        for name, values in rows.items()
        if name != ALONE
    }
    report("A service, watched and traced", "ms of its processor time per second", rows, ratios)


if __name__ == "__main__":
    main()
