"""Whether a Ray cluster answers at an address, found out before Ray is asked to connect.

Ray itself tries for minutes, prints as it does, and cannot be interrupted. The head of a cluster speaks gRPC,
whose first bytes are HTTP/2: so a closed port, a silent host and a web page are told apart in milliseconds.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping

from stoker.errors import ConfigError

_DATA, _HEADERS, _SETTINGS = 0, 1, 4
"""Types of frames of HTTP/2; a server first answers with its settings."""
_END_STREAM, _END_HEADERS = 1, 4


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """See RFC 9113, 4.1."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b"")
"""The preface of HTTP/2 (RFC 9113, 3.4) and empty settings."""

_UNAUTHENTICATED = b"grpc-status\x0216"
"""The header of gRPC's answer to a call without the right token, as its servers write it: no Huffman code."""


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of ``HOST:PORT``.

    Raises:
        ConfigError: It is none; the message names the way out.
    """
    if "://" in address:
        host = re.sub(r"^\w+://|:\d+$|/.*$", "", address) or "HOST"
        raise ConfigError(
            f"cluster {address!r}: a training joins a cluster itself, not through Ray's client: run it on a "
            f"node of the cluster, with the address of its head, as in {host}:6379"
        )
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not re.fullmatch(r"\d{1,5}", port) or not 0 < int(port) < 1 << 16:
        raise ConfigError(
            f"cluster {address!r} is no address: give auto, local, or HOST:PORT of the head, "
            "as in 10.0.0.5:6379"
        )
    return host, int(port)


def check_reachable(host: str, port: int, timeout_s: float) -> None:
    """Whether something that may be the head of a cluster answers there. Blocks, for ``timeout_s`` at most.

    Raises:
        OSError: Nothing does; the message says why.
    """
    deadline = time.monotonic() + timeout_s
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.sendall(_HELLO)
            answer = b""
            while len(answer) < 4:
                connection.settimeout(max(deadline - time.monotonic(), 1e-3))
                if not (more := connection.recv(9 - len(answer))):
                    break
                answer += more
    except socket.gaierror as error:
        raise OSError(f"there is no host {host!r} ({error.strerror})") from None
    except TimeoutError:
        raise OSError(f"no answer within {timeout_s:g} s") from None
    except (OSError, UnicodeError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise OSError(reason) from None
    if answer[3:4] != bytes([_SETTINGS]):
        raise OSError("what answers there is not the head of a Ray cluster")


def accepts(host: str, port: int, timeout_s: float, authorization: Mapping[str, str]) -> bool:
    """Whether the head of a cluster answers calls with these headers. Blocks, for ``timeout_s`` at most.

    False only if it says that it wants a token, or another one. Ray's own client would print lines of its own
    for that, repeat the call for 20 s, or abort the process.

    Raises:
        OSError: The connection failed.
    """
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/ray.rpc.NodeInfoGcsService/GetClusterId",
        ":authority": f"{host}:{port}",
        "te": "trailers",
        "content-type": "application/grpc",
        **authorization,
    }
    call = _frame(_HEADERS, _END_HEADERS, 1, b"".join(map(_literal, headers, headers.values())))
    call += _frame(_DATA, _END_STREAM, 1, bytes(5))  # an empty message, not compressed
    with (
        socket.create_connection((host, port), timeout_s) as connection,
        connection.makefile("rb") as stream,
    ):
        connection.sendall(_HELLO + call)
        while len(head := stream.read(9)) == 9:
            body = stream.read(int.from_bytes(head[:3], "big"))
            if head[3] == _HEADERS and head[4] & _END_STREAM:
                return _UNAUTHENTICATED not in body
    return True


def _literal(name: str, value: str) -> bytes:
    """A header that is never indexed (RFC 7541, 6.2.3)."""
    return b"\x10" + b"".join(_string(text.encode()) for text in (name, value))


def _string(text: bytes) -> bytes:
    """See RFC 7541, 5.1 and 5.2."""
    n = len(text)
    if n < 127:
        return bytes([n]) + text
    n -= 127
    length = b"\x7f"
    while n >= 128:
        length += bytes([n % 128 + 128])
        n //= 128
    return length + bytes([n]) + text
