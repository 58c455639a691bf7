"""What the tests of logs and of the writer share: disks that hang, and a writer that runs."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from stoker.replies import Reply
from stoker.writer import AppendLog, Writer

NEVER_S = 1000.0
PIECE = b"p" * 300_000
"""More than a FIFO holds."""


class Fifo:
    """A file that hangs in the middle of a large piece until it is read."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def is_begun(self) -> bool:
        """Whether there is something to read, or nothing will ever come again."""
        return bool(select.select([self._descriptor], [], [], 0)[0])

    def rest(self) -> bytes:
        """What is there when whoever wrote has closed it."""
        return os.read(self._descriptor, 1 << 20)

    async def read(self, n_bytes: int) -> bytes:
        data = b""
        with anyio.fail_after(20):
            while len(data) < n_bytes:
                if self.is_begun():
                    data += os.read(self._descriptor, n_bytes - len(data))
                await anyio.sleep(0.001)
        return data


class HangingSync(AppendLog):
    """A log whose file hangs in its sync until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reached, self.release = threading.Event(), threading.Event()

    def sync(self) -> None:
        self.reached.set()
        assert self.release.wait(20)
        super().sync()


async def until(condition: Callable[[], Any]) -> None:
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - of other people's state
            await anyio.sleep(0.001)


async def leave(call: Any, is_reached: Any) -> None:
    """Cancel a call in the middle."""
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await until(is_reached)
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Writer]:
    """A writer that is closed and drained at the end."""
    writer = Writer(**{"sync_interval_s": NEVER_S, "replace_interval_s": NEVER_S, **settings})
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run)
            yield writer
            writer.close()


async def flush(writer: Writer) -> None:
    reply: Reply[None] = Reply()
    await writer.flush(reply)
    await reply.wait()
