"""Saving in bounded memory, and which checkpoints a session keeps."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch
from training_parts import dqn, feed, transition

from obstacles import Gate
from stoker import TrainingRun, TrainingSession
from stoker.runs import Retention
from stoker.testing import FakeAgent
from stoker.writer import load_checkpoint


class SlowRun(TrainingRun):
    """A run whose checkpoints wait to be let through, one by one."""

    def begin(self) -> None:
        self.may_publish = threading.Semaphore(0)
        self.begun: list[int] = []
        self.pointers: list[int] = []

    def publish_step(self, staged: Any, step: int, retention: Retention | None = None) -> int:
        self.begun.append(step)
        self.pointers.append(staged["agent"]["network"]["mlp.layers.0.weight"].data_ptr())
        before = staged["agent"]["network"]["mlp.layers.0.weight"].clone()
        self.may_publish.acquire(timeout=30)
        assert torch.equal(before, staged["agent"]["network"]["mlp.layers.0.weight"]), "nobody writes over it"
        assert staged["agent"]["total_steps"] == step
        return super().publish_step(staged, step, retention)


@pytest.mark.anyio
async def test_there_is_one_copy_however_slow_the_disk_is(tmp_path: Path) -> None:
    """The next checkpoint waits for the one before, and with it the learner and then the actors."""
    run = await SlowRun.create("slow", root=tmp_path)
    assert isinstance(run, SlowRun)
    run.begin()
    agent = dqn()
    async with TrainingSession(agent, run, checkpoint_freq=20, queue_capacity=4) as session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed, session, 0, 100)
            for number in range(1, 6):
                with anyio.fail_after(20):
                    while len(run.begun) < number:  # noqa: ASYNC110 - in another thread
                        await anyio.sleep(0.002)
                for _ in range(30):  # all that can move has moved
                    await anyio.sleep(0.002)
                assert run.begun == [20 * k for k in range(1, number + 1)]
                assert session.total_steps == min(20 * (number + 1), 100), "it learned on, up to the next one"
                held = session.engine.parts.learner._area.held_bytes
                run.may_publish.release()
        run.may_publish.release()
        run.may_publish.release()
    assert len(set(run.pointers)) == 1, "always the same memory"
    assert held == sum(t.nbytes for t in tensors(load_checkpoint(run.checkpoint_path(100))))


def tensors(tree: Any) -> list[torch.Tensor]:
    match tree:
        case torch.Tensor():
            return [tree]
        case dict():
            return [tensor for part in tree.values() for tensor in tensors(part)]
        case list() | tuple():
            return [tensor for part in tree for tensor in tensors(part)]
        case _:
            return []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("last", "every", "kept"),
    [
        (2, 0, [90, 95]),
        (2, 30, [30, 60, 90, 95]),
        (1, 40, [40, 80, 95]),
        (0, 0, []),
        (None, 0, [*range(10, 91, 10), 95]),
    ],
)
async def test_checkpoints_of_round_numbers_are_kept_for_good(
    tmp_path: Path, last: int | None, every: int, kept: list[int]
) -> None:
    run = await TrainingRun.create("kept", root=tmp_path)
    async with TrainingSession(
        FakeAgent(), run, checkpoint_freq=10, keep_checkpoints=last, keep_every=every
    ) as session:
        await session.observe_many([transition(k) for k in range(95)])
    assert run.checkpoint_steps() == kept
    assert load_checkpoint(run.checkpoints_directory / "latest.pt")["session"]["total_steps"] == 95


@pytest.mark.anyio
@pytest.mark.parametrize("keep_best", [1, 2, 3])
async def test_the_best_few_are_kept_and_known_again_after_a_resume(tmp_path: Path, keep_best: int) -> None:
    run = await TrainingRun.create("best", root=tmp_path)
    values = [1.0, 5.0, 3.0, 4.0, 0.0, 5.0]
    saved: list[bool] = []
    for part in (values[:3], values[3:]):
        async with TrainingSession(FakeAgent(), run, keep_best=keep_best) as session:
            for value in part:
                await session.observe(transition(session.total_steps))
                await session.flush()
                saved.append(await session.maybe_save_best(value))
        run = await TrainingRun.resume(run.directory)
    assert saved == [True, True, False, False, False, False], "strictly above all before"
    assert run.bests() == [(5.0, 2), (5.0, 6), (4.0, 4)][:keep_best]
    best = load_checkpoint(run.best_checkpoint_path)
    assert best["best"] == {"value": 5.0, "total_steps": 2}
    assert best["agent"]["total_steps"] == 2


@pytest.mark.anyio
async def test_a_best_whose_caller_is_cancelled_is_still_to_be_beaten(tmp_path: Path) -> None:
    run = await TrainingRun.create("best", root=tmp_path)
    gate = Gate()
    async with TrainingSession(FakeAgent(), run) as session:
        await session.engine.parts.writer.submit(gate)
        async with anyio.create_task_group() as callers:
            callers.start_soon(session.maybe_save_best, 5.0)
            await anyio.wait_all_tasks_blocked()
            callers.cancel_scope.cancel()
        gate.release.set()
        assert not await session.maybe_save_best(3.0)
    assert run.load_best_score() == (5.0, 0)


@pytest.mark.anyio
async def test_of_two_evaluations_that_end_together_the_lower_one_is_not_the_best(tmp_path: Path) -> None:
    run = await TrainingRun.create("best", root=tmp_path)
    found: dict[float, bool] = {}

    async def save(mean: float) -> None:
        found[mean] = await session.maybe_save_best(mean)

    async with TrainingSession(FakeAgent(), run) as session, anyio.create_task_group() as evaluators:
        evaluators.start_soon(save, 5.0)
        evaluators.start_soon(save, 3.0)
    assert found == {5.0: True, 3.0: False}
    assert run.load_best_score() == (5.0, 0)
