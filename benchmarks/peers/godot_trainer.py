"""The trainer's side of the wire of Godot RL Agents, with an action that costs nothing.

A game connects; each message is four bytes of length, little-endian, and JSON. The trainer sends
``handshake``, asks for ``env_info``, sends ``reset``, and then an ``action`` for each agent, to which the
game answers with ``step``. Blocking reads, as in its Python package; one game after the other.
"""

from __future__ import annotations

import json
import socket
from typing import Any


def receive(connection: socket.socket) -> Any:
    """The next message; EOFError once the game has gone."""
    data = bytearray()
    length, known = 4, False
    while len(data) < length:
        chunk = connection.recv(length - len(data))
        if not chunk:
            raise EOFError
        data += chunk
        if not known and len(data) == 4:
            length, known = int.from_bytes(data, "little"), True
            data.clear()
    return json.loads(data.decode())


def send(connection: socket.socket, message: Any) -> None:
    data = json.dumps(message).encode()
    connection.sendall(len(data).to_bytes(4, "little") + data)


def train(connection: socket.socket) -> None:
    """Play with one game until it goes."""
    send(connection, {"type": "handshake", "major_version": "0", "minor_version": "7"})
    send(connection, {"type": "env_info"})
    n_agents = receive(connection)["n_agents"]
    send(connection, {"type": "reset"})
    receive(connection)
    while True:
        send(connection, {"type": "action", "action": [{"move": 1} for _ in range(n_agents)]})
        step = receive(connection)
        assert len(step["obs"]) == len(step["reward"]) == len(step["done"]) == n_agents


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    train(connection)
                except (EOFError, ConnectionError):
                    continue


if __name__ == "__main__":
    main()
