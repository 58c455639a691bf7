"""``api/stream``: server-sent events that say what has changed. They carry cursors, and no data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import anyio
from starlette.responses import Response

from stoker.dashboard.index import Index
from stoker.dashboard.viewers import Viewer
from stoker.protocol import ProtocolError
from stoker.service.asgi import Receive, Scope, Send, cancel_when_gone, respond

MOST_STREAMS: Final = 64
"""How many browsers may listen at the same time."""

COMMENT_S: Final = 15.0
"""Seconds between two lines, so that proxies keep the connection."""
_GAP_S = 0.25
"""Seconds between two reports; what comes between is in the next one."""


class EventStream(Response):
    """Reports changes until the client goes, or the index closes.

    Args:
        index: of the runs.
        run_id: the run to report on, beside the list; None: only the list.

    Raises:
        ProtocolError: 404: there is no such run; or 429: too many listen.
    """

    media_type = "text/event-stream"

    def __init__(self, index: Index, run_id: str | None) -> None:
        if len(index.viewers) >= MOST_STREAMS:
            raise ProtocolError(
                "too-many-connections", f"{MOST_STREAMS} pages listen; close one", retry_after=5
            )
        if run_id is not None:
            index.entry(run_id)
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._index, self._run_id = index, run_id
        self._reported: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events, as an ASGI application."""
        if scope["method"] == "HEAD":
            await respond(send, 200, self.raw_headers)
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        with self._index.viewers.watching(self._run_id) as viewer:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel_when_gone, receive, tasks.cancel_scope)
                await self._report(viewer, send)
                tasks.cancel_scope.cancel()
        if self._index.is_closed:
            await send({"type": "http.response.body", "body": b""})

    async def _report(self, viewer: Viewer, send: Send) -> None:
        await _send(send, b"retry: 3000\n\n")
        while not self._index.is_closed:
            if text := "".join(await self._changes()):
                await _send(send, text.encode())
                await anyio.sleep(_GAP_S)
            with anyio.move_on_after(COMMENT_S) as waiting:
                await viewer.wait()
            if waiting.cancelled_caught:
                await _send(send, b":\n\n")

    async def _changes(self) -> list[str]:
        """The events of what has changed since the last call."""
        found: dict[str, Any] = {"runs": {"etag": list_tag(self._index)}}
        if self._run_id is not None:
            found["run"] = await self._run(self._run_id)
        return list(self._events(found))

    def _events(self, found: dict[str, Any]) -> Iterator[str]:
        for name, data in found.items():
            if self._reported.get(name) != data:
                self._reported[name] = data
                yield f"event: {name}\ndata: {json.dumps(data)}\n\n"

    async def _run(self, run_id: str) -> dict[str, Any]:
        try:
            cursor, share = await self._index.read(run_id, lambda found: (found.cursor, found.share_read))
            summary = self._index.entry(run_id).summary
        except ProtocolError:  # its directory is gone
            return {"id": run_id, "cursor": "", "status": "removed", "total_steps": 0, "share_read": 1.0}
        status, steps = ("", 0) if summary is None else (summary.status, summary.total_steps)
        return {"id": run_id, "cursor": cursor, "status": status, "total_steps": steps, "share_read": share}


def list_tag(index: Index) -> str:
    """Changes when the list of runs does."""
    return f"{index.nonce}.{index.version}"


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
