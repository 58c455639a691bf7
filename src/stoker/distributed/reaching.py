"""Whether a Ray cluster answers at an address, found out before Ray is asked to connect.

Ray itself tries for minutes, prints as it does, and cannot be interrupted. The head of a cluster speaks gRPC,
whose first bytes are HTTP/2: so a closed port, a silent host and a web page are told apart in milliseconds.
"""

from __future__ import annotations

import os
import re
import socket
import time

from stoker.errors import ConfigError

__all__ = ["check_reachable", "host_and_port"]

_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The preface of HTTP/2 (RFC 9113, 3.4) and empty settings."""
_SETTINGS = 4
"""The type of a frame with settings, with which a server answers; the fourth byte of a frame."""


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
