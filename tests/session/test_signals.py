"""Signals for user programs: real processes that get real signals."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import anyio
import pytest

import launching
import stoker
from stoker import ConfigError, Trainer, TrainerConfig, TrainingRun, TrainingSession
from stoker.runs.event_rows import EventRow
from stoker.session.signals import ReportsHealth
from stoker.testing import ChainEnv, FakeAgent
from stoker.trainer import Progress

BACKENDS = ["asyncio", "uvloop", "trio"]
DEADLINE_S = 30.0

PROGRAM = """
import sys, threading, time
from pathlib import Path
import anyio
import stoker
from stoker import EpisodeStatus, Experience, TrainingRun, TrainingSession
from stoker.testing import FakeAgent

backend, what, root = sys.argv[1], sys.argv[2], Path(sys.argv[3])

class Agent(FakeAgent):
    def observe(self, experiences):
        super().observe(experiences)
        if what == "learner" and self.total_steps > 100:
            (root / "busy").touch()
            threading.Event().wait(600)

async def main():
    run = await TrainingRun.create("stopped", root=root)
    session = TrainingSession(Agent(), run)
    grace_s = 1.0 if what in ("learner", "loop") else 60.0
    async with stoker.stop_on_signals(session, grace_s=grace_s):
        if what == "before":
            (root / "begun").touch()
            await anyio.sleep(10)
            return
        async with session:
            while not session.is_done:
                await session.observe(Experience(0, 0, 1.0, 1, EpisodeStatus.CONTINUING, 0))
                await anyio.sleep(0.001)
                if session.total_steps > 20:
                    (root / "begun").touch()
                    if what == "loop":
                        time.sleep(600)
            if what == "lingers":
                (root / "busy").touch()
                await anyio.sleep(600)
    print("left", session.total_steps, flush=True)
    if what == "again":
        (root / "again").touch()
        await anyio.sleep(600)

anyio.run(
    main,
    backend="trio" if backend == "trio" else "asyncio",
    backend_options={} if backend == "trio" else {"use_uvloop": backend == "uvloop"},
)
"""


class Program:
    """A program that trains until it is stopped."""

    def __init__(self, backend: str, what: str, root: Path) -> None:
        self.root = root
        self.process = launching.Popen(
            [sys.executable, "-c", PROGRAM, backend, what, str(root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not is_so():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "it does not come"
            time.sleep(0.01)

    def until_there(self, name: str) -> None:
        self.until((self.root / name).exists)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out, err


@pytest.fixture
def started(tmp_path: Path) -> Generator[Callable[[str, str], Program]]:
    programs: list[Program] = []

    def start(backend: str, what: str) -> Program:
        programs.append(Program(backend, what, tmp_path))
        return programs[-1]

    yield start
    for program in programs:
        program.process.kill()
        program.process.communicate()


def checkpoint_steps(root: Path) -> list[int]:
    async def steps() -> list[int]:
        return (await TrainingRun.open(root / "stopped")).checkpoint_steps()

    return anyio.run(steps)


def last_event(root: Path) -> EventRow:
    async def read() -> EventRow:
        return (await (await TrainingRun.open(root / "stopped")).read_events())[-1]

    return anyio.run(read)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_session_and_everything_is_saved(
    backend: str, number: int, started: Callable[[str, str], Program]
) -> None:
    program = started(backend, "obeys")
    program.until_there("begun")
    program.send(number)
    code, out, err = program.end()
    assert (code, err) == (0, "")
    word, steps = out.split()
    assert word == "left"
    assert checkpoint_steps(program.root) == [int(steps)]
    details = last_event(program.root).details
    assert (details["how"], details["signal"]) == ("stopped", signal.Signals(number).name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_signal_ends_the_process_and_says_so(
    backend: str, started: Callable[[str, str], Program]
) -> None:
    program = started(backend, "lingers")
    program.until_there("begun")
    program.send(signal.SIGTERM)
    program.until_there("busy")
    while program.process.poll() is None:  # until one comes late enough to be another wish
        program.send(signal.SIGTERM)
        time.sleep(0.1)
    code, _, err = program.end()
    assert code == 130
    (line,) = err.splitlines()
    assert line.startswith("stoker: interrupted by a second signal: ")


@pytest.mark.parametrize(
    ("what", "busy", "message"),
    [
        ("learner", "busy", "the learner has been in one call for"),
        ("loop", "begun", "the event loop does not turn"),
    ],
)
def test_a_program_that_is_still_there_after_the_grace_is_ended_and_says_what_is_busy(
    what: str, busy: str, message: str, started: Callable[[str, str], Program]
) -> None:
    program = started("asyncio", what)
    program.until_there(busy)
    program.send(signal.SIGTERM)
    code, _, err = program.end()
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith("stoker: error: not stopped 1 s after SIGTERM: ")
    assert message in line


@pytest.mark.parametrize("backend", BACKENDS)
def test_before_the_session_is_open_a_signal_does_what_it_always_did(
    backend: str, started: Callable[[str, str], Program]
) -> None:
    program = started(backend, "before")
    program.until_there("begun")
    program.send(signal.SIGTERM)
    assert program.end()[0] == -signal.SIGTERM


@pytest.mark.parametrize("backend", BACKENDS)
def test_behind_the_block_a_signal_does_what_it_did_before(
    backend: str, started: Callable[[str, str], Program]
) -> None:
    program = started(backend, "again")
    program.until_there("begun")
    program.send(signal.SIGINT)
    program.until_there("again")
    program.send(signal.SIGINT)
    code, _, err = program.end()
    assert code != 0
    assert "KeyboardInterrupt" in err


@pytest.mark.anyio
async def test_handlers_from_before_are_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with stoker.stop_on_signals(TrainingSession(FakeAgent())):
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.anyio
async def test_a_signal_behind_a_session_that_is_closed_lets_the_block_end() -> None:
    session = TrainingSession(FakeAgent())
    called = anyio.Event()

    class Stopping:
        def stop(self) -> None:
            called.set()
            session.stop()

    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with anyio.fail_after(10):
            async with stoker.stop_on_signals(Stopping()):
                async with session:
                    pass
                signal.raise_signal(signal.SIGTERM)
                await called.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == []


@pytest.mark.anyio
async def test_a_trainer_is_stopped_like_a_session(tmp_path: Path) -> None:
    run = await TrainingRun.create("trainer", root=tmp_path)
    trainer = Trainer(FakeAgent(), ChainEnv, TrainerConfig(max_steps=10**9), run=run)
    assert isinstance(trainer, ReportsHealth)

    async def signal_soon(progress: Progress) -> None:
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep_forever()

    with anyio.fail_after(DEADLINE_S):
        async with stoker.stop_on_signals(trainer):
            result = await trainer.train(watch=signal_soon)
    assert result.total_steps == max(run.checkpoint_steps(), default=0)


def test_a_signal_of_another_kind_reaches_the_event_loop_during_the_block_and_behind_it() -> None:
    async def main() -> None:
        heard = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, heard.set)
        async with stoker.stop_on_signals(TrainingSession(FakeAgent())):
            signal.raise_signal(signal.SIGUSR1)
            await asyncio.wait_for(heard.wait(), 10.0)
        heard.clear()
        signal.raise_signal(signal.SIGUSR1)
        await asyncio.wait_for(heard.wait(), 10.0)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)

    asyncio.run(main())


def test_only_the_main_thread_can_receive_signals() -> None:
    raised: list[BaseException] = []

    async def use() -> None:
        async with stoker.stop_on_signals(TrainingSession(FakeAgent())):
            pass

    def run() -> None:
        try:
            anyio.run(use)
        except ConfigError as error:
            raised.append(error)

    thread = threading.Thread(daemon=True, target=run, name="worker")
    thread.start()
    thread.join(DEADLINE_S)
    assert "stop_on_signals in thread 'worker': " in str(raised[0])


@pytest.mark.anyio
@pytest.mark.parametrize("grace_s", [0, -1.0, float("nan"), True])
async def test_a_grace_that_cannot_be_is_refused(grace_s: float) -> None:
    with pytest.raises(ConfigError, match="grace_s="):
        async with stoker.stop_on_signals(TrainingSession(FakeAgent()), grace_s=grace_s):
            pass
