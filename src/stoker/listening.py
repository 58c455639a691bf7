"""Listen on a port, or say which process has it; and the names of hosts in requests and addresses."""

from __future__ import annotations

import contextlib
import errno
import functools
import ipaddress
import os
import socket
from pathlib import Path

from stoker.errors import ConfigError

_BACKLOG = 1024


def listening_socket(host: str, port: int, flag: str = "--port") -> socket.socket:
    """Listen on a TCP address.

    Args:
        host: a name or an address of this machine.
        port: 0: any free one.
        flag: what the message calls the port.

    Raises:
        ConfigError: The port is taken, by whom if that is known, or the address cannot be used.
    """
    if not 0 <= port < 1 << 16:  # else the system takes the last 16 bits
        raise ConfigError(f"{flag} {port}: give a port from 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{_host_flag(flag)} {host!r} is no address of this machine: {error}") from None
    family, _, _, _, address = found[0]
    listener = socket.socket(family)
    try:
        if os.name == "posix":  # else connections of a server that has ended keep the port for a minute
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_refusal(host, port, flag, error)) from None
    listener.settimeout(0)
    return listener


def _refusal(host: str, port: int, flag: str, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            by = holder_of(port)
            free = f"stop it, or choose another port ({flag} 0: any free one)"
            return f"{flag} {port}: {'another process' if by is None else by} listens there; {free}"
        case errno.EACCES:
            return f"{flag} {port}: this user may not listen there; choose a port above 1023"
        case errno.EADDRNOTAVAIL:
            own = "choose one of its own, or 127.0.0.1"
            return f"{_host_flag(flag)} {host}: this machine has no such address; {own}"
        case _:
            return f"{flag} {port}: cannot listen on {host}: {error}"


def _host_flag(flag: str) -> str:
    """The flag of the address: that of ``--metrics-port`` is ``--metrics-host``."""
    return flag.removesuffix("port") + "host"


def holder_of(port: int) -> str | None:
    """The process that listens on a TCP port, in words; None: it is not known, as for another user's."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not sockets:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # of another user, or it has ended
            if any(str(fd.readlink()) in sockets for fd in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                name = Path(words[0].decode(errors="replace")).name
                return f"process {process.name} ({name})"
    return None


def _listening_inodes(port: int) -> set[str]:
    """The sockets that listen on the port, by the numbers that Linux gives them."""
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


@functools.lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether a name or address stays on this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_named(header: str) -> str:
    """The host in a ``Host`` header: ``localhost`` for ``localhost:8000``, ``::1`` for ``[::1]:8000``."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower().rstrip(".")


def url_of(host: str, port: int, *, scheme: str = "http", every: str = "localhost") -> str:
    """The address to open, such as ``http://[::1]:8000``.

    Args:
        host: that a socket listens on.
        port: its port.
        scheme: of the address.
        every: what to call this machine if the socket listens on all of its addresses.
    """
    name = every if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - compared
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}"
