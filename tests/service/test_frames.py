"""WebSocket frames: whatever pieces messages come in, they arrive as they were sent, and errors close."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from hostile import frame, opened
from hypothesis import given, settings, strategies as st
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from stoker.service.frames import FrameProtocol

ANSWER_S = 20.0
LARGEST = 100_000
PING = frame(b"?", 9)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that answers each message with itself."""
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        answer = {key: event[key] for key in ("text", "bytes") if event.get(key) is not None}
        await send({"type": "websocket.send", **answer})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    config = uvicorn.Config(
        echo, ws=FrameProtocol, lifespan="off", log_level="warning", ws_per_message_deflate=False,
        ws_max_size=LARGEST, ws_ping_interval=None,
    )  # fmt: skip
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(ANSWER_S)
        assert not thread.is_alive()


def read_frame(stream: Any) -> tuple[int, bytes]:
    first, size = stream.read(2)
    if size > 125:
        size = int.from_bytes(stream.read(2 if size == 126 else 8), "big")
    return first, stream.read(size)


MESSAGES = st.one_of(
    st.text(max_size=150),
    st.binary(max_size=150),
    st.integers(65_000, 66_000).map(lambda size: "a" * size),
    st.integers(120, 130).map(lambda size: b"b" * size),
)


@settings(max_examples=25)
@given(
    messages=st.lists(st.tuples(MESSAGES, st.integers(1, 3), st.booleans()), max_size=6),
    mask=st.binary(min_size=4, max_size=4),
    cuts=st.lists(st.integers(1, 300), max_size=20),
)
def test_messages_in_any_pieces_arrive_whole(
    port: int, messages: list[tuple[str | bytes, int, bool]], mask: bytes, cuts: list[int]
) -> None:
    """Whole or in several frames, with pings between these, and cut anywhere."""
    data, expected = b"", []
    for message, n_frames, is_pinged in messages:
        plain, opcode = (message.encode(), 1) if isinstance(message, str) else (message, 2)
        expected.append((0x80 | opcode, plain))
        size = len(plain) // n_frames + 1
        parts = [plain[i * size : (i + 1) * size] for i in range(n_frames)]
        for i, part in enumerate(parts):
            masked = bytes(byte ^ mask[j % 4] for j, byte in enumerate(part))
            last = 0x80 if i == n_frames - 1 else 0
            data += frame(masked, 0 if i else opcode, first=last, mask=mask)
            if is_pinged:
                data += PING
    with opened(port) as connection, connection.makefile("rb") as answers:
        position = 0
        for cut in [*cuts, len(data)]:
            connection.sendall(data[position : position + cut])
            position += cut
        found: list[tuple[int, bytes]] = []
        n_pings = sum(n_frames for _, n_frames, is_pinged in messages if is_pinged)
        while len(found) < len(expected) + n_pings:
            found.append(read_frame(answers))
        assert [each for each in found if each[0] != 0x8A] == expected
        connection.sendall(frame(b"\x03\xe8", 8) + frame(b"too late"))
        assert read_frame(answers) == (0x88, b"\x03\xe8")
        assert answers.read() == b""


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(b"x", mask=None), 1002, id="without a mask"),
        pytest.param(frame(b"x", 3), 1002, id="of an unknown kind"),
        pytest.param(frame(b"x", 0), 1002, id="that continues nothing"),
        pytest.param(frame(b"x", first=0xC0), 1002, id="with a reserved bit"),
        pytest.param(frame(b"\xff\xfe"), 1007, id="whose text is none"),
        pytest.param(frame(b"\xff", first=0) + frame(b"", 0), 1007, id="whose text is none, in two"),
        pytest.param(frame(b"a" * (LARGEST + 1))[:1000], 1009, id="that is too large"),
        pytest.param(
            frame(b"a" * LARGEST, first=0) + frame(b"a", 0), 1009, id="too large with the one before"
        ),
    ],
)
def test_a_frame_is_refused(port: int, data: bytes, code: int, caplog: pytest.LogCaptureFixture) -> None:
    """Also in one piece with messages, which need not be answered any more; and nothing is logged of it."""
    with opened(port) as connection, connection.makefile("rb") as answers:
        connection.sendall(frame(b"good"))
        assert read_frame(answers) == (0x81, b"good")
        connection.sendall(frame(b"good") + data)
        while (found := read_frame(answers)) == (0x81, b"good"):
            pass
        first, reason = found
        assert (first, int.from_bytes(reason[:2], "big")) == (0x88, code)
        assert answers.read() == b""
    assert caplog.records == []


def test_a_client_of_another_library_is_understood(port: int) -> None:
    with connect(f"ws://127.0.0.1:{port}/", max_size=None) as client:
        for message in ("", "é" * 40_000, b"\x00" * 70_000, "last"):
            client.send(message)
            assert client.recv(ANSWER_S) == message
        client.send("a" * (LARGEST + 1))
        with pytest.raises(ConnectionClosedError, match="1009"):
            client.recv(ANSWER_S)
