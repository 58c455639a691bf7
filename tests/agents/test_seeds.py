"""Generators, their states while another thread draws, and devices."""

from __future__ import annotations

import threading

import pytest
import torch

from stoker.agents.seeds import available_devices, generator_state, resolve_device, seeded_generator
from stoker.errors import ConfigError

N_CALLS, N_DRAWS = 20, 200_000


def test_a_generators_state_is_never_one_in_the_middle_of_a_call() -> None:
    other = seeded_generator(0)
    between = [generator_state(other)]
    for _ in range(N_CALLS):
        other.random(N_DRAWS)
        between.append(generator_state(other))
    generator = seeded_generator(0)
    begun = threading.Event()

    def draw() -> None:
        begun.set()
        for _ in range(N_CALLS):
            generator.random(N_DRAWS)

    thread = threading.Thread(daemon=True, target=draw)
    thread.start()
    assert begun.wait(20)
    seen = []
    while thread.is_alive():
        seen.append(generator_state(generator))
    thread.join()
    assert seen
    assert all(state in between for state in seen)
    assert generator_state(generator) == between[-1]


def test_every_available_device_can_hold_a_tensor() -> None:
    devices = available_devices()
    assert devices[0] == "cpu"
    for name in devices:
        device = resolve_device(name)
        assert torch.ones(1, device=device).device.type == device.type


def test_devices_are_taken_by_name_or_as_such() -> None:
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_unfit_devices_are_refused_with_the_available_ones() -> None:
    for name in ["cuda:99", "meta", "gpu", "", "cuda:x"]:
        with pytest.raises(ConfigError, match=f"'{name}'.*available: cpu"):
            resolve_device(name)
