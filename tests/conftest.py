"""Shared by all tests: the event loops that stoker promises to run on, and the end of tests that hang."""

from __future__ import annotations

import multiprocessing.util
import signal
import sys
from collections.abc import Sequence
from multiprocessing import popen_spawn_posix
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
import launching

settings.register_profile("stoker", deadline=None, max_examples=50)  # no test measures time
settings.load_profile("stoker")
popen_spawn_posix.Popen = launching.Spawned
multiprocessing.util.spawnv_passfds = launching.Spawned.spawnv_passfds

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a script's background job: children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

ASYNCIO = pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")
UVLOOP = pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")
TRIO = pytest.param(("trio", {}), id="trio")
ON_UVLOOP_TOO = (
    "session/test_acting",
    "session/test_batch_waits",
    "session/test_endings",
    "session/test_interruptions",
    "session/test_lifecycle",
    "session/test_signals",
    "test_latch",
    "test_queues",
    "test_threads",
    "writer/test_task",
)
"""Tests of the parts that wait, wake and cancel; everything else goes through these parts."""

ON_ASYNCIO_ONLY = (
    "agents/",
    "cli/",
    "client/test_local",
    "data/",
    "envs/test_results",
    "envs/test_stacking",
    "multi/test_self_play",
    "runs/",
    "service/test_exactly_once",
    "service/test_extremes",
    "service/test_policy_files",
    "service/test_steps",
    "session/test_batches",
    "session/test_intake",
    "session/test_evaluations",
    "session/test_journal",
    "session/test_learner",
    "session/test_limits",
    "session/test_lockstep",
    "session/test_numbered",
    "session/test_policies",
    "session/test_records",
    "session/test_replaying",
    "session/test_restoring",
    "session/test_resume",
    "session/test_roll_forward",
    "session/test_saving",
    "session/test_settings_of_attempts",
    "session/test_values",
    "telemetry/test_prometheus",
    "telemetry/test_serving",
    "trainer/test_evaluator",
    "trainer/test_offline",
    "trainer/test_training",
)
"""Tests of values, counters and files, which do not depend on the event loop."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test marked ``anyio`` on asyncio and on trio, and where loops differ also on uvloop."""
    chosen = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    has_own = any("anyio_backend" in names for names in chosen) or hasattr(metafunc.module, "anyio_backend")
    if "anyio_backend" in metafunc.fixturenames and not has_own:
        where = metafunc.definition.path.relative_to(Path(__file__).parent).as_posix()
        if where.startswith(ON_ASYNCIO_ONLY):
            loops = [ASYNCIO]
        else:
            loops = [ASYNCIO, UVLOOP, TRIO] if where.startswith(ON_UVLOOP_TOO) else [ASYNCIO, TRIO]
        metafunc.parametrize("anyio_backend", loops, indirect=True)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Let pytest-timeout end the process if a test on trio hangs, and refuse ids that differ between workers.

    By default it raises an error in a signal handler. That fails a test on asyncio, but on trio it ends the
    loop, and pytest waits for the test forever.
    """
    import torch  # the process that only hands tests out to others goes without it

    torch.set_num_threads(1)  # tiny networks: threads only get into each other's way
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid}: the id holds an address, which differs between workers")
        backend = item.callspec.params.get("anyio_backend") if hasattr(item, "callspec") else None
        if backend in ("trio", ("trio", {})):
            item.add_marker(pytest.mark.timeout(method="thread"))


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """The event loop that a test runs on."""
    return request.param


def pytest_sessionfinish() -> None:
    """End the server that forks the programs of tests."""
    launching.stop()
