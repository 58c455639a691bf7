"""An application on a real socket, served in a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import anyio

from stoker.listening import listening_socket
from stoker.service.serving import Server

WAIT_S = 30.0


class Served(Protocol):
    """What a test holds of an application that is served."""

    @property
    def server(self) -> Server: ...
    @property
    def client(self) -> Any: ...


AnyServed = TypeVar("AnyServed", bound=Served)


@contextmanager
def in_thread(make: Callable[[int], AnyServed]) -> Iterator[AnyServed]:
    """Serve while the block runs; then end the server as a signal does, and wait for its thread.

    Args:
        make: what is to be served at this port, called on the event loop of the server.
    """
    started, box = threading.Event(), {}

    async def serve() -> None:
        with listening_socket("127.0.0.1", 0) as listener:
            served = box["served"] = make(listener.getsockname()[1])
            started.set()
            await served.server.serve_on(listener)

    def run_it() -> None:
        try:
            anyio.run(serve, backend="asyncio", backend_options={"use_uvloop": True})
        except BaseException as error:  # noqa: BLE001 - raised in the test
            box["error"] = error
        finally:
            started.set()

    thread = threading.Thread(target=run_it, name="served", daemon=True)
    thread.start()
    started.wait(WAIT_S)
    if "error" in box:
        raise box["error"]
    served: AnyServed = box["served"]
    try:
        yield served
    finally:
        served.server.end()
        thread.join(WAIT_S)
        served.client.close()
    assert not thread.is_alive()
    if "error" in box:
        raise box["error"]
