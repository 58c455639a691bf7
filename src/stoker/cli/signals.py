"""Ctrl-C and SIGTERM while a training runs: once to finish in good order, twice to leave at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import anyio

__all__ = ["heed_signals"]


async def heed_signals(finish: Callable[[], None], leave: Callable[[], None]) -> None:
    """Wait for signals until cancelled.

    Args:
        finish: called at the first signal; asks the training to end.
        leave: called at the second, to restore the terminal; then the process ends at once with exit code
            130. What lies on disk under a final name is whole, so the run stays resumable.
    """
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        first = True
        async for _ in signals:
            if first:
                first = False
                finish()
                continue
            leave()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)  # threads that learn or write are not waited for: that is what was asked for
