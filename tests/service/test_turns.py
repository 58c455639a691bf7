"""The order of messages: first come, first served, whatever actors they share, and whoever gives up."""

from __future__ import annotations

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from stoker.service.table import Stream
from stoker.service.turns import queue_up

pytestmark = pytest.mark.anyio


class Messages:
    """Messages of actors that run until they are told to end; who has had their turn, in order."""

    def __init__(self, actors: str) -> None:
        self.streams = {actor: Stream(actor) for actor in actors}
        self.had: list[str] = []
        self.ends: dict[str, anyio.Event] = {}
        self.scopes: dict[str, anyio.CancelScope] = {}

    async def send(self, name: str, actors: str) -> None:
        self.ends[name] = anyio.Event()
        turn = queue_up([self.streams[actor] for actor in actors])
        with anyio.CancelScope() as self.scopes[name]:
            try:
                await turn.wait()
                self.had.append(name)
                await self.ends[name].wait()
            finally:
                turn.end()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await wait_all_tasks_blocked()

    async def give_up(self, name: str) -> None:
        self.scopes[name].cancel()
        await wait_all_tasks_blocked()


async def test_messages_that_share_an_actor_come_one_after_the_other_and_others_at_once() -> None:
    messages = Messages("abc")
    async with anyio.create_task_group() as tasks:
        for name, actors in [("1", "a"), ("2", "ab"), ("3", "b"), ("4", "c"), ("5", "a")]:
            tasks.start_soon(messages.send, name, actors)
            await wait_all_tasks_blocked()
        assert messages.had == ["1", "4"]
        await messages.end("1")
        assert messages.had == ["1", "4", "2"]
        await messages.end("2")
        assert messages.had[:3] == ["1", "4", "2"]
        assert sorted(messages.had[3:]) == ["3", "5"]
        for name in "345":
            await messages.end(name)
    assert all(stream.last_turn is None and not stream.n_turns for stream in messages.streams.values())


async def test_who_gives_up_lets_the_next_wait_for_those_before() -> None:
    messages = Messages("ab")
    async with anyio.create_task_group() as tasks:
        for name, actors in [("1", "a"), ("2", "b"), ("3", "ab"), ("4", "ab"), ("5", "a")]:
            tasks.start_soon(messages.send, name, actors)
            await wait_all_tasks_blocked()
        await messages.give_up("3")
        await messages.give_up("4")
        assert sorted(messages.had) == ["1", "2"], "5 shares an actor with 1, which still runs"
        tasks.start_soon(messages.send, "6", "b")
        await wait_all_tasks_blocked()
        await messages.give_up("1")
        assert sorted(messages.had) == ["1", "2"], "6 shares one with 2"
        await messages.end("2")
        assert sorted(messages.had) == ["1", "2", "5", "6"]
        await messages.end("5")
        await messages.end("6")
    assert all(stream.last_turn is None and not stream.n_turns for stream in messages.streams.values())
