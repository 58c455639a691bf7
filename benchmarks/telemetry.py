"""What does it cost a training to be scraped, and how long does a scrape take with 10,000 actors?

The training is DQN on CartPole from eight environments, with and without a scrape per second, in turn. It is
compared by the processor time per step, which other programs on the machine hardly change. Exits with 1 if a
scrape takes more than 5 ms, or scraped trainings are slower than 0.99 of the others.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import anyio
import torch

from benchmarks.measure import QUICK, Idle, repeated, report
from stoker import EpisodeStatus, Experience, TrainingRun, TrainingSession, train
from stoker.listening import listening_socket
from stoker.telemetry.prometheus import Exposition
from stoker.telemetry.serving import MetricsServer
from stoker.trainer import Progress, config_from

N_ACTORS = 10_000
STEPS = 6_000 if QUICK else 30_000
RUNS = 3 if QUICK else 9
SCRAPES = 50 if QUICK else 300
MOST_MS, LEAST = 5.0, 0.99


def scrapes_ms() -> list[float]:
    """How long scrapes of a session take that knows 10,000 actors, all of them in an episode."""

    async def main() -> list[float]:
        async with TrainingSession(Idle(), opt_interval=0) as session:
            for actor_id in range(N_ACTORS):
                await session.observe(Experience(None, 0, 1.0, None, EpisodeStatus.CONTINUING, actor_id))
            await session.flush()
            expose, took = Exposition(session.telemetry), list[float]()
            for _ in range(SCRAPES):
                began = time.perf_counter()
                expose()
                took.append((time.perf_counter() - began) * 1e3)
        return took

    return anyio.run(main)


def cpu_us(*, is_scraped: bool) -> float:
    """The processor time of a training, per step: of all of its threads."""

    async def main(root: Path) -> float:
        config = config_from(
            {"env": "CartPole-v1", "agent": "dqn", "total_timesteps": STEPS, "eval_freq": STEPS}
        )
        run = await TrainingRun.create("scraped", root=root)
        began = 0.0

        async def watch(progress: Progress) -> None:
            nonlocal began
            began = time.process_time()
            if is_scraped:
                expose = Exposition(progress.session.telemetry)
                with MetricsServer(listening_socket("127.0.0.1", 0), expose) as server:
                    await anyio.to_thread.run_sync(partial(scrape_on, server.url), abandon_on_cancel=True)

        await train(config, run, watch=watch, view="none")
        ended.set()
        return (time.process_time() - began) / STEPS * 1e6

    ended = threading.Event()

    def scrape_on(url: str) -> None:
        while not ended.wait(1.0):
            with urlopen(url) as response:
                response.read()

    with tempfile.TemporaryDirectory() as root:
        return anyio.run(main, Path(root))


def main() -> int:
    torch.set_num_threads(1)
    took = scrapes_ms()
    report(f"A scrape of a session with {N_ACTORS:,} actors", "ms", {"scrape": took}, {})
    rows = repeated(
        {
            "not scraped": partial(cpu_us, is_scraped=False),
            "scraped each second": partial(cpu_us, is_scraped=True),
        },
        RUNS,
    )
    pairs = zip(rows["not scraped"], rows["scraped each second"], strict=True)
    ratio = statistics.median(without / scraped for without, scraped in pairs)
    report("A training that is scraped each second", "us per step", rows, {"not scraped / scraped": ratio})
    return not (statistics.median(took) <= MOST_MS and ratio >= LEAST)


if __name__ == "__main__":
    sys.exit(main())
