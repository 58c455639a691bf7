"""Requests to a dashboard byte by byte: no client makes them decent."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple

from dashes import WAIT_S


class Answer(NamedTuple):
    """An answer: its status, its headers with lower-case names, and its body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def ask(port: int, target: bytes, *, host: bytes | None = None, **headers: str) -> Answer:
    """Send a request as it is given, and read the answer; of an event stream only its head."""
    lines = [b"GET %b HTTP/1.1" % target, b"Host: %b" % (b"127.0.0.1:%d" % port if host is None else host)]
    lines += [f"{name.replace('_', '-')}: {value}".encode() for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", port), WAIT_S) as connection:
        connection.sendall(b"\r\n".join([*lines, b"Connection: close", b"", b""]))
        with connection.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            found: list[tuple[str, str]] = []
            while (line := answer.readline().strip()) != b"":
                name, _, value = line.decode("latin-1").partition(":")
                found.append((name.lower(), value.strip()))
            is_stream = any("event-stream" in value for _, value in found)
            return Answer(status, found, b"" if is_stream else answer.read())
