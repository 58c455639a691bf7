"""Where an agent is called: on the learner's thread, or on the event loop while it will not learn yet."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import pytest

from stoker import EpisodeStatus, Experience, TrainingSession
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio


class Threads(FakeAgent):
    """Notes on which thread it is called, at which of its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.observed: dict[int, int] = {}
        self.learned: dict[int, int] = {}

    def observe(self, experiences: Sequence[Experience]) -> None:
        super().observe(experiences)
        self.observed[self.total_steps] = threading.get_ident()

    def learn(self) -> Mapping[str, float] | None:
        self.learned[self.total_steps] = threading.get_ident()
        return super().learn()


class Seldom(Threads):
    """The same, and learns from twelve at a time."""

    @property
    def steps_to_learn(self) -> int:
        return 12 - self.total_steps % 12 if self.learned_at[-1:] != [self.total_steps] else 12


async def play(session: TrainingSession, n_steps: int, *, pauses: bool) -> None:
    for number in range(n_steps):
        await session.observe(Experience(None, 0, 1.0, None, EpisodeStatus.CONTINUING))
        while pauses and session.total_steps <= number:  # noqa: ASYNC110 - no barrier, which ends a wait
            await anyio.sleep(1e-3)


@pytest.mark.parametrize("pauses", [False, True])
async def test_an_agent_is_called_on_one_thread(pauses: bool) -> None:
    agent = Threads()
    with anyio.fail_after(60):
        async with TrainingSession(agent, opt_interval=3) as session:
            await play(session, 30, pauses=pauses)
    threads = {*agent.observed.values(), *agent.learned.values()}
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert agent.learned_at == list(range(3, 31, 3))


async def test_an_agent_that_learns_seldom_is_fed_on_the_event_loop_and_learns_on_its_thread() -> None:
    agent, here = Seldom(), threading.get_ident()
    with anyio.fail_after(60):
        async with TrainingSession(agent) as session:
            await play(session, 30, pauses=True)
    assert agent.total_steps == 30
    assert agent.learned_at == [12, 24]
    assert here not in agent.learned.values()
    assert {step for step, thread in agent.observed.items() if thread != here} == {12, 24}


async def test_what_was_fed_on_the_event_loop_can_fail_like_the_rest() -> None:
    class Failing(Seldom):
        def observe(self, experiences: Sequence[Experience]) -> None:
            super().observe(experiences)
            if self.total_steps == 5:
                raise RuntimeError("at five")

    session: Any = TrainingSession(Failing())
    with anyio.fail_after(60), pytest.raises(Exception, match="at five"):
        async with session:
            await play(session, 30, pauses=True)
