"""The sampler of the event loop: what it leaves behind."""

from __future__ import annotations

import gc
import sys
import threading
import time
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
    assert n_open_files() <= before  # something else may have been closed meanwhile


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what each thread uses")
async def test_the_busiest_thread_is_that_of_the_time_that_it_looks_at() -> None:
    samplers: list[Sampler] = []
    has_worked, has_sampler, is_over = (threading.Event() for _ in range(3))

    def work_then() -> None:
        has_sampler.wait(60)
        while not samplers[0].busiest_thread:
            sum(range(1000))

    def work_before() -> None:
        while time.thread_time() < 0.5:
            pass
        has_worked.set()
        is_over.wait(60)

    then, before = (threading.Thread(target=work, name=work.__name__) for work in (work_then, work_before))
    then.start()  # as the first, so that it is looked at before the other
    before.start()
    assert has_worked.wait(60)
    samplers.append(Sampler(Clocks()))
    samplers[0].start()
    has_sampler.set()
    try:
        then.join(60)
        assert samplers[0].busiest_thread == "work_then"
    finally:
        is_over.set()
        samplers[0].stop()
        before.join(60)
