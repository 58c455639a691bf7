"""Recorders for tests: some keep their records, some fail, some hang; and packages without network."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.recorders import Outcome, Record, RunContext

# Read by these packages when they are imported.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["WANDB_ERROR_REPORTING"] = "false"


class Keeping:
    """Keeps its records, and counts its calls in semaphores that a test can wait for."""

    def __init__(self, name: str = "keeping") -> None:
        self.name = name
        self.contexts: list[RunContext] = []
        self.records: list[tuple[int, Record]] = []
        self.statuses: list[Outcome] = []
        self.threads: set[int] = set()
        self.n_flushes = 0
        self.wrote = threading.Semaphore(0)
        self.flushed = threading.Semaphore(0)

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.records]

    def open(self, context: RunContext) -> None:
        self.threads.add(threading.get_ident())
        self.contexts.append(context)

    def write(self, step: int, record: Record) -> None:
        self.threads.add(threading.get_ident())
        self.records.append((step, record))
        self.wrote.release()

    def flush(self) -> None:
        self.threads.add(threading.get_ident())
        self.n_flushes += 1
        self.flushed.release()

    def close(self, status: Outcome) -> None:
        self.threads.add(threading.get_ident())
        self.statuses.append(status)


class Failing(Keeping):
    """Raises in the given calls, after noting them."""

    def __init__(self, *calls: str, error: Exception | None = None, name: str = "failing") -> None:
        super().__init__(name)
        self.calls = set(calls)
        self.error = error

    def _fail(self, call: str) -> None:
        if call in self.calls:
            raise self.error if self.error is not None else OSError(f"{call}: no space left")

    def open(self, context: RunContext) -> None:
        super().open(context)
        self._fail("open")

    def write(self, step: int, record: Record) -> None:
        super().write(step, record)
        self._fail("write")

    def flush(self) -> None:
        super().flush()
        self._fail("flush")

    def close(self, status: Outcome) -> None:
        super().close(status)
        self._fail("close")


class Hanging(Keeping):
    """Hangs in one of its calls until it is released."""

    def __init__(self, call: str, name: str = "hanging") -> None:
        super().__init__(name)
        self.call = call
        self.reached = threading.Event()
        self.release = threading.Event()

    def _hang(self, call: str) -> None:
        if call == self.call:
            self.reached.set()
            assert self.release.wait(60)

    def open(self, context: RunContext) -> None:
        self._hang("open")
        super().open(context)

    def write(self, step: int, record: Record) -> None:
        self._hang("write")
        super().write(step, record)

    def flush(self) -> None:
        self._hang("flush")
        super().flush()

    def close(self, status: Outcome) -> None:
        self._hang("close")
        super().close(status)


@pytest.fixture
def hanging() -> Iterator[type[Hanging]]:
    """Makes hanging recorders, and releases them at the end."""
    made: list[Hanging] = []

    class Known(Hanging):
        def __init__(self, call: str, name: str = "hanging") -> None:
            super().__init__(call, name)
            made.append(self)

    yield Known
    for recorder in made:
        recorder.release.set()


@pytest.fixture
def keeping() -> type[Keeping]:
    return Keeping


@pytest.fixture
def failing() -> type[Failing]:
    return Failing


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return RunContext(
        name="cartpole",
        version="v2",
        run_id="20260102_030405",
        directory=tmp_path,
        params={"agent/gamma": 0.99, "agent/hidden": "[64, 64]", "session/max_steps": None},
        tags={"team": "blue"},
    )
