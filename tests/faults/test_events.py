"""The events of a run that is killed again and again, or whose disk is full: each attempt has one end."""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path

import anyio
import msgspec
import pytest
from breaking import Breaker, mounted, no_mounts
from worker import Order

from stoker import EpisodeStatus, Experience, SessionFailed, TrainingRun, TrainingSession
from stoker.runs.event_rows import EventRow
from stoker.runs.verifying import verify_run
from stoker.testing import FakeAgent


def events_of(path: Path) -> list[EventRow]:
    async def read() -> list[EventRow]:
        return await (await TrainingRun.open(path)).read_events()

    return anyio.run(read)


def ends_of(rows: list[EventRow]) -> list[tuple[int, str]]:
    return [(row.attempt, str(row.details["how"])) for row in rows if row.kind == "attempt_ended"]


def test_whatever_moment_kills_it_an_attempt_has_one_beginning_and_one_end(tmp_path: Path) -> None:
    rng = random.Random(5)
    order = Order(root=str(tmp_path / "runs"))
    with Breaker(tmp_path) as breaker:
        for k in range(6):
            worker = breaker.start(msgspec.structs.replace(order, seed=k))
            worker.listen_until(lambda said: said.attempt)
            worker.listen(rng.uniform(0.0, 0.3))
            assert worker.kill() == -signal.SIGKILL, worker.log()
        last = breaker.start(msgspec.structs.replace(order, cycles=2))
        assert last.end(60) == 0, last.log()
    rows = events_of(tmp_path / "runs/fault")
    began = Counter(row.attempt for row in rows if row.kind == "attempt_began")
    assert set(began.values()) == {1}
    *killed, final = ends_of(rows)
    assert killed == [(attempt, "killed") for attempt in sorted(began)[:-1]]
    assert final == (last.said.attempt, "finished")
    assert len(killed) == 6
    steps = [row.total_steps for row in rows if row.kind == "attempt_began"]
    assert steps == sorted(steps)


@pytest.mark.skipif(bool(no_mounts()), reason=no_mounts())
@pytest.mark.parametrize("kind", ["tmpfs", pytest.param("ext4", marks=pytest.mark.faults)])
def test_an_attempt_that_filled_the_disk_has_an_end_when_there_is_room_again(
    tmp_path: Path, kind: str
) -> None:
    async def train(run: TrainingRun, n_steps: int) -> None:
        async with TrainingSession(FakeAgent(), run) as session:
            for k in range(n_steps):
                await session.observe(Experience(k, 0, 1.0, k + 1, EpisodeStatus.CONTINUING, 0))
                if k % 100 == 0:
                    await session.flush()

    async def fill() -> TrainingRun:
        run = await TrainingRun.create("full", root=place)
        with pytest.raises(SessionFailed, match="No space left on device"):
            await train(run, 10_000_000)
        (place / "ballast").unlink()
        await train(await TrainingRun.resume(run.directory), 100)
        return run

    with mounted(kind, 16, tmp_path) as place:
        with (place / "ballast").open("wb") as ballast:
            ballast.write(bytes(14 << 20 if kind == "tmpfs" else 10 << 20))
        run = anyio.run(fill)
        rows = events_of(run.directory)
        first, second = ends_of(rows)
        assert first in [(1, "failed"), (1, "killed")]
        full = [row.details["errno"] for row in rows if row.kind == "disk_full"]
        assert full == (["ENOSPC"] if first == (1, "failed") else [])
        assert second == (2, "finished")
        assert not [found for found in verify_run(run) if found.kind == "damaged"]
