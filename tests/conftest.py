"""What every test shares: the event loops that stoker promises to run on."""

from __future__ import annotations

import signal

import pytest
import torch
from hypothesis import settings

settings.register_profile("stoker", deadline=None)  # no test measures time
settings.load_profile("stoker")
torch.set_num_threads(1)  # tiny networks: threads only get into each other's way

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a script's background job: children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

BACKENDS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
]


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Each test marked ``anyio`` runs on asyncio, on asyncio with uvloop, and on trio."""
    return request.param
