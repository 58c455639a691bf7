"""What does an open dashboard cost, and how soon does it show a run of a million episodes?

``stoker dash`` beside TensorBoard and trackio, which hold the same rewards, written by their own clients:
the time from the start of the server to the first curve and to the whole one; planted episodes that stand out
and are seen; the processor time and the bytes of a poll with nothing new, and of pages that watch 50 runs in
training. Then the list of very many runs, 100 new rows in a short run and in a very long one, and what five
viewers cost a training, in a separate process and in that of a service with remote actors.

The viewers are HTTP clients that ask what the pages ask (``viewing.py``). A server's processor time includes
the processes that it starts. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import anyio
import torch

from benchmarks.made_runs import MadeRun, make_runs
from benchmarks.measure import QUICK, repeated, report
from benchmarks.peers.logs import TensorBoardLog, TrackioLog
from benchmarks.servers import Serving, peak_bytes_of, serving
from benchmarks.viewing import (
    StokerComparison,
    StokerList,
    StokerView,
    TensorBoardView,
    TrackioView,
    View,
    last_episode,
    spikes_seen,
)
from stoker import TrainingRun, train
from stoker.listening import listening_socket
from stoker.runs.history import RunHistory
from stoker.trainer import config_from

HERE = "."  # a disk; the system's /tmp may be memory
LONG, SHORT, VERY_LONG = (100_000, 10_000, 1_000_000) if QUICK else (1_000_000, 10_000, 10_000_000)
N_LIVE, LIVE_EPISODES, LIVE_S, NEW_EACH = (50, 2_000, 10.0, 10) if QUICK else (50, 20_000, 40.0, 10)
N_MANY = 1_000 if QUICK else 10_000
N_SPIKES = 100
POLLS, POLLING_S = 500, 3.0 if QUICK else 10.0
NEW_ROWS, ADDITIONS = 100, 10 if QUICK else 50
COLD_RUNS = 1 if QUICK else 3
STEPS, PAIRS = (6_000, 2) if QUICK else (40_000, 7)
VIEWERS = 5
WAIT_S = 300.0
PAUSE_S = 0.02
BIG = "big"
FIRST_S, WHOLE_S, IDLE_MS, IDLE_BYTES, NEW_MS, FLAT, LEAST_SPEED = 0.5, 5.0, 1.0, 500, 3.0, 1.5, 0.99


# The data, and who serves it ----------------------------------------------------------------------------


Log = TensorBoardLog | TrackioLog


class Contender(NamedTuple):
    """A dashboard: how its server is started on some data, and its pages there.

    Attributes:
        serve: starts the server.
        page: opens the page of one run, on the server's port.
        pages: the same for pages that watch many runs, by name.
    """

    serve: Callable[[], contextlib.AbstractContextManager[Serving]]
    page: Callable[[int], View]
    pages: Mapping[str, Callable[[int], View]]


class Data(NamedTuple):
    """The same runs for every contender: one long one, and many in training."""

    contenders: Mapping[str, Contender]
    live: Mapping[str, Contender]
    grow: Mapping[str, Callable[[], None]]
    """Appends a few episodes to each run in training, as the contender's client does."""
    held: Sequence[MadeRun]
    """Those in training, until they are released."""


def make_data(place: Path) -> Data:
    """Write the runs below a directory, each episode to all contenders."""
    os.environ["TRACKIO_DIR"] = str(place / "trackio")  # read when trackio is imported
    peers = {name: peer for name, peer in PEERS.items() if all(map(find_spec, peer.packages))}
    step = LONG // N_SPIKES
    big = MadeRun(
        place / "one",
        BIG,
        n_wanted=LONG,
        spikes=[step * k + k * 37 % (step // 2) + 1 for k in range(N_SPIKES)],
    )
    logs = [peer.log(place, "one", BIG) for peer in peers.values()]
    for made in big.add_episodes(LONG):
        for log in logs:
            log.add(made)
    big.add_evaluation()
    big.end()
    runs = make_runs(place / "live", N_LIVE, LIVE_EPISODES, is_held=True)
    live = {"stoker": stoker(place / "live", {"list": StokerList, "comparison": StokerComparison})}
    grow: dict[str, Callable[[], None]] = {"stoker": partial(grow_all, runs, None)}
    for name, peer in peers.items():
        live[name] = peer.contender(place, "live")
        copies = [MadeRun(place / f"for-{name}", run_id=f"run-{k:02}", seed=k) for k in range(N_LIVE)]
        theirs = [peer.log(place, "live", f"run-{k:02}") for k in range(N_LIVE)]
        for copy, log in zip(copies, theirs, strict=True):
            for made in copy.add_episodes(LIVE_EPISODES):
                log.add(made)
        grow[name] = partial(grow_all, copies, theirs)
    one = {name: peer.contender(place, "one") for name, peer in peers.items()}
    return Data({"stoker": stoker(place / "one", {}), **one}, live, grow, runs)


def grow_all(runs: Sequence[MadeRun], logs: Sequence[Log] | None) -> None:
    """Append new episodes to each run, and to the logs of a peer."""
    for k, run in enumerate(runs):
        for made in run.add_episodes(NEW_EACH):
            if logs is not None:
                logs[k].add(made)


def stoker(root: Path, pages: Mapping[str, Callable[[int], View]], memory: str = "512MB") -> Contender:
    """``stoker dash`` on a runs directory."""
    words = [sys.executable, "-m", "stoker", "dash", str(root), "--port", "0", "--memory", memory]
    return Contender(partial(serving, words), StokerView, pages)


def tensorboard(place: Path, data: str) -> Contender:
    """TensorBoard, with its fast loader."""
    words = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(place / f"tensorboard-{data}"),
        "--port",
        "0",
    ]
    return Contender(partial(serving, words), TensorBoardView, {"time series": TensorBoardView})


def trackio(_: Path, data: str) -> Contender:
    """Trackio's dashboard."""
    program = str(Path(__file__).with_name("peers") / "trackio_server.py")

    @contextlib.contextmanager
    def serve() -> Generator[Serving]:
        with listening_socket("127.0.0.1", 0) as free:
            port = free.getsockname()[1]
        with serving([sys.executable, program, str(port)]) as server:
            yield server._replace(port=port)

    page = partial(TrackioView, project=data)
    return Contender(serve, page, {"metrics": page})


class Peer(NamedTuple):
    """Another dashboard: what it needs, how a run is written for it, and how it is served."""

    packages: tuple[str, ...]
    log: Callable[[Path, str, str], Log]
    contender: Callable[[Path, str], Contender]


PEERS = {
    "TensorBoard": Peer(
        ("tensorboard", "tensorboardX"),
        lambda place, data, run: TensorBoardLog(place / f"tensorboard-{data}", run),
        tensorboard,
    ),
    "trackio": Peer(("trackio",), lambda _, data, run: TrackioLog(data, run), trackio),
}


# One long run -------------------------------------------------------------------------------------------


class Cold(NamedTuple):
    """What one start gave, in seconds, bytes and episodes."""

    started_s: float
    first_s: float
    whole_s: float
    cpu_s: float
    peak_bytes: float
    spikes: float


def cold(contender: Contender) -> Cold:
    """Start the server on the long run and look at its curve until it is whole."""
    with contender.serve() as server, contextlib.closing(contender.page(server.port)) as page:
        began, first_s = time.perf_counter(), 0.0
        while time.perf_counter() - began < WAIT_S:
            curve = page.curve(BIG)
            took_s = time.perf_counter() - began
            if curve.x and not first_s:
                first_s = took_s
            if last_episode(curve) >= LONG and page.is_whole:
                cpu_s, peak = server.cpu_of_all_s(), peak_bytes_of(server.pid)
                return Cold(server.ready_s, first_s, took_s, cpu_s, peak, spikes_seen(curve))
            time.sleep(PAUSE_S)
    raise RuntimeError(f"the curve was not whole after {WAIT_S} s")


def compare_cold(data: Data) -> bool:
    found: dict[str, list[Cold]] = {name: [] for name in data.contenders}
    for _ in range(COLD_RUNS):
        for name, contender in data.contenders.items():
            found[name].append(cold(contender))
    to_first = {name: [each.started_s + each.first_s for each in all_] for name, all_ in found.items()}
    to_whole = {name: [each.started_s + each.whole_s for each in all_] for name, all_ in found.items()}
    own = [each.first_s for each in found["stoker"]], [each.whole_s for each in found["stoker"]]
    question = f"A run of {LONG:,} episodes: from the start of the server to"
    report(f"{question} its first curve", "s", to_first, over_stoker(to_first))
    report(f"{question} its whole curve", "s", to_whole, over_stoker(to_whole))
    rows = {"request to first curve": own[0], "request to whole curve": own[1]}
    report("The same, stoker's server once it listens", "s", rows, {}, [f"targets: {FIRST_S} and {WHOLE_S}"])
    cpu = {name: [each.cpu_s for each in all_] for name, all_ in found.items()}
    peak = {name: [each.peak_bytes / 1e6 for each in all_] for name, all_ in found.items()}
    spikes = {name: [each.spikes for each in all_] for name, all_ in found.items()}
    report("The server's processor time until then", "s", cpu, over_stoker(cpu))
    report("The server's memory at its peak", "MB", peak, over_stoker(peak))
    report(f"Episodes seen of {N_SPIKES} that stand out", "episodes", spikes, {})
    first_s, whole_s = map(statistics.median, own)
    return first_s <= FIRST_S and whole_s <= WHOLE_S and min(spikes["stoker"]) == N_SPIKES


def compare_idle(data: Data) -> bool:
    """Polls of the page of the long run while nothing happens."""
    n_bytes: dict[str, list[float]] = {}
    cpu_ms: dict[str, list[float]] = {}
    for name, contender in data.contenders.items():
        with contender.serve() as server, contextlib.closing(contender.page(server.port)) as page:
            wait_until_whole(page)
            page.poll()
            before, taken, n_polls, began = server.cpu_of_all_s(), page.n_bytes, 0, time.perf_counter()
            while n_polls < POLLS and time.perf_counter() - began < POLLING_S:
                page.poll()
                n_polls += 1
            cpu_ms[name] = [(server.cpu_of_all_s() - before) / n_polls * 1e3]
            n_bytes[name] = [(page.n_bytes - taken) / n_polls]
    notes = [f"targets: {IDLE_MS} ms, {IDLE_BYTES} bytes"]
    report("A poll with nothing new, one run", "bytes", n_bytes, over_stoker(n_bytes), notes)
    report("The same", "ms of the server", cpu_ms, over_stoker(cpu_ms))
    return cpu_ms["stoker"][0] <= IDLE_MS and n_bytes["stoker"][0] <= IDLE_BYTES


def wait_until_whole(page: View) -> None:
    began = time.perf_counter()
    while not (last_episode(page.curve(BIG)) >= LONG and page.is_whole):
        if time.perf_counter() - began > WAIT_S:
            raise RuntimeError(f"the curve was not whole after {WAIT_S} s")
        time.sleep(PAUSE_S)


# Many runs in training ----------------------------------------------------------------------------------


def compare_live(data: Data) -> None:
    cpu: dict[str, list[float]] = {}
    each_poll: dict[str, list[float]] = {}
    n_bytes: dict[str, list[float]] = {}
    n_polls: list[str] = []
    for name, contender in data.live.items():
        for page_name, open_page in contender.pages.items():
            with contender.serve() as server, contextlib.closing(open_page(server.port)) as page:
                page.poll()
                found = watched(server, page, data.grow[name])
            key = f"{name}, {page_name}"
            cpu[key] = [found.cpu_s / found.took_s * 100.0]
            each_poll[key] = [found.cpu_s / found.n_polls * 1e3]
            n_bytes[key] = [found.n_bytes / found.n_polls / 1e3]
            n_polls.append(f"{key}: {found.n_polls} polls, one each {page.period_s:g} s at best")
    question = f"{N_LIVE} runs of {LIVE_EPISODES:,} episodes in training, {NEW_EACH} new ones a second each"
    ours = "stoker, comparison"
    report(f"{question}: the server's processor", "% of a core", cpu, over_stoker(cpu, ours), n_polls)
    report("The same, for each poll", "ms of the server", each_poll, over_stoker(each_poll, ours))
    report("The same, for each poll", "kB", n_bytes, over_stoker(n_bytes, ours))


class Watched(NamedTuple):
    """What a page cost while its runs grew."""

    took_s: float
    n_polls: int
    cpu_s: float
    n_bytes: int


def watched(server: Serving, page: View, grow: Callable[[], None]) -> Watched:
    """Keep a page open while its runs grow."""
    ended = threading.Event()

    def train_on() -> None:
        while not ended.wait(1.0):
            grow()

    training = threading.Thread(target=train_on)
    training.start()
    try:
        began, cpu_s, taken, n_polls = time.perf_counter(), server.cpu_of_all_s(), page.n_bytes, 0
        while (took_s := time.perf_counter() - began) < LIVE_S:
            n_polls += 1
            page.poll()  # a page whose poll takes longer than its period leaves the next ones out
            until_next_s = page.period_s - (time.perf_counter() - began) % page.period_s
            time.sleep(min(until_next_s, max(0.0, began + LIVE_S - time.perf_counter())))
        return Watched(took_s, n_polls, server.cpu_of_all_s() - cpu_s, page.n_bytes - taken)
    finally:
        ended.set()
        training.join()


def compare_many(place: Path) -> None:
    """The list of very many runs: until all are in it, when it is opened later, and while nothing happens."""
    make_runs(place / "many", N_MANY, 5)
    with stoker(place / "many", {}).serve() as server:
        began = time.perf_counter()
        with contextlib.closing(StokerList(server.port)) as page:
            while not page.has_all:
                page.poll()
                time.sleep(page.period_s)
            took_s, cpu_s, peak = time.perf_counter() - began, server.cpu_s(), peak_bytes_of(server.pid)
        with contextlib.closing(StokerList(server.port)) as page:
            page.poll()
            opened, before, taken = server.cpu_s() - cpu_s, server.cpu_s(), page.n_bytes
            for _ in range(POLLS):
                page.poll()
            poll_ms, poll_bytes = (server.cpu_s() - before) / POLLS * 1e3, (page.n_bytes - taken) / POLLS
    question = f"A list of {N_MANY:,} runs"
    report(f"{question}: until all are in it", "s", {"time": [took_s], "processor": [cpu_s]}, {})
    report("The same, the server's memory at its peak", "MB", {"stoker": [peak / 1e6]}, {})
    report("The same, opened later", "ms of the server", {"stoker": [opened * 1e3]}, {})
    report("The same, opened later", "kB", {"stoker": [taken / 1e3]}, {})
    report("A poll of it with nothing new", "ms of the server", {"stoker": [poll_ms]}, {})
    report("The same", "bytes", {"stoker": [poll_bytes]}, {})


# New rows, whatever the size ----------------------------------------------------------------------------


def compare_additions(place: Path) -> bool:
    """100 new rows, read by the incremental reader alone and shown by the server."""
    runs = {f"{n:,} rows": MadeRun(place / "growing", f"of-{n}", n_wanted=n) for n in (SHORT, VERY_LONG)}
    for run, n in zip(runs.values(), (SHORT, VERY_LONG), strict=True):
        run.grow(n)
    histories = {name: RunHistory(run.directory) for name, run in runs.items()}
    for history in histories.values():
        history.refresh()
    with stoker(place / "growing", {}, memory="4GB").serve() as server:  # both runs are held at once
        pages = {name: StokerView(server.port, run.directory.parts[-3]) for name, run in runs.items()}
        for page, run in zip(pages.values(), runs.values(), strict=True):
            wait_for_rows(page, run.n_episodes)
            page.poll()
        read_ms = repeated({name: partial(read, runs[name], histories[name]) for name in runs}, ADDITIONS)
        for page in pages.values():
            page.poll()
        shown_ms = repeated({name: partial(shown, runs[name], pages[name]) for name in runs}, ADDITIONS)
    ok = True
    for question, rows, target in (
        (f"{NEW_ROWS} new rows, read", read_ms, NEW_MS),
        (f"{NEW_ROWS} new rows, from the request to the answer", shown_ms, None),
    ):
        short, long = (statistics.median(values) for values in rows.values())
        notes = [f"targets: {target} ms, {FLAT} times as long"] if target else []
        report(question, "ms", rows, {f"{VERY_LONG:,} / {SHORT:,}": long / short}, notes)
        ok &= target is None or (long <= target and long / short <= FLAT)
    return ok


def read(run: MadeRun, history: RunHistory) -> float:
    run.grow(NEW_ROWS)
    began = time.perf_counter()
    assert history.refresh()
    took_ms = (time.perf_counter() - began) * 1e3
    assert history.train.n_rows == run.n_episodes
    return took_ms


def shown(run: MadeRun, page: StokerView) -> float:
    run.grow(NEW_ROWS)
    began, n_new = time.perf_counter(), 0
    while n_new < NEW_ROWS:
        page.poll()
        n_new += page.n_new
        if time.perf_counter() - began > WAIT_S:
            raise RuntimeError(f"{NEW_ROWS} new rows were not shown")
    return (time.perf_counter() - began) * 1e3


def wait_for_rows(page: StokerView, n: int) -> None:
    began = time.perf_counter()
    while not page.has_read(n):
        if time.perf_counter() - began > WAIT_S:
            raise RuntimeError(f"{n} rows were not read")
        time.sleep(PAUSE_S)


# A training that is watched -----------------------------------------------------------------------------


def steps_per_s(place: Path, *, viewers: int, name: str, kept: dict[str, list[float]]) -> float:
    """Train DQN on CartPole, from one seed, while a server's pages are open on its run, or not."""

    async def main(root: Path) -> float:
        settings = {"env": "CartPole-v1", "agent": "dqn", "seed": 0, "total_timesteps": STEPS}
        run = await TrainingRun.create("watched", root=root)
        began, used = time.perf_counter(), time.process_time()
        await train(config_from({**settings, "eval_freq": STEPS}), run, view="none")
        kept.setdefault(name, []).append((time.process_time() - used) / STEPS * 1e6)
        return STEPS / (time.perf_counter() - began)

    with tempfile.TemporaryDirectory(dir=place) as root, watching(Path(root), viewers):
        return anyio.run(main, Path(root))


@contextlib.contextmanager
def watching(root: Path, viewers: int) -> Iterator[None]:
    """A server on the runs, and open pages in one other process."""
    if not viewers:
        yield
        return
    with stoker(root, {}).serve() as server, looking(server.port, viewers):
        yield


@contextlib.contextmanager
def looking(port: int, viewers: int, root: str = "") -> Iterator[None]:
    """Open pages in one other process."""
    if not viewers:
        yield
        return
    words = [sys.executable, "-m", "benchmarks.viewing", str(port), str(viewers), *([root] if root else [])]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        process.terminate()
        said, _ = process.communicate()
    if not said.partition(" polls")[0].strip("0"):
        raise RuntimeError(f"the viewers saw nothing: {said!r}")


def compare_watched(place: Path) -> bool:
    kept: dict[str, list[float]] = {}
    contenders = {"not watched": 0, f"{VIEWERS} pages open": VIEWERS}
    rows = repeated(
        {
            name: partial(steps_per_s, place, viewers=n, name=name, kept=kept)
            for name, n in contenders.items()
        },
        PAIRS,
    )
    ratio = statistics.median(b / a for a, b in zip(*rows.values(), strict=True))
    cpu = statistics.median(a / b for a, b in zip(*kept.values(), strict=True))
    report("DQN on CartPole, watched", "steps/s", rows, {"watched / not watched": ratio})
    notes = [f"target: {LEAST_SPEED}; its own processor time says what viewers on other cores cost"]
    report("The same, its own processor time", "us per step", kept, {"not watched / watched": cpu}, notes)
    return cpu >= LEAST_SPEED


# --------------------------------------------------------------------------------------------------------


def over_stoker(rows: Mapping[str, Sequence[float]], ours: str = "stoker") -> dict[str, float]:
    """The others' medians over stoker's."""
    own = statistics.median(rows[ours])
    return {
        f"{name} / {ours}": statistics.median(values) / own
        for name, values in rows.items()
        if not name.startswith("stoker") and own > 0
    }


def main() -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=HERE) as directory:
        place = Path(directory)
        data = make_data(place)
        if missing := {"TensorBoard", "trackio"} - data.contenders.keys():
            print(f"not installed, so not measured: {', '.join(sorted(missing))}", file=sys.stderr)
        kept = [compare_cold(data), compare_idle(data)]
        compare_live(data)
        for run in data.held:
            run.release()
        compare_many(place)
        kept += [compare_additions(place), compare_watched(place)]
    return not all(kept)


if __name__ == "__main__":
    sys.exit(main())
