"""Games with the plugin of Godot RL Agents as actors: each agent of each game is a stream of the service.

    we -> game   handshake, env_info, reset, then action for ever; or close
    game -> we   env_info, reset (observations), then step (observations, rewards, done)

Each message is its length in 4 bytes, the lowest first, and JSON. The games stay as they are. A game waits
for each answer, and a cut connection ends it, so nothing is ever sent twice.

The observation that comes with ``done`` belongs to the next episode. The last one of the episode before is
``info.terminal_observation``, and ``info["TimeLimit.truncated"]`` says that it was cut off, where the plugin
sends them; without them it is the same observation, and the episode has terminated.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
from anyio.abc import SocketListener, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from stoker.errors import StokerError
from stoker.protocol import ProtocolError, Record, Spaces, StepMessage, decode, encode_json
from stoker.service.godot_values import GameInfo, GameSpaces, Observed, spaces_of
from stoker.service.holders import Holder
from stoker.service.limits import Limits
from stoker.service.steps import StepService

_logger = logging.getLogger("stoker.service")

T = TypeVar("T")
_GONE = anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, OSError
_VERSION = {"major_version": "0", "minor_version": "7"}


class _Wire:
    """Messages to and from one game.

    Args:
        stream: the connection.
        limits: the length of a message, and how long one may take.
    """

    def __init__(self, stream: SocketStream, limits: Limits) -> None:
        self._stream, self._limits = stream, limits
        self._received = BufferedByteReceiveStream(stream)

    async def send(self, **message: Any) -> None:
        data = encode_json(message)
        with anyio.fail_after(self._limits.send_s):
            await self._stream.send(len(data).to_bytes(4, "little") + data)

    async def receive(self, kind: type[T], within_s: float) -> T:
        with anyio.fail_after(within_s):
            length = int.from_bytes(await self._received.receive_exactly(4), "little")
            if length > (most := self._limits.message_bytes):
                raise ProtocolError("too-large", f"a message of {length:,} bytes: at most {most:,} are taken")
            return decode(await self._received.receive_exactly(length), "json", kind, self._limits.depth)


class _Game:
    """The agents of one game, as actors of the service.

    Args:
        number: of the game; its agents continue the streams of the game before it with this number.
        info: what the game says of itself.
        spaces: of all its agents.
        service: takes their steps.
    """

    def __init__(self, number: int, info: GameInfo, spaces: GameSpaces, service: StepService) -> None:
        self.names = [f"godot-{number}-{agent}" for agent in range(info.n_agents)]
        self.holder = Holder(f"Godot game {number}", is_connection=True, take_over=True)
        self._spaces, self._service = spaces, service
        self._next: dict[str, int] = {}

    async def begin(self) -> None:
        """Find where the streams of its agents go on."""
        for name in self.names:
            try:
                self._next[name] = (await self._service.actor(name)).answer.next
            except ProtocolError as error:
                if error.kind != "unknown-actor":
                    raise
                self._next[name] = 1

    async def step(self, seen: Observed) -> list[Any] | None:
        """Take in what the agents saw; return their next actions, or None if the training is done."""
        seen.check(len(self.names))
        records = [record for agent in range(len(self.names)) for record in self._records(agent, seen)]
        while True:
            try:
                answer = await self._service.step(StepMessage(records), self.holder)
                break
            except ProtocolError as error:
                if error.kind == "training-done":
                    return None
                if error.kind != "busy":
                    raise
                await anyio.sleep(error.retry_after or 0.1)
        for record in records:
            self._next[record.actor] = record.seq + 1
        if answer.training == "done":
            return None
        return [self._spaces.named(answer.actors[name].action) for name in self.names]

    def _records(self, agent: int, seen: Observed) -> list[Record]:
        name, found = self.names[agent], self._spaces.observed(seen.obs[agent])
        seq = self._next[name]
        if seen.type == "reset":
            return [Record(name, seq, found, start=True)]
        reward = seen.reward[agent]
        if not seen.done[agent]:
            return [Record(name, seq, found, reward=reward)]
        is_cut_off, last, extras = seen.ending(agent)
        last = found if last is None else self._spaces.observed(last)
        ends: Any = {"terminated": not is_cut_off, "truncated": is_cut_off}
        end = Record(name, seq, last, reward=reward, extras=extras, act=False, **ends)
        return [end, Record(name, seq + 1, found, start=True)]


async def _opened(service_for: Callable[[Spaces], Awaitable[StepService]], spaces: Spaces) -> StepService:
    """The service, once it has opened its run: the game waits that long."""
    while True:
        try:
            return await service_for(spaces)
        except ProtocolError as error:
            if error.kind != "not-ready":
                raise
            await anyio.sleep(error.retry_after or 1.0)


async def _play(
    number: int, wire: _Wire, service_for: Callable[[Spaces], Awaitable[StepService]], limits: Limits
) -> str:
    """Play with a game, and return why it is over."""
    await wire.send(type="handshake", **_VERSION)
    await wire.send(type="env_info")
    info = await wire.receive(GameInfo, limits.hello_s)
    spaces = spaces_of(info)
    game = _Game(number, info, spaces, await _opened(service_for, spaces.spaces))
    try:
        await game.begin()
        await wire.send(type="reset")
        while (actions := await game.step(await wire.receive(Observed, limits.idle_s))) is not None:
            await wire.send(type="action", action=actions)
        return "the training is done"
    finally:
        game.holder.release()


async def serve_games(
    listener: socket.socket, service_for: Callable[[Spaces], Awaitable[StepService]], limits: Limits
) -> None:
    """Play with all games that connect, until cancelled.

    A game that is refused is closed, and the log says why; others are not disturbed.

    Args:
        listener: listens on a loopback address: the wire knows no tokens.
        service_for: waits until the session is open, and raises ``ProtocolError`` if its spaces are others.
        limits: the length and the depth of messages, how long they may take, and how many games may play.
    """
    playing: set[int] = set()

    async def play(stream: SocketStream) -> None:
        number = next(each for each in range(len(playing) + 1) if each not in playing)
        playing.add(number)
        wire, why = _Wire(stream, limits), ""
        try:
            async with stream:
                if len(playing) > limits.connections:  # a game shows the versions of a handshake
                    words = f"of a trainer that has no room for more than {limits.connections} games"
                    await wire.send(type="handshake", major_version=words, minor_version="")
                    return
                try:
                    why = await _play(number, wire, service_for, limits)
                    _logger.info("Godot game %d: %s", number, why)
                except (StokerError, TimeoutError) as error:
                    why = str(error) or "it did not answer in time"
                    _logger.warning("Godot game %d is closed: %s", number, why)
                except _GONE:
                    raise
                except Exception:  # one game's trouble is not that of the others
                    why = "the trainer failed"
                    _logger.exception("Godot game %d is closed", number)
                await wire.send(type="close", reason=why)
        except _GONE:
            _logger.info("Godot game %d has ended", number)
        finally:
            playing.discard(number)

    async with await SocketListener.from_socket(listener) as games:
        await games.serve(play)
