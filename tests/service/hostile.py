"""What hostile clients send: messages that begin valid and are spoiled, and bytes that are no messages.

``http_requests`` and ``streams`` are hypothesis strategies. ``HTTPClient`` and ``StreamClient`` send what is
drawn over plain sockets, and say how the server answered.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import msgspec
from hypothesis import strategies as st

ANSWER_S = 20.0
"""A server that has not answered a whole message by then hangs."""
CLOSED = 0
"""In place of a status: the server closed the connection."""
ACTORS = ("mallory-1", "mallory-2", "mallory-3")

# Values -------------------------------------------------------------------------------------------------


class Token(NamedTuple):
    """Bytes that stand in JSON as they are."""

    data: bytes


TOKENS = st.sampled_from(
    [
        b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e400", b"1e-400", b"3.4e38", b"3.5e38", b"-0.0",
        b"01", b"1.",
        b"123456789012345678901234567890", b"-9223372036854775809", b"18446744073709551616",
        b"9007199254740993",
        b'"NaN"', b'"1"', b'""', b'"\\ud800"', b'"\\udfff\\ud800"', b'"\xff\xfe"', b'"\xc0\x80"',
        b'"\\u0000"', b'"\\x"',
        '"💣"'.encode(), b'"a\nb"', b'"' + b"a" * 5000 + b'"', b'"' + b"a" * 129 + b'"', b"[" * 40, b"[]",
        b"{}", b"[[]]",
        b"[" * 15 + b"1" + b"]" * 15, b"[" * 20 + b"]" * 20, b'{"a":' * 20 + b"1" + b"}" * 20, b"null",
        b"true", b"tru",
        b"'x'", b"", b",", b"//", b'{"b64":"!!","dtype":"float32","shape":[4]}',
        b'{"b64":"","dtype":"float32","shape":[4]}',
        b'{"b64":"AAAA","dtype":"object","shape":[1]}',
        b'{"b64":"AAAAAAAAAAAAAAAAAAAAAA==","dtype":"float32","shape":[4]}',
        b'{"b64":"AADAfwAAwH8AAMB/AADAfw==","dtype":"float32","shape":[4]}',
        b'{"b64":"","dtype":"float32","shape":[-1]}',
        b'{"b64":"","dtype":"float32","shape":[4294967296,4294967296,0]}', b'{"b64":1,"dtype":2,"shape":3}',
        b'{"b64":"AAAA","dtype":"U1","shape":[1]}', b"[0.1,0.2,0.3]", b"[0.1,0.2,0.3,0.4,0.5]",
        b"[[0.1,0.2,0.3,0.4]]",
        b"[1e39,0,0,0]", b"[NaN,0,0,0]", b'["NaN",0,0,0]', b"[null,0,0,0]", b"[true,0,0,0]", b'{"0":1}',
    ]
).map(Token)  # fmt: skip
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(-2, 3), max_size=5),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=3),
)
VALUES = st.one_of(TOKENS, PLAIN)
MEMOS = st.one_of(
    st.sampled_from(["kQ", "kcAB", "gA", "_" * 100, "=", "AAAA", "lKNhAQ", "3f____8"]),
    st.binary(max_size=24).map(lambda data: msgspec.to_builtins(data).rstrip("=")),
)
FIELDS = [
    "actor", "seq", "observation", "start", "seed", "action", "memo", "reward", "terminated", "truncated",
    "extras",
    "act", "mode", "learn", "action_mask", "surprise", "Seq", "",
]  # fmt: skip


@st.composite
def messages(draw: Callable[..., Any]) -> dict[str, Any]:
    """A message of records of which some fields have hostile values, are missing or too many."""
    steps = []
    for _ in range(draw(st.integers(0, 3))):
        record: dict[str, Any] = {"actor": draw(st.sampled_from(ACTORS)), "seq": draw(st.integers(1, 4))}
        record["observation"] = [0.1, 0.2, 0.3, 0.4]
        if record["seq"] % 2:
            record["start"] = True
        else:
            record |= {"action": 1, "reward": 0.5}
            if draw(st.booleans()):
                record["memo"] = draw(MEMOS)
        for _ in range(draw(st.integers(0, 2))):
            record[draw(st.sampled_from(FIELDS))] = draw(VALUES)
        if draw(st.integers(0, 9)) == 0:
            record.pop(draw(st.sampled_from([*record])))
        steps.append(record)
    message: dict[str, Any] = {"steps": steps}
    if draw(st.integers(0, 3)) == 0:
        message[draw(st.sampled_from(["steps", "ack", "id", "ping", "hello", "surprise"]))] = draw(VALUES)
    return message


def as_json(value: Any) -> bytes:
    """JSON, with tokens in it as they are; floats that are no numbers become ``NaN`` and ``Infinity``."""
    match value:
        case Token(data):
            return data
        case dict():
            return (
                b"{"
                + b",".join(json.dumps(key).encode() + b":" + as_json(each) for key, each in value.items())
                + b"}"
            )
        case list():
            return b"[" + b",".join(map(as_json, value)) + b"]"
        case str():
            return json.dumps(value, ensure_ascii="\udfff" in value).encode(errors="replace")
        case _:
            return json.dumps(value).encode()


def as_msgpack(value: Any) -> bytes:
    def plain(each: Any) -> Any:
        match each:
            case Token(data):
                return msgspec.msgpack.Ext(1 if len(data) % 2 else 7, data)
            case dict():
                return {key: plain(one) for key, one in each.items()}
            case list():
                return [*map(plain, each)]
            case str():
                return each.encode(errors="replace").decode()
        return each

    return msgspec.msgpack.encode(plain(value))


@st.composite
def spoiled(draw: Callable[..., Any], data: st.SearchStrategy[bytes]) -> bytes:
    """Bytes, one time in four cut off, with a byte changed, or doubled."""
    drawn: bytes = draw(data)
    how = draw(st.integers(0, 11))
    if not drawn or how > 2:
        return drawn
    at = draw(st.integers(0, len(drawn) - 1))
    if how == 0:
        return drawn[:at]
    if how == 1:
        return drawn[:at] + bytes([draw(st.integers(0, 255))]) + drawn[at + 1 :]
    return drawn + drawn


JSON = spoiled(messages().map(as_json))
MSGPACK = spoiled(messages().map(as_msgpack))


# HTTP ---------------------------------------------------------------------------------------------------


class Request(NamedTuple):
    """The bytes of a request, and whether it promises more than it has."""

    data: bytes
    is_torn: bool = False


@st.composite
def http_requests(draw: Callable[..., Any]) -> Request:
    """Most to ``/v1/step``; some to other addresses, with wrong methods, types and lengths."""
    packed = draw(st.booleans())
    body: bytes = draw(MSGPACK if packed else JSON)
    kind = "application/msgpack" if packed else "application/json"
    method, path, length, more = "POST", "/v1/step", str(len(body)), ""
    match draw(st.integers(0, 19)):
        case 0:
            method = draw(
                st.sampled_from(["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW"])
            )
        case 1:
            path = draw(
                st.sampled_from(
                    [
                        "/", "/v1", "/v1/steps", "/v1/episodes", "/v1/policy", "/v1/actors/mallory-1",
                        "/v1/actors/%00",
                        "/v1/actors/%ff", "/v1/actors/" + "a" * 4000, "/v1/actors/..%2f..%2fetc%2fpasswd",
                        "/%", "/v1/step?x=%",
                        "/v1/stream", "/openapi.json", "/metrics", "/v1/policy?after=x&format=y",
                        "/v1/policy?after=-1",
                    ]
                )
            )  # fmt: skip
            method = draw(st.sampled_from(["POST", "GET", "DELETE"]))
        case 2:
            kind = draw(
                st.sampled_from(
                    ["", "text/plain", "application/xml", "application/json; charset=utf-16", "é"]
                )
            )
        case 3:
            length = draw(st.sampled_from(["-1", "x", "99999999999999999999", "1, 2", "", "+5", "0x10"]))
        case 4:
            more = draw(
                st.sampled_from(
                    [
                        "transfer-encoding: chunked\r\n", "host: evil\r\n", "expect: 100-continue\r\n",
                        "x: " + "a" * 20_000 + "\r\n", "connection: upgrade\r\nupgrade: h2c\r\n",
                        "no colon\r\n",
                        "content-encoding: gzip\r\n", "origin: http://evil.example\r\n",
                        "authorization: Bearer \r\n",
                    ]
                )
            )  # fmt: skip
        case 5:
            return Request(draw(st.binary(min_size=1, max_size=100)) + b"\r\n\r\n", is_torn=True)
        case _:
            pass
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\n{more}"
    data = f"{head}content-length: {length}\r\n\r\n".encode() + body
    cut = draw(st.integers(0, 29)) == 0
    is_torn = cut or length != str(len(body)) or bool(more)
    return Request(data[: draw(st.integers(0, len(data)))] if cut else data, is_torn)


class HTTPClient:
    """One connection after the other, each as long as the server leaves it open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, request: Request) -> int:
        """Send it; returns the status, or CLOSED. A torn request ends the connection behind it."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), ANSWER_S)
        try:
            self._socket.sendall(request.data)
            if request.is_torn:
                self._socket.shutdown(socket.SHUT_WR)
            status, stays = self._read(self._socket, is_head=request.data.startswith(b"HEAD"))
        except ConnectionError:
            status, stays = CLOSED, False
        if request.is_torn or not stays:
            self.__exit__()
        return status

    @staticmethod
    def _read(connection: socket.socket, *, is_head: bool) -> tuple[int, bool]:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(1 << 16)
            if not chunk:
                return CLOSED, False
            data = (data + chunk).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        status = int(lines[0].split(b" ")[1])
        headers = dict(line.partition(b":")[::2] for line in lines[1:])
        length = 0 if is_head or status == 204 else int(headers.get(b"content-length", b"-1"))
        while len(body) < length or length < 0:
            chunk = connection.recv(1 << 16)
            if not chunk:
                return status, False
            body += chunk
        if status >= 400 and length > 0 and b"json" in headers.get(b"content-type", b""):
            assert json.loads(body)["status"] == status
        return status, headers.get(b"connection", b"").strip() != b"close" and length >= 0


# WebSockets ---------------------------------------------------------------------------------------------


def frame(
    data: bytes, opcode: int = 1, *, first: int = 0x80, mask: bytes | None = b"\x00\x00\x00\x00"
) -> bytes:
    """A frame whose mask leaves the data as they are; None: without a mask, which is forbidden."""
    masked, size = (0x80, len(data)) if mask is not None else (0, len(data))
    head = struct.pack("!B", first | opcode)
    if size < 126:
        head += struct.pack("!B", masked | size)
    elif size < 1 << 16:
        head += struct.pack("!BH", masked | 126, size)
    else:
        head += struct.pack("!BQ", masked | 127, size)
    return head + (mask or b"") + data


HELLO = frame(b'{"hello":{"take_over":true}}')
TORN_FRAMES = st.sampled_from(
    [
        frame(b'{"steps":[]}')[:-3], b"\x81\xff" + b"\x7f" + b"\xff" * 7 + b"\x00" * 4, b"\x81",
        frame(b"x" * 200, 9),
        frame(b"x", 1, mask=None), frame(b"x", 3), frame(b"x", 11), frame(b"x", 1, first=0xC0), frame(b"x",
        1, first=0xF0),
        frame(b"x", 0), frame(b"x", 1, first=0), frame(b"x", 1, first=0) * 2, frame(b"", 8), frame(b"\x03",
        8),
        frame(b"\x00\x00", 8), frame(b"\x03\xe8\xff", 8), frame(b"", 9), frame(b"", 10), frame(b"\xff", 1),
        frame(b'{"steps":', 1, first=0) + frame(b"[]}", 0), frame(b"", 1), frame(b"", 2), frame(b"\xc1", 2),
    ]
)  # fmt: skip
HELLOS = st.one_of(
    st.sampled_from(
        [
            b"{}", b"[]", b"null", b'{"hello":null}', b'{"hello":{"protocol":"stoker.v9"}}',
            b'{"hello":{"take_over":[1]}}',
            b'{"hello":{"spaces":{}}}', b'{"hello":{"token":"x"}}', b'{"hello":{"surprise":1}}',
            b'{"ping":1}', b"",
            b'{"hello":{"spaces_digest":"x"}}', b"[" * 100_000,
        ]
    ),
    JSON,
)  # fmt: skip


class Stream(NamedTuple):
    """What a client sends on one WebSocket: whole messages, one after the other; then torn bytes."""

    hello: bytes
    messages: list[bytes]
    rest: bytes


@st.composite
def streams(draw: Callable[..., Any]) -> Stream:
    """Most begin with a good hello; some end in the middle of a frame."""
    hello = frame(draw(HELLOS)) if draw(st.integers(0, 4)) == 0 else HELLO
    one = st.one_of(JSON.map(frame), JSON.map(frame), MSGPACK.map(lambda data: frame(data, 2)))
    return Stream(hello, draw(st.lists(one, max_size=12)), draw(TORN_FRAMES) if draw(st.booleans()) else b"")


@contextlib.contextmanager
def opened(port: int) -> Iterator[socket.socket]:
    """A plain socket behind the handshake. Bytes that a client sends before its answer are lost."""
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as connection:
        connection.sendall(HANDSHAKE)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            chunk = connection.recv(1)
            assert chunk, answer
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 101"), answer
        yield connection


class StreamClient:
    """Plays streams, each over a new connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    def play(self, stream: Stream) -> list[int]:
        """How each message was answered: 200, the status of an error, or the code of the close.

        A close ends the list, whether a frame or the end of the connection.
        """
        answers: list[int] = []
        self._buffer = b""
        with opened(self._port) as connection:
            try:
                for data in [stream.hello, *stream.messages]:
                    connection.sendall(data)
                    answers.append(self._answer(connection))
                    if answers[-1] >= 1000:
                        return answers
                connection.sendall(stream.rest)
                if stream.rest:
                    connection.shutdown(socket.SHUT_WR)
                    while (code := self._answer(connection)) < 1000:
                        answers.append(code)
            except ConnectionError:
                answers.append(1006)
        return answers

    def _answer(self, connection: socket.socket) -> int:
        while True:
            opcode, data = self._frame(connection)
            if opcode == 8:
                return int.from_bytes(data[:2], "big") if data else 1005
            if opcode in (1, 2):
                answer = msgspec.json.decode(data) if opcode == 1 else msgspec.msgpack.decode(data)
                return answer["error"]["status"] if "error" in answer else 200

    def _frame(self, connection: socket.socket) -> tuple[int, bytes]:
        self._fill(connection, 2)
        opcode, size, begin = self._buffer[0] & 15, self._buffer[1] & 127, 2
        if size >= 126:
            begin = 4 if size == 126 else 10
            self._fill(connection, begin)
            size = int.from_bytes(self._buffer[2:begin], "big")
        self._fill(connection, begin + size)
        data, self._buffer = self._buffer[begin : begin + size], self._buffer[begin + size :]
        return opcode, data

    def _fill(self, connection: socket.socket, size: int) -> None:
        while len(self._buffer) < size:
            chunk = connection.recv(1 << 16)
            if not chunk:
                raise ConnectionResetError
            self._buffer += chunk


HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-protocol: stoker.v1\r\n\r\n"
)
