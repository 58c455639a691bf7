from __future__ import annotations

import pytest
import torch

from stoker.agents.devices import available_devices, resolve_device
from stoker.errors import ConfigError


def test_every_available_device_can_hold_a_tensor() -> None:
    devices = available_devices()
    assert devices[0] == "cpu"
    for name in devices:
        device = resolve_device(name)
        assert torch.ones(1, device=device).device.type == device.type


def test_devices_are_taken_by_name_or_as_such() -> None:
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "meta", "gpu", "", "cuda:x"])
def test_unfit_devices_are_refused_with_the_available_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}'.*available: cpu"):
        resolve_device(name)
