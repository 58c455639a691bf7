"""Ctrl-C between any two bytecodes: what a call handed in is wholly in or wholly out, and is counted so.

Each call is interrupted before its first bytecode, before its second, and so on until it gets through. Only
the session's own code is, without the locks of ``PolicyBuffer``: a real signal handler never runs between the
bytecodes that release a lock.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import numpy as np
import pytest

import stoker
from stoker import ActMode, EpisodeStatus, Experience, ExperienceBatch, SyncTrainingSession, TrainingSession
from stoker.journal import EpisodeStarted
from stoker.queues import BatchQueue
from stoker.testing import FakeAgent

# A coroutine that was made and not awaited yet when the interruption came.
pytestmark = pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited:RuntimeWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)

HOUR_S = 3600.0
PATIENCE_S = 30.0
SOURCE = Path(stoker.__file__).parent
INTERRUPTED = {
    str(SOURCE / name)
    for name in (
        "queues.py", "session/sync.py", "session/intake.py", "session/training.py", "session/readings.py",
        "session/lifecycle.py", "session/mixed.py",
        "session/acting.py", "session/pacing.py", "session/accepting.py", "session/batches.py",
        "session/decisions.py", "session/publishing.py",
    )
}  # fmt: skip
assert all(Path(name).exists() for name in INTERRUPTED)


def interrupted(call: Callable[[], object], n: int) -> bool:
    """Raise KeyboardInterrupt before the n-th bytecode of a call; say whether it had so many."""
    left = n

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        code = frame.f_code
        if code.co_filename not in INTERRUPTED or code.co_qualname.startswith("PolicyBuffer."):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def step(k: int, actor_id: int = 0) -> Experience:
    return Experience(k, 0, 1.0, k, EpisodeStatus.CONTINUING, actor_id)


class NeedsExtras(FakeAgent):
    needs_policy_extras = True


AGENTS: list[Callable[[], FakeAgent]] = [FakeAgent, lambda: NeedsExtras(policy_extras=True)]


def check(agent: FakeAgent, attempts: list[tuple[list[int], bool]], total: int, accepted: int) -> None:
    """What returned is in, in order and once; what was interrupted is, or is not, and is counted as it is."""
    consumed = [experience.observation for experience in agent.experiences]
    assert accepted == total == len(consumed)
    expected: list[int] = []
    for serials, returned in attempts:
        there = [serial for serial in serials if serial in consumed]
        assert there == serials[: len(there)]
        assert not returned or there == serials, f"{serials} returned and are not in"
        expected += there
    assert consumed == expected
    assert any(there for there in expected)


@pytest.mark.parametrize("make_agent", AGENTS, ids=["plain", "extras"])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("width", [1, 4], ids=["observe", "observe_many"])
def test_a_plain_loop_loses_nothing_when_observing_is_interrupted(
    make_agent: Callable[[], FakeAgent], batch_size: int, width: int
) -> None:
    agent = make_agent()
    attempts: list[tuple[list[int], bool]] = []
    with SyncTrainingSession(agent, batch_size=batch_size, max_delay_s=HOUR_S) as session:
        for n in range(1, 10_000):
            first = n * width
            serials = list(range(first, first + width))
            if agent.needs_policy_extras:
                steps = [with_extras(session, k) for k in serials]
            else:
                steps = [step(k) for k in serials]

            def call(steps: list[Experience] = steps) -> None:
                session.observe(steps[0]) if width == 1 else session.observe_many(steps)

            returned = not interrupted(call, n)
            attempts.append((serials, returned))
            if n % 10 == 0 or returned:
                session.flush()
                assert session.accepted_steps == session.total_steps
            if returned:
                break
        else:
            raise AssertionError("it never got through")
    check(agent, attempts, session.total_steps, session.accepted_steps)


@pytest.mark.parametrize("make_agent", AGENTS, ids=["plain", "extras"])
@pytest.mark.parametrize("batch_size", [1, 64])
def test_a_batch_is_in_or_out_as_a_whole_when_it_is_interrupted(
    make_agent: Callable[[], FakeAgent], batch_size: int
) -> None:
    agent, ids = make_agent(), (0, 1, 2)
    attempts: list[tuple[list[int], bool]] = []
    with SyncTrainingSession(agent, batch_size=batch_size, max_delay_s=HOUR_S) as session:
        for n in range(1, 10_000):
            serials = [3 * n + row for row in ids]
            columns = np.array(serials), np.zeros(3, int), np.ones(3), np.array(serials)
            extras = np.ones((3, 1)) if agent.needs_policy_extras else None
            flags = np.zeros(3, np.bool_)
            batch = ExperienceBatch(*columns, flags, flags, ids, extras)
            returned = not interrupted(lambda batch=batch: session.observe_batch(batch), n)
            attempts.append((serials, returned))
            if n % 10 == 0 or returned:
                session.flush()
                assert session.accepted_steps == session.total_steps
                assert session.total_steps % 3 == 0
            if returned:
                break
        else:
            raise AssertionError("it never got through")
    check(agent, attempts, session.total_steps, session.accepted_steps)


def test_events_of_several_kinds_are_in_or_out_together_when_they_are_interrupted() -> None:
    agent = FakeAgent()
    attempts: list[tuple[list[int], bool]] = []
    with SyncTrainingSession(agent, max_delay_s=HOUR_S) as session:
        for n in range(1, 10_000):
            serials = [2 * n, 2 * n + 1]
            events = [EpisodeStarted(0), *map(step, serials)]
            returned = not interrupted(lambda events=events: session.observe_events(events), n)
            attempts.append((serials, returned))
            if n % 10 == 0 or returned:
                session.flush()
                assert session.accepted_steps == session.total_steps == 2 * len(agent.started)
            if returned:
                break
        else:
            raise AssertionError("it never got through")
    check(agent, attempts, session.total_steps, session.accepted_steps)


def with_extras(session: SyncTrainingSession, k: int) -> Experience:
    decision = session.decide(k)
    return Experience(k, decision.action, 1.0, k, EpisodeStatus.CONTINUING, 0, decision.policy_extras)


def each_sync(session: SyncTrainingSession) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "act", lambda: session.act(0)
    yield "decide", lambda: session.decide(0)
    yield "exploit", lambda: session.act(0, ActMode.EXPLOIT)
    yield "on_episode_start", session.on_episode_start
    yield "on_episode", lambda: session.on_episode(1.0, 1, EpisodeStatus.TERMINATED)
    yield "flush", session.flush


def test_a_plain_loop_goes_on_after_any_other_call_was_interrupted() -> None:
    agent = NeedsExtras(policy_extras=True)
    episodes = 0
    with SyncTrainingSession(agent, batch_size=3, max_delay_s=HOUR_S) as session:
        for name, call in each_sync(session):
            for n in range(1, 10_000):
                was_interrupted = interrupted(call, n)
                session.flush()
                counted, episodes = session.total_episodes - episodes, session.total_episodes
                assert counted == 0 or name == "on_episode"
                assert counted in (0, 1) if was_interrupted else counted == int(name == "on_episode")
                session.observe(Experience(n, session.act(n), 1.0, n, EpisodeStatus.CONTINUING))
                if not was_interrupted:
                    break
    assert session.accepted_steps == session.total_steps == len(agent.experiences)
    assert all(experience.policy_extras == experience.observation for experience in agent.experiences)


def test_a_plain_loop_that_is_interrupted_while_it_leaves_loses_nothing() -> None:
    for n in range(1, 10_000):
        agent = FakeAgent()
        session = SyncTrainingSession(agent, max_delay_s=HOUR_S).__enter__()
        for k in range(5):
            session.observe(step(k))
        was_interrupted = interrupted(lambda: session.__exit__(None, None, None), n)  # noqa: B023
        if was_interrupted and not session.session.engine.parts.written.is_set():
            session.__exit__(None, None, None)
        assert session.accepted_steps == session.total_steps == len(agent.experiences) == 5
        if not was_interrupted:
            break


def sent(call: Callable[[], Awaitable[object]]) -> Callable[[], None]:
    """Drive a coroutine up to its end or its first wait, where it is given up."""

    def drive() -> None:
        coroutine: Any = call()
        try:
            coroutine.send(None)
        except StopIteration:
            return
        coroutine.close()

    return drive


@pytest.mark.anyio
@pytest.mark.parametrize("make_agent", AGENTS, ids=["plain", "extras"])
@pytest.mark.parametrize("behind", [False, True], ids=["the consumer waits", "the consumer was woken"])
async def test_observing_is_in_or_out_when_it_is_interrupted(
    make_agent: Callable[[], FakeAgent], behind: bool
) -> None:
    agent = make_agent()
    attempts: list[tuple[list[int], bool]] = []
    with anyio.fail_after(PATIENCE_S):
        async with TrainingSession(agent) as session:
            for n in range(1, 10_000):
                if agent.needs_policy_extras:
                    await session.act(-n)
                    await session.act(n, actor_id=1)
                await session.flush()
                if behind:
                    await session.observe(step(-n))
                    attempts.append(([-n], True))
                returned = not interrupted(sent(lambda: session.observe(step(n, 1))), n)  # noqa: B023
                attempts.append(([n], returned))
                await session.flush()
                assert session.accepted_steps == session.total_steps
                if returned:
                    break
    check(agent, attempts, session.total_steps, session.accepted_steps)


def test_any_other_call_may_be_interrupted_and_the_session_goes_on() -> None:
    """Driven by hand up to its wait: on asyncio, whose waits allow that."""

    async def run() -> None:
        agent = NeedsExtras(policy_extras=True)
        with anyio.fail_after(PATIENCE_S):
            async with TrainingSession(agent) as session:
                # An actor_id for each: no signal interrupts the cleanup of act, and this does.
                def each(n: int) -> list[Callable[[], Awaitable[object]]]:
                    return [
                        lambda: session.act(0, actor_id=n),
                        lambda: session.decide(0, actor_id=n),
                        lambda: session.act(0, ActMode.EXPLOIT, n),
                        lambda: session.on_episode_start(n),
                        lambda: session.on_episode(1.0, 1, EpisodeStatus.TERMINATED, actor_id=n),
                        lambda: session.observe_many([]),
                    ]

                for place in range(6):
                    for n in range(1, 10_000):
                        was_interrupted = interrupted(sent(each(n)[place]), n)
                        await session.act(n)
                        await session.observe(step(n))
                        if not was_interrupted:
                            break
        assert session.accepted_steps == session.total_steps == len(agent.experiences)

    anyio.run(run)


def test_the_policy_is_asked_for_the_actors_that_wait_whoever_was_interrupted() -> None:
    """Driven by hand between a caller that waits and the pass that answers it: on asyncio."""

    class ForActors(FakeAgent):
        def act_for(self, observations: Any, mode: ActMode, actor_ids: Any) -> Any:
            answer, _ = self.act(observations, mode)
            return answer, list(zip(observations, actor_ids, strict=True))

        def end_episode(self, actor_id: Any) -> None:
            raise AssertionError(actor_id)

    async def run() -> None:
        with anyio.fail_after(PATIENCE_S):
            async with TrainingSession(ForActors()) as session:
                for n in range(1, 10_000):
                    waiting = asyncio.create_task(session.decide(n, actor_id="waits"))
                    await asyncio.sleep(0)
                    was_interrupted = interrupted(sent(lambda: session.decide(0, actor_id="other")), n)
                    assert (await waiting).policy_extras == (n, "waits")
                    if not was_interrupted:
                        break

    anyio.run(run)


@pytest.mark.anyio
async def test_the_limit_is_exact_after_interruptions() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent, max_steps=50) as session:
        for n in range(1, 1000):
            await session.flush()
            interrupted(sent(lambda: session.observe(step(n))), n)  # noqa: B023
            await session.observe(step(n))
    assert session.total_steps == session.accepted_steps == 50


@pytest.mark.anyio
@pytest.mark.parametrize("capacity", [1, 3])
async def test_producers_who_wait_are_called_whatever_was_interrupted(capacity: int) -> None:
    """The consumer is interrupted where it calls producers, and calls again: all of them get through."""
    for n in range(1, 10_000):
        queue: BatchQueue[int] = BatchQueue(capacity)
        taken: list[int] = []
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as producers:
                for k in range(6):
                    producers.start_soon(queue.put, k)
                await anyio.lowlevel.checkpoint()
                taken += queue.take_now()
                was_interrupted = interrupted(queue.refill, n)
                while len(taken) < 6:
                    queue.refill()
                    await anyio.lowlevel.checkpoint()
                    taken += queue.take_now()
        assert sorted(taken) == list(range(6))
        if not was_interrupted:
            break


def test_a_producer_that_is_interrupted_once_it_was_called_lets_the_next_ones_in() -> None:
    """Driven by hand, to interrupt this very producer: on asyncio, whose waits allow that."""

    async def run() -> None:
        for n in range(1, 10_000):
            queue: BatchQueue[int] = BatchQueue(1)
            await queue.put(0)
            driven: Any = queue.put(1)
            driven.send(None)  # it waits
            async with anyio.create_task_group() as producers:
                for k in (2, 3):
                    producers.start_soon(queue.put, k)
                await anyio.lowlevel.checkpoint()
                taken = queue.take_now()
                queue.refill()
                was_interrupted = interrupted(lambda: resumed(driven), n)  # noqa: B023
                with anyio.fail_after(PATIENCE_S):
                    while not {2, 3} <= set(taken):
                        await anyio.lowlevel.checkpoint()
                        taken += queue.take_now()
                        queue.refill()
            assert sorted(taken) in ([0, 1, 2, 3], [0, 2, 3])
            if not was_interrupted:
                assert sorted(taken) == [0, 1, 2, 3]
                break

    anyio.run(run)


def resumed(coroutine: Any) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits again")
