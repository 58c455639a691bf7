"""The frames of WebSockets, at a third of the cost: what a lockstep client waits for at each step.

uvicorn's protocol for `websockets` takes 20 us for a message and its answer. Here a whole frame with a
message in it is read and written directly. Everything else is left to that protocol: handshakes, control
frames, messages in several frames, errors. It only ever gets whole frames, so both can take turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

if TYPE_CHECKING:
    from websockets.utils import apply_mask
else:
    try:
        from websockets.speedups import apply_mask
    except ImportError:  # no compiler had been there
        from websockets.utils import apply_mask

_TEXT: Final = 0x81
_BINARY: Final = 0x82
_MOST_UNREAD: Final = 16
"""Messages that wait for the application as events; further ones wait as bytes."""


class FrameProtocol(WebSocketsSansIOProtocol):
    """A WebSocket of uvicorn: give the class to ``uvicorn.Config(ws=...)``. Compression is not offered.

    A client whose messages are not read is not read from: at most what the system hands over at once waits.
    Behind a close, the bytes of one message are read at most: for the close that answers it.
    """

    read_paused: bool

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.queue: Any = _Events()
        self._buffer: bytes = b""
        self._position: int = 0
        self._is_in_message: bool = False  # of several frames
        self._n_behind_close: int = 0
        self._is_left_alone: bool = bool(self.config.ws_per_message_deflate)

    def data_received(self, data: bytes) -> None:
        """Take in bytes: of the handshake, or of frames."""
        if self.close_sent:
            self._n_behind_close += len(data)
            if self._n_behind_close > self.config.ws_max_size:
                self.transport.pause_reading()
                return
        if self._is_left_alone or not self.handshake_complete:
            # Bytes behind a handshake that is not answered yet may end anywhere.
            self._is_left_alone = self._is_left_alone or self.handshake_initiated
            super().data_received(data)
            return
        if self._position < len(self._buffer):
            data = self._buffer[self._position :] + data
        self._buffer, self._position = data, 0
        self._read_frames()

    async def receive(self) -> Any:
        """The next event, as ASGI has it."""
        event = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self._read_frames()
            if self.queue.empty():
                self.read_paused = False
                self.transport.resume_reading()
        return event

    async def send(self, message: Any) -> None:
        """Send an event of ASGI; waits while the client does not read.

        Raises:
            ClientDisconnected: Nothing can be sent any more.
        """
        if (
            message["type"] == "websocket.send"
            and self.writable.is_set()
            and self.conn.state is State.OPEN
            and not (self.close_sent or self.disconnected or self._is_left_alone)
        ):
            text = message.get("text")
            first, data = (_BINARY, message["bytes"]) if text is None else (_TEXT, text.encode())
            size = len(data)
            if size < 126:
                head = bytes((first, size))
            elif size < 1 << 16:
                head = bytes((first, 126, size >> 8, size & 255))
            else:
                head = bytes((first, 127)) + size.to_bytes(8, "big")
            self.transport.write(head + data)
        elif self.close_sent and message["type"] == "websocket.send":
            raise ClientDisconnected  # a broken frame closed it: no fault of the application
        else:
            await super().send(message)
            if self.close_sent:  # the client's own close may be behind messages that nobody will read
                self._read_frames()

    def _read_frames(self) -> None:
        """Read whole frames, until there is none left or enough messages wait."""
        data, length, queue = self._buffer, len(self._buffer), self.queue
        position = self._position
        while position < length and not self._is_left_alone:
            if len(queue) >= _MOST_UNREAD and self.conn.state is State.OPEN:
                break
            end = _end_of_frame(data, position, self.config.ws_max_size)
            if end > length:
                break
            first = data[position]
            if end < 0 or self.conn.state is not State.OPEN:  # the other protocol knows what is wrong
                end = self._leave_alone(data[position:], length)
            elif first not in (_TEXT, _BINARY) or self._is_in_message:
                if first & 15 < 8:
                    self._is_in_message = first < 0x80
                super().data_received(data[position:end])
            else:
                begin = position + (
                    6 if data[position + 1] < 0xFE else 8 if data[position + 1] == 0xFE else 14
                )
                payload = apply_mask(data[begin:end], data[begin - 4 : begin])
                if first == _BINARY:
                    queue.put_nowait({"type": "websocket.receive", "bytes": payload})
                else:
                    try:
                        queue.put_nowait({"type": "websocket.receive", "text": payload.decode()})
                    except UnicodeDecodeError:
                        self._refuse_text()
                        end = length
            position = end
        self._position = position
        is_behind = bool(queue) and (position < length or len(queue) > 1)
        if is_behind and not (self.read_paused or self.close_sent):
            self.read_paused = True
            self.transport.pause_reading()

    def send_receive_event_to_app(self) -> None:
        """Hand over a message that came in several frames; called by the other protocol."""
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self._refuse_text()
                return
        super().send_receive_event_to_app()

    def _refuse_text(self) -> None:
        """Close a connection on which a text is no UTF-8; the other protocol would log a traceback of it."""
        self._is_left_alone = True
        if not self.close_sent:
            self.conn.send_close(1007, "a text is no UTF-8")
            self.handle_parser_exception()

    def _leave_alone(self, data: bytes, length: int) -> int:
        """Give what is left, and all that comes, to the other protocol."""
        self._is_left_alone = True
        super().data_received(data)
        return length


def _end_of_frame(data: bytes, position: int, most: int) -> int:
    """Where the frame at a position ends; that may be behind the data. -1: it is not masked, or too large."""
    length = len(data) - position
    if length < 6:  # also of a frame that can be refused at once
        return -1 if length > 1 and data[position + 1] < 0x80 else len(data) + 1
    size, begin = data[position + 1] - 0x80, 6
    if size > 125:
        begin = 8 if size == 126 else 14
        if length < begin:
            return len(data) + 1
        size = int.from_bytes(data[position + 2 : position + begin - 4], "big")
    return position + begin + size if 0 <= size <= most else -1


class _Events:
    """A queue with one reader; asyncio's own costs twice as much."""

    def __init__(self) -> None:
        self._events: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._events)

    def empty(self) -> bool:
        return not self._events

    def put_nowait(self, event: Any) -> None:
        self._events.append(event)
        if (waiter := self._waiter) is not None:
            self._waiter = None
            if not waiter.done():  # its reader may have been cancelled
                waiter.set_result(None)

    async def get(self) -> Any:
        while not self._events:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._events.popleft()
