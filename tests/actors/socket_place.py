"""A place of a user: workers are programs that connect to a socket, as on another machine.

Only public names of ``stoker`` are used. ``socket_place.py PORT ACTOR_ID SEED EPISODE`` is the far end: it
makes the environment and the policy itself, and nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import sys
import threading
from typing import BinaryIO

import anyio
from portable_parts import PortableAgent, Seeded

from stoker.actors import (
    Assignment,
    EnvFactory,
    Link,
    Mailbox,
    OwnPolicy,
    Weights,
    Worker,
    WorkerCommand,
    WorkerEvent,
    WorkerExited,
    WorkerMessage,
    decode_command,
    decode_message,
    encode_message,
)


def receive(stream: BinaryIO) -> bytes:
    """One frame; raises EOFError at the end."""
    header = stream.read(4)
    if len(header) < 4:
        raise EOFError
    return stream.read(int.from_bytes(header, "big"))


def send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(len(data).to_bytes(4, "big") + data)


class SocketPlace:
    """Starts a program for each actor and waits for its connection."""

    def __init__(self) -> None:
        self.checked = False
        self.links: list[SocketLink] = []

    def check(self, factory: EnvFactory, policy: OwnPolicy) -> None:
        self.checked = True

    def link(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy) -> Link:
        self.links.append(SocketLink(assignment, policy))
        return self.links[-1]


class SocketLink:
    """One program and the connection to it; threads wait for both, never the event loop."""

    def __init__(self, assignment: Assignment, policy: OwnPolicy) -> None:
        self.messages: Mailbox[WorkerEvent] = Mailbox()
        self.program: subprocess.Popen[bytes] | None = None
        self._assignment = assignment
        self._commands: queue.SimpleQueue[WorkerCommand | None] = queue.SimpleQueue()
        self._commands.put(Weights(policy.version, policy.policy.weights()))
        self._lock = threading.Lock()
        self._is_killed = False

    def open(self) -> None:
        threading.Thread(target=self._serve, daemon=True).start()

    def send(self, command: WorkerCommand) -> None:
        self._commands.put(command)

    def kill(self) -> None:
        with self._lock:
            self._is_killed = True
            if self.program is not None:
                self.program.kill()

    def _serve(self) -> None:
        mine, exit_code, why = self._assignment, None, ""
        try:
            with socket.create_server(("127.0.0.1", 0)) as server:
                server.settimeout(60)
                port = str(server.getsockname()[1])
                ours = (port, str(mine.actor_id), str(mine.seed), str(mine.episode))
                with self._lock:
                    if self._is_killed:
                        return
                    self.program = subprocess.Popen([sys.executable, __file__, *ours])
                connection, _ = server.accept()
            with connection:
                threading.Thread(target=self._write, args=(connection,), daemon=True).start()
                stream = connection.makefile("rb")
                try:
                    # An empty frame comes when the worker has ended. Its interpreter, which may take many
                    # seconds to end on a busy machine, is not waited for.
                    while data := receive(stream):
                        self.messages.post(decode_message(data))
                except (EOFError, OSError):
                    exit_code = self.program.wait(60)
        except OSError as error:
            why = f"the program did not connect ({error})"
        finally:
            self._commands.put(None)
            self.messages.post(WorkerExited(exit_code, why))

    def _write(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the connection is closed, which the reader sees
            while (command := self._commands.get()) is not None:
                send(connection, encode_message(command))


def main() -> None:
    """The far end."""
    connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    assignment = Assignment(actor_id=int(sys.argv[2]), seed=int(sys.argv[3]), episode=int(sys.argv[4]))
    commands: Mailbox[WorkerCommand] = Mailbox()

    def listen() -> None:
        stream = connection.makefile("rb")
        with contextlib.suppress(EOFError, OSError):
            while True:
                commands.post(decode_command(receive(stream)))

    def tell(message: WorkerMessage) -> None:
        send(connection, encode_message(message))

    threading.Thread(target=listen, daemon=True).start()
    policy = OwnPolicy(PortableAgent().policy(), 0)
    anyio.run(Worker(assignment, Seeded, policy, commands, tell).run)
    send(connection, b"")


if __name__ == "__main__":
    main()
