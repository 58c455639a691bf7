"""Cancellation at any await of a session's life: opening, every call, closing, or the block around all.

A seed decides after how many turns of the event loop a call is cancelled, by a scope or natively, once or
twice. A call that returned is in, one that was cancelled is out; opening is whole or undone; closing is
always whole. When ``asyncio.run`` ends, it cancels all tasks, those of the session too: what was flushed is
there then, and the run is free. Native cancellation notes where tasks were suspended, for the report.

The short form runs with all the tests; the long one is marked ``faults``. STOKER_LIVES sizes it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import numpy as np
import pytest
from anyio.lowlevel import checkpoint

from stoker import EpisodeRecord, EpisodeStatus, Experience, TrainingRun, TrainingSession
from stoker.testing import FakeAgent

LIVES = int(os.environ.get("STOKER_LIVES", "500"))
LIVES_PER_RUN = 5
PATIENCE_S = 60.0
MOST_TURNS = 3000
FORMS = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "native": ("asyncio", {"use_uvloop": False}),
    "native-uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
CALLS = (
    "act", "observe", "observe", "on_episode", "flush", "checkpoint", "snapshot", "next_evaluation",
    "on_eval_episode", "maybe_save_best",
)  # fmt: skip


class Report:
    """What happened over all lives."""

    def __init__(self) -> None:
        self.returned: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        self.places: set[tuple[str, int]] = set()

    def __str__(self) -> str:
        places = f", at {len(self.places)} different awaits" if self.places else ""
        by_call = ", ".join(f"{name} {n}" for name, n in sorted(self.cancelled.items()))
        return (
            f"{self.cancelled.total()} cancelled{places} ({by_call}), {self.returned.total()} returned: "
            "0 lost, 0 locked, 0 stuck"
        )


class Life:
    """One session on a run, cancelled now and then.

    Args:
        run: where the session writes.
        rng: decides all.
        is_native: whether tasks are cancelled rather than scopes.
        report: takes what happens.
    """

    def __init__(self, run: TrainingRun, rng: random.Random, is_native: bool, report: Report) -> None:
        self.run = run
        self.rng = rng
        self.is_native = is_native
        self.report = report
        self.agent = FakeAgent(policy_extras=rng.random() < 0.5)
        self.session = TrainingSession(
            self.agent,
            run,
            eval_freq=2,
            checkpoint_freq=rng.choice([0, 3]),
            queue_capacity=rng.choice([1, 64]),
        )
        self.has_acted = not self.agent.needs_policy_extras
        self.n_steps = self.n_episodes = self.n_flushed = 0

    # Calls that count what certainly is in --------------------------------------------------------

    async def act(self) -> None:
        await self.session.act(np.zeros(1, np.float32))
        self.has_acted = True

    async def observe(self) -> None:
        if not self.has_acted:
            return
        here = np.zeros(1, np.float32)
        await self.session.observe(Experience(here, 0, 1.0, here, EpisodeStatus.CONTINUING, 0))
        self.n_steps += 1
        self.has_acted = not self.agent.needs_policy_extras

    async def on_episode(self) -> None:
        await self.session.on_episode(1.0, 1, EpisodeStatus.TERMINATED)
        self.n_episodes += 1
        self.has_acted = not self.agent.needs_policy_extras

    async def flush(self) -> None:
        n_episodes = self.n_episodes
        await self.session.flush()
        self.n_flushed = max(self.n_flushed, n_episodes)

    async def checkpoint(self) -> None:
        n_steps = self.before[0] + self.n_steps
        await self.session.checkpoint()
        assert max(self.run.checkpoint_steps()) >= n_steps

    async def snapshot(self) -> None:
        assert (await self.session.snapshot()).total_steps == self.before[0] + self.n_steps

    async def next_evaluation(self) -> None:
        with anyio.move_on_after(0.001):
            await self.session.next_evaluation()

    async def on_eval_episode(self) -> None:
        await self.session.on_eval_episode(EpisodeRecord(1.0, 1, EpisodeStatus.TERMINATED))

    async def maybe_save_best(self) -> None:
        value = self.rng.random()
        if await self.session.maybe_save_best(value):
            assert self.session.best_value == value

    # Its course -----------------------------------------------------------------------------------

    async def live(self) -> None:
        with anyio.fail_after(PATIENCE_S):
            if self.rng.random() < 0.5:
                await self.open_and_close()
            else:
                await self.enter_and_leave()
        self.check()

    async def open_and_close(self) -> None:
        while not await self.cancelled_now_and_then("open", self.session.open):
            assert self.run.holder() is None, "opening was cancelled, and the run is locked"
        self.note_start()
        for name in self.rng.choices(CALLS, k=8):
            await self.cancelled_now_and_then(name, getattr(self, name))
        if not await self.cancelled_now_and_then("close", self.session.close):
            assert self.run.holder() is None, "closing was cancelled, and the run is locked"
            await self.session.close()

    async def enter_and_leave(self) -> None:
        self.note_start(from_disk=True)
        await self.cancelled_now_and_then("block", self.block)

    async def block(self) -> None:
        async with self.session:
            self.note_start()
            for name in self.rng.choices(CALLS, k=8):
                await getattr(self, name)()

    async def be_in_it_when_the_loop_ends(self) -> None:
        self.note_start(from_disk=True)
        task = asyncio.get_running_loop().create_task(self.block())
        for _ in range(self.turns()):
            await asyncio.sleep(0)
        for other in asyncio.all_tasks() - {asyncio.current_task()}:
            self.report.places.add(suspended_at(other))
            self.report.cancelled["task"] += 1
        del task  # nobody waits for it

    async def look_behind_the_loop(self) -> None:
        assert self.run.holder() is None, "the event loop has ended, and the run is locked"
        found = await TrainingRun.open(self.run.directory)
        rows = (await found.read_train_episodes())["episode"].tolist()
        assert len(rows) >= self.before[1] + self.n_flushed, "what was flushed is lost"

    def note_start(self, *, from_disk: bool = False) -> None:
        metadata = self.run.metadata
        self.before = (
            (metadata.total_steps, metadata.total_episodes)
            if from_disk
            else (self.session.total_steps, self.session.total_episodes)
        )

    def check(self) -> None:
        assert self.run.holder() is None, "the run is locked"
        found = self.run.metadata.total_steps, self.run.metadata.total_episodes
        assert found == (self.before[0] + self.n_steps, self.before[1] + self.n_episodes), "lost, or twice"

    async def cancelled_now_and_then(self, name: str, call: Callable[[], Awaitable[None]]) -> bool:
        """Cancel the call after some turns of the event loop; say whether it returned all the same."""
        turns = [self.turns() for _ in range(self.rng.choice([0, 1, 1, 1, 2]))]
        cancel = self.natively if self.is_native else self.by_scope
        returned = await cancel(call, turns)
        (self.report.returned if returned else self.report.cancelled)[name] += 1
        return returned

    def turns(self) -> int:
        """So many turns of the event loop before a cancellation: small numbers as often as large ones."""
        return int(MOST_TURNS ** self.rng.random()) - 1

    async def by_scope(self, call: Callable[[], Awaitable[None]], turns: list[int]) -> bool:
        returned = False

        async def run() -> None:
            nonlocal returned
            with scope:
                await call()
                returned = True
            ended.set()

        scope, ended = anyio.CancelScope(), anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            for n_turns in turns:
                for _ in range(n_turns):
                    if ended.is_set():
                        break
                    await checkpoint()
                scope.cancel()
        return returned

    async def natively(self, call: Callable[[], Awaitable[None]], turns: list[int]) -> bool:
        async def run() -> None:
            await call()

        task = asyncio.get_running_loop().create_task(run())
        await asyncio.sleep(0)  # a task that has not begun would never make the call
        for n_turns in turns:
            for _ in range(n_turns):
                if task.done():
                    break
                await asyncio.sleep(0)
            if not task.done():
                self.report.places.add(suspended_at(task))
                task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            return False
        task.result()
        return True


def suspended_at(task: asyncio.Task[Any]) -> tuple[str, int]:
    """File and line of the innermost await of stoker's code."""
    coroutine: Any = task.get_coro()
    place = ("", 0)
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None and "stoker" in frame.f_code.co_filename:
            place = (frame.f_code.co_filename, frame.f_lineno)
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return place


async def lives(root: str, seed: int, is_native: bool, report: Report) -> None:
    rng = random.Random(seed)
    run = await TrainingRun.create("lives", root=root)
    for _ in range(LIVES_PER_RUN):
        await Life(run, rng, is_native, report).live()
    history = await (await TrainingRun.open(run.directory)).read_train_episodes()
    assert history["episode"].tolist() == list(range(1, run.metadata.total_episodes + 1))


def end_the_loop(root: str, seed: int, loop: str, report: Report) -> None:
    """Let the event loop end around a session that is in use, and look at its run on another one."""
    run = anyio.run(partial(TrainingRun.create, "ends", root=root))
    life = Life(run, random.Random(seed), is_native=True, report=report)
    anyio.run(life.be_in_it_when_the_loop_ends, backend_options={"use_uvloop": loop == "uvloop"})
    anyio.run(life.look_behind_the_loop)


def campaign(form: str, n_lives: int) -> None:
    backend, options = FORMS[form]
    report = Report()
    for seed in range(0, n_lives, LIVES_PER_RUN):
        with tempfile.TemporaryDirectory() as root:
            try:
                anyio.run(
                    lives, root, seed, "native" in form, report, backend=backend, backend_options=options
                )
            except BaseException as error:
                error.add_note(f"with seed {seed} on {form}")
                raise
    print(f"\n{n_lives} sessions on {form}: {report}")


def campaign_of_ends(loop: str, n_lives: int) -> None:
    report = Report()
    for seed in range(n_lives):
        with tempfile.TemporaryDirectory() as root:
            try:
                end_the_loop(root, seed, loop, report)
            except BaseException as error:
                error.add_note(f"with seed {seed} on {loop}")
                raise
    gc.collect()  # so that what was never awaited is told within this test
    print(f"\n{n_lives} event loops ended around a session on {loop}: {report}")


# A task that is cancelled before its first step leaves its coroutine unawaited, inside of anyio.
UNBORN = pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited:RuntimeWarning",
    "ignore:Exception ignored in. <coroutine object:pytest.PytestUnraisableExceptionWarning",
)


@UNBORN
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_was_flushed_is_there_and_the_run_free_when_the_event_loop_ends(loop: str) -> None:
    campaign_of_ends(loop, 15)


@UNBORN
@pytest.mark.faults
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_was_flushed_is_there_and_the_run_free_when_thousands_of_event_loops_end(loop: str) -> None:
    campaign_of_ends(loop, LIVES)


@pytest.mark.parametrize("form", FORMS)
def test_a_session_is_whole_wherever_it_is_cancelled(form: str) -> None:
    campaign(form, 25)


@pytest.mark.faults
@pytest.mark.parametrize("form", FORMS)
def test_a_session_is_whole_wherever_it_is_cancelled_in_thousands_of_lives(form: str) -> None:
    campaign(form, LIVES)
