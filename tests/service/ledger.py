"""Actors that write down each record before they send it, in Python over WebSocket.

``python ledger.py PORT FILE FIRST N RECORDS``: actors with the numbers FIRST to FIRST + N - 1 send so many
records each, some connections as text and some as msgpack, one to four actors on each. A line of the file is
``[actor, seq, start, observation, action, reward, end]``; an end of 1 is terminated, of 2 truncated. Ends
with 0 when all records are on the server's disk. ``ledger.mjs`` and ``ledger.rs`` do the same by requests;
nothing here knows of stoker.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

ANSWER_S = 30.0
"""A server that was killed behind a proxy may leave a connection without an end."""
MOST_PER_CONNECTION = 4
END_CONTINUING, END_TERMINATED, END_TRUNCATED = range(3)


class Actor:
    """One stream of records, and what of it may still be lost.

    Attributes:
        next: the number that the server waits for.
        unsafe: the records that are not known to be on disk; those from ``next`` on are not accepted.
    """

    def __init__(self, number: int, n_records: int, ledger: TextIO) -> None:
        self.name = f"py-{number}"
        self.next = 1
        self.unsafe: list[dict[str, Any]] = []
        self._number = number
        self._left = n_records
        self._ledger = ledger
        self._seq = self._step = self._length = 0
        self._episode = -1
        self._last: list[dict[str, Any]] = []
        self._answered: dict[str, Any] | None = None

    def to_send(self) -> list[dict[str, Any]]:
        """What the server has not accepted, or not answered with an action; else a new record, if any."""
        if self.next <= self._seq:
            return [record for record in self.unsafe if record["seq"] >= self.next]
        if not self._left:
            return []
        if self._last and self._answered is None:
            return self._last
        self._last = [self._new_record()]
        self.unsafe += self._last
        return self._last

    @property
    def last(self) -> list[dict[str, Any]]:
        """The last record, while any is unsafe: its repetition asks how much is on disk."""
        return self.unsafe[-1:]

    @property
    def is_over(self) -> bool:
        return not self._left and not self.unsafe

    def take(self, answer: dict[str, Any], *, is_refusal: bool) -> None:
        """Note what the server says about this actor; a refusal has no actions."""
        self.next = answer["next"]
        durable = answer.get("durable", 0)
        self.unsafe = [record for record in self.unsafe if record["seq"] > durable]
        if self.next > self._seq and not is_refusal:
            self._answered = answer

    def _new_record(self) -> dict[str, Any]:
        """The next record of a world that numbers alone decide."""
        number, seq = self._number, self._seq + 1
        start = self._step == self._length or (self._episode % 11 == 7 and 2 * self._step > self._length)
        if start:
            self._episode += 1
            self._step, self._length = 0, 3 + (7 * number + 5 * self._episode) % 29
        else:
            self._step += 1
        observation = [float(number), float(seq % 1000), float(self._step), float(self._episode % 100)]
        record: dict[str, Any] = {"actor": self.name, "seq": seq, "observation": observation}
        action, reward, end = None, None, END_CONTINUING
        if start:
            record["start"] = True
        else:
            if seq % 5 == 0:
                action = (seq + number) % 3  # another than the policy's
            else:
                assert self._answered is not None
                action, record["memo"] = self._answered["action"], self._answered["memo"]
            reward = (37 * seq + number) % 101 / 8
            record |= {"action": action, "reward": reward}
            if self._step == self._length:
                end = END_TERMINATED if (self._episode + number) % 2 else END_TRUNCATED
                record["terminated" if end == END_TERMINATED else "truncated"] = True
        self._seq, self._left, self._answered = seq, self._left - 1, None
        line = [self.name, seq, start, observation, action, reward, end]
        self._ledger.write(json.dumps(line) + "\n")
        return record


class Connection:
    """Several actors that share a WebSocket and wait for each other's answers."""

    def __init__(self, port: int, actors: Sequence[Actor], *, as_text: bool) -> None:
        self._url = f"ws://127.0.0.1:{port}/v1/stream"
        self._actors = {actor.name: actor for actor in actors}
        self._as_text = as_text
        self._id = 0

    async def play(self) -> None:
        """Play to the end, over as many connections as that takes."""
        pause_s = 0.01
        while not all(actor.is_over for actor in self._actors.values()):
            try:
                async with self._connect() as socket:
                    await self._ask(socket, {"hello": {"take_over": list(self._actors)}})
                    pause_s = 0.01
                    await self._talk(socket)
            except (OSError, WebSocketException, TimeoutError, EOFError):
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
                pause_s = min(2 * pause_s, 1.0)

    def _connect(self) -> connect:
        subprotocol = Subprotocol("stoker.v1")
        return connect(self._url, subprotocols=[subprotocol], ping_interval=None, compression=None)

    async def _talk(self, socket: ClientConnection) -> None:
        actors = self._actors.values()
        while not all(actor.is_over for actor in actors):
            self._id += 1
            message: dict[str, Any] = {
                "steps": [r for actor in actors for r in actor.to_send()],
                "id": self._id,
            }
            if not message["steps"]:
                message |= {"steps": [r for actor in actors for r in actor.last], "ack": "durable"}
            answer = await self._ask(socket, message)
            if (problem := answer.get("error")) is not None:
                if problem["status"] in (429, 503):
                    await asyncio.sleep(0.1)
                elif problem["status"] != 409:
                    raise SystemExit(f"refused: {problem}")
                answer = problem
            for name, one in (answer.get("actors") or {}).items():
                self._actors[name].take(one, is_refusal=problem is not None)

    async def _ask(self, socket: ClientConnection, message: dict[str, Any]) -> dict[str, Any]:
        encode = msgspec.json.encode if self._as_text else msgspec.msgpack.encode
        decode = msgspec.json.decode if self._as_text else msgspec.msgpack.decode
        await socket.send(encode(message), text=self._as_text)
        async with asyncio.timeout(ANSWER_S):
            data = await socket.recv(decode=False)
        return decode(data)


async def play(port: int, actors: list[Actor]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for i in itertools.count():
            n_together = 1 + i % MOST_PER_CONNECTION
            together, actors = actors[:n_together], actors[n_together:]
            if not together:
                break
            tasks.create_task(Connection(port, together, as_text=i % 2 == 0).play())


def main(port: int, first: int, n_actors: int, n_records: int) -> None:
    with Path(sys.argv[2]).open("w") as ledger:
        actors = [Actor(first + i, n_records, ledger) for i in range(n_actors)]
        asyncio.run(play(port, actors))


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(int, sys.argv[3:]))
