"""Who waits for changes: of the list of runs, and maybe of one run."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import anyio


class Viewer:
    """Somebody who waits for changes: of the list, and of one run if it is given.

    Attributes:
        run_id: the run.
    """

    def __init__(self, run_id: str | None) -> None:
        self.run_id = run_id
        self._changed = anyio.Event()

    def wake(self) -> None:
        """Something has changed."""
        self._changed.set()

    async def wait(self) -> None:
        """Wait until something has changed since the last call."""
        await self._changed.wait()
        self._changed = anyio.Event()


class Viewers:
    """Everybody who waits. For one event loop."""

    def __init__(self) -> None:
        self._all: set[Viewer] = set()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Viewer]:
        return iter(self._all)

    @contextmanager
    def watching(self, run_id: str | None = None) -> Generator[Viewer]:
        """Somebody waits while the block runs."""
        viewer = Viewer(run_id)
        self._all.add(viewer)
        try:
            yield viewer
        finally:
            self._all.discard(viewer)

    def wake(self, run_id: str | None = None) -> None:
        """Wake those who wait for changes of that run; None: everybody."""
        for viewer in self._all:
            if run_id is None or viewer.run_id == run_id:
                viewer.wake()
