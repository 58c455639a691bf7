"""The sampler of the event loop: what it leaves behind."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.telemetry import Clocks, Sampler


def n_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="counts files in /proc")
async def test_no_file_is_left_open_when_it_has_ended(no_collection: None) -> None:
    before = n_open_files()
    samplers = [Sampler(Clocks()) for _ in range(5)]
    for sampler in samplers:
        sampler.start()
        sampler.stop()
    for thread in threading.enumerate():
        if thread.name == "stoker-sampler":
            thread.join(10)
            assert not thread.is_alive()
    assert n_open_files() == before
