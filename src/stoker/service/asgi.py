"""ASGI's types, and what an application does without Starlette: answer, add headers, see a client leave."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeAlias

import anyio
from anyio.abc import TaskStatus

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]


def path_of(scope: Scope) -> str:
    """The path of a request below the place where the application is mounted."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


async def respond(
    send: Send, status: int, headers: Headers, body: bytes = b"", kind: str = "http.response"
) -> None:
    """Send a whole answer; ``kind`` is another one for a WebSocket that is denied."""
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


def with_headers(send: Send, headers_for: Callable[[int], Headers]) -> Send:
    """A ``send`` that adds headers to each answer, by its status."""

    async def send_more(event: Event) -> None:
        if event["type"] == "http.response.start":
            event = {**event, "headers": [*event.get("headers", ()), *headers_for(event["status"])]}
        await send(event)

    return send_more


async def cancel_when_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    """Cancel a wait whose client has closed the connection; the body of a task."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


class Background(Protocol):
    """What runs behind an application, as long as that is served."""

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Work until ``close`` is called, and then end in good order."""
        ...

    def close(self) -> None:
        """Let ``run`` end, and wake the requests that wait, so that they are answered."""
        ...


@asynccontextmanager
async def running(background: Background) -> AsyncGenerator[None]:
    """Run it while a block runs; leaving the block waits until it has ended."""
    async with anyio.create_task_group() as tasks:
        await tasks.start(background.run)
        try:
            yield
        finally:
            background.close()
