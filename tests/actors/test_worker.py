"""A worker by itself: the messages it sends, when it waits, and how it obeys commands."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import anyio
import msgspec
import pytest
from portable_parts import Right, Seeded

from stoker.actors.messages import (
    Credit,
    Failed,
    Mailbox,
    Played,
    Ready,
    Stop,
    Weights,
    WorkerCommand,
    WorkerMessage,
)
from stoker.actors.worker import Assignment, OwnPolicy, Worker
from stoker.errors import ConfigError
from stoker.journal import EpisodeEnded, EpisodeStarted
from stoker.testing import ChainEnv, CrashingEnv
from stoker.types import Experience

pytestmark = pytest.mark.anyio
LATE = 3600.0


class Desk:
    """A worker, the messages it sent, and the way to send it commands."""

    def __init__(self, factory: Callable[[], Any] = Seeded, **settings: Any) -> None:
        self.messages: Mailbox[WorkerMessage] = Mailbox()
        self.commands: Mailbox[WorkerCommand] = Mailbox()
        self.merges = settings.get("max_delay_s") != 0.0
        self.policy = OwnPolicy(Right(), 0)
        assignment = Assignment(**{"actor_id": "a", "seed": 3, "episode": 0, "max_delay_s": LATE, **settings})
        self.worker = Worker(assignment, factory, self.policy, self.commands, self.messages.post)

    async def next(self) -> Any:
        """The next message; the start of the first episode, sent by itself, together with what follows it."""
        with anyio.fail_after(30):
            sent = await self.messages.take()
            if not self.merges or not isinstance(sent, Played) or sent.asks or len(sent.events) != 1:
                return sent
            self.merges = False
            (event,) = sent.events
            if not isinstance(event, EpisodeStarted):
                return sent
            more = await self.messages.take()
            if isinstance(more, Played):
                return msgspec.structs.replace(more, events=(event, *more.events))
            return more  # of an episode without a step

    async def quiet(self) -> bool:
        """Whether it sends nothing more, given every chance to."""
        await anyio.wait_all_tasks_blocked()
        sent = self.messages.take_now()
        return sent is None


def steps(played: Played) -> list[Experience]:
    return [event for event in played.events if isinstance(event, Experience)]


@contextlib.asynccontextmanager
async def at_work(factory: Callable[[], Any] = Seeded, **settings: Any) -> AsyncGenerator[Desk]:
    """A worker that plays while the block runs, and is stopped then."""
    desk = Desk(factory, **settings)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.worker.run)
        yield desk
        desk.commands.post(Stop())


async def test_it_plays_ahead_as_far_as_its_window_and_no_further() -> None:
    async with at_work(partial(ChainEnv, 1000), window_steps=10, batch_steps=4) as desk:
        assert await desk.next() == Ready()
        batches = [await desk.next() for _ in range(3)]
        assert [len(batch.events) for batch in batches] == [5, 4, 2], (
            "the first holds the episode's beginning"
        )
        assert isinstance(batches[0].events[0], EpisodeStarted)
        assert await desk.quiet()
        desk.commands.post(Credit(7))
        batches = [await desk.next() for _ in range(2)]
        assert [len(steps(batch)) for batch in batches] == [4, 3]
        assert await desk.quiet()
        assert all(min(batch.times_s) > 0 and not batch.asks for batch in batches)


async def test_it_announces_its_first_episode_before_that_begins() -> None:
    class Listening(ChainEnv):
        def reset(self, **given: Any) -> Any:
            announced.append(len(desk.messages))
            return super().reset(**given)

    announced: list[int] = []
    desk = Desk(Listening, window_steps=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.worker.run)
        assert [type(await desk.next()) for _ in range(2)] == [Ready, Played]
        desk.commands.post(Stop())
    assert announced[0] == 2, "this episode may end its process, and is not to be begun again"


async def test_its_environment_does_no_step_beyond_the_window() -> None:
    n_steps = 0

    class Counting(ChainEnv):
        def step(self, action: Any) -> Any:
            nonlocal n_steps
            n_steps += 1
            if n_steps == 50:  # ends a worker that does not stop
                raise RuntimeError("too many steps")
            return super().step(action)

    async with at_work(Counting, window_steps=20):
        await anyio.wait_all_tasks_blocked()
        assert n_steps == 20


async def test_an_episode_is_sent_at_its_end_with_its_steps_in_order() -> None:
    async with at_work(window_steps=5, batch_steps=100) as desk:
        await desk.next()
        played = await desk.next()
        kinds = [type(event) for event in played.events]
        assert kinds == [EpisodeStarted, *[Experience] * 3, EpisodeEnded]
        first, second, third = steps(played)
        assert first.next_observation is second.observation
        assert second.next_observation is third.observation
        assert third.status.is_terminal
        assert {step.policy_version for step in (first, second, third)} == {0}


async def test_without_delay_each_step_is_one_message() -> None:
    async with at_work(partial(ChainEnv, 1000), window_steps=5, max_delay_s=0.0) as desk:
        await desk.next()
        assert [len((await desk.next()).events) for _ in range(6)] == [1] * 6
        assert await desk.quiet()


async def test_where_it_asks_it_does_one_step_for_each_permission_with_the_newest_weights() -> None:
    async with at_work(asks=True) as desk:
        await desk.next()
        for version in (0, 4, 6):
            asking = await desk.next()
            assert asking.asks
            assert await desk.quiet()
            desk.commands.post(Weights(version, Right(version).weights()))
            desk.commands.post(Credit(1))
        asking = await desk.next()
        last, ended = asking.events[-1], asking.events
        assert [step.policy_version for step in steps(asking)] == [6] or isinstance(last, EpisodeEnded)
        assert ended
        assert desk.policy.version == asking.version == 6


async def test_stopped_while_it_waits_for_permission_it_does_no_step() -> None:
    n_steps = 0

    class Counting(ChainEnv):
        def step(self, action: Any) -> Any:
            nonlocal n_steps
            n_steps += 1
            return super().step(action)

    async with at_work(Counting, asks=True) as desk:
        await desk.next()
        while not (await desk.next()).asks:
            pass
        assert await desk.quiet()
    assert n_steps == 0


async def test_old_weights_do_not_replace_newer_ones() -> None:
    async with at_work(asks=True) as desk:
        await desk.next()
        for version, expected in ((4, 4), (2, 4), (5, 5)):
            await desk.next()
            desk.commands.post(Weights(version, Right(version).weights()))
            desk.commands.post(Credit(1))
            await anyio.wait_all_tasks_blocked()
            assert desk.policy.version == expected


async def test_what_was_played_before_a_failure_is_sent_before_it_and_the_worker_ends() -> None:
    made: list[Any] = []

    def factory() -> Any:
        made.append(CrashingEnv(Seeded(), {2}))
        return made[-1]

    async with at_work(factory, window_steps=4, batch_steps=100) as desk:
        await desk.next()
        played, failed = await desk.next(), await desk.next()
        assert len(steps(played)) == 1
        assert isinstance(failed, Failed)
        assert str(failed.error) == "simulator crashed"
        assert await desk.quiet()
        assert len(made) == 1


async def test_a_failure_that_retries_cannot_correct_is_sent_and_ends_the_worker() -> None:
    async with at_work(object) as desk:
        await desk.next()
        failed = await desk.next()
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, ConfigError)


async def test_an_error_of_the_policy_is_sent_with_the_observation() -> None:
    class Wrong(ChainEnv):
        def reset(self, **settings: Any) -> Any:
            observation, info = super().reset(**settings)
            return observation - 13, info

    async with at_work(Wrong) as desk:
        await desk.next()
        failed = await desk.next()
        assert isinstance(failed, Failed)
        assert failed.observation.tolist() == [-13.0]
        assert isinstance(failed.error, ZeroDivisionError)
