"""Acting together: one pass for all who wait, whatever becomes of some of them."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from stoker.errors import ConfigError, StokerError
from stoker.session.inference import SLOW_PASS_S, SLOW_PASSES, Inference
from stoker.session.policies import PinnedPolicy
from stoker.types import ActMode

pytestmark = pytest.mark.anyio
EXPLORE, EXPLOIT = ActMode.EXPLORE, ActMode.EXPLOIT


class Doubling:
    """Answers an observation with its double, remembers it, and notes who asked together and where."""

    def __init__(self, *, extras: bool = True) -> None:
        self.policy_extras = extras
        self.batches: list[tuple[list[Any], ActMode]] = []
        self.threads: set[str] = set()

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[Sequence[Any], Sequence[Any] | None]:
        self.batches.append((list(observations), mode))
        self.threads.add(threading.current_thread().name)
        return [2 * o for o in observations], [str(o) for o in observations] if self.policy_extras else None


@asynccontextmanager
async def running(policy: Any, place: str = "inline") -> AsyncIterator[Inference]:
    inference = Inference(PinnedPolicy(policy), place)
    try:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(inference.run)
                yield inference
                tasks.cancel_scope.cancel()
    finally:
        inference.close(RuntimeError)


@pytest.mark.parametrize("place", ["inline", "thread", "auto"])
async def test_everybody_gets_the_answer_to_the_own_observation(place: str) -> None:
    policy = Doubling()
    answers: dict[int, Any] = {}

    async def act(k: int) -> None:
        answers[k] = await inference.act(k, EXPLOIT if k % 3 == 0 else EXPLORE)

    async with running(policy, place) as inference:
        for _ in range(3):
            async with anyio.create_task_group() as actors:
                for k in range(100):
                    actors.start_soon(act, k)
            assert answers == {k: (2 * k, str(k)) for k in range(100)}
    assert inference.n_actions == 300
    assert inference.n_passes == len(policy.batches) <= 12, "by mode, two or so per round"
    for observations, mode in policy.batches:
        assert all((k % 3 == 0) == (mode is EXPLOIT) for k in observations), "modes are not mixed"
    assert ("stoker-inference" in policy.threads) == (place == "thread")


async def test_nothing_to_remember_is_none() -> None:
    async with running(Doubling(extras=False)) as inference:
        assert await inference.act(4, EXPLORE) == (8, None)


async def test_those_who_gave_up_are_not_acted_for() -> None:
    policy = Doubling()
    inference = Inference(PinnedPolicy(policy), "inline")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await inference.act(1, EXPLORE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(inference.run)
        assert await inference.act(2, EXPLORE) == (4, "2")
        tasks.cancel_scope.cancel()
    assert policy.batches == [([2], EXPLORE)]
    inference.close(RuntimeError)


async def test_closing_tells_those_who_wait_and_those_who_come() -> None:
    inference = Inference(PinnedPolicy(Doubling()), "inline")
    told: list[BaseException] = []

    async def act(k: int) -> None:
        try:
            await inference.act(k, EXPLORE)
        except StokerError as error:
            told.append(error)

    async with anyio.create_task_group() as actors:
        for k in range(3):
            actors.start_soon(act, k)
        await anyio.wait_all_tasks_blocked()
        inference.close(lambda: StokerError("over"))
    await act(9)
    assert [str(error) for error in told] == ["over"] * 4
    assert len({id(error) for error in told}) == 4, "one error each"


@pytest.mark.parametrize("place", ["inline", "thread"])
async def test_what_the_policy_raises_ends_it_and_those_who_waited_are_told(place: str) -> None:
    class Broken(Doubling):
        def act(self, observations: Sequence[Any], mode: ActMode) -> Any:
            raise ArithmeticError("no action")

    inference = Inference(PinnedPolicy(Broken()), place)
    told: list[BaseException] = []

    async def act(k: int) -> None:
        try:
            await inference.act(k, EXPLORE)
        except StokerError as error:
            told.append(error)

    async with anyio.create_task_group() as actors:
        for k in range(3):
            actors.start_soon(act, k)
        with pytest.raises(ArithmeticError, match="no action"):
            await inference.run()
        inference.close(lambda: StokerError("over"))
    assert [str(error) for error in told] == ["over"] * 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (([], None), "answered 1 observations with 0 actions"),
        (([1, 2], None), "with 2 actions"),
        (([1], []), "with 1 actions and 0 policy extras"),
    ],
)
async def test_an_answer_of_another_length_is_refused(answer: Any, message: str) -> None:
    class Wrong:
        def act(self, observations: Sequence[Any], mode: ActMode) -> Any:
            return answer

    inference = Inference(PinnedPolicy(Wrong()), "inline")

    async def act() -> None:
        with pytest.raises(RuntimeError):
            await inference.act(0, EXPLORE)

    async with anyio.create_task_group() as actors:
        actors.start_soon(act)
        with pytest.raises(ConfigError, match=message):
            await inference.run()
        inference.close(RuntimeError)


async def test_auto_moves_to_a_thread_when_passes_are_long() -> None:
    class Slow(Doubling):
        def act(self, observations: Sequence[Any], mode: ActMode) -> Any:
            until = time.thread_time() + 2 * SLOW_PASS_S
            while time.thread_time() < until:  # computes, as a large network does
                pass
            return super().act(observations, mode)

    policy = Slow()
    async with running(policy, "auto") as inference:
        for k in range(SLOW_PASSES):
            await inference.act(k, EXPLORE)
        assert policy.threads == {threading.current_thread().name}
        for k in range(2):
            assert await inference.act(k, EXPLORE) == (2 * k, str(k))
    assert "stoker-inference" in policy.threads
    assert inference.busy_s >= (SLOW_PASSES + 2) * 2 * SLOW_PASS_S
