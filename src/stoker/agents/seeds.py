"""Where an agent computes and what it draws from: its device, and its generators, all from one seed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from stoker.errors import ConfigError

__all__ = ["AgentSeeds", "available_devices", "generator_state", "resolve_device", "seeded_generator"]


class AgentSeeds(NamedTuple):
    """Independent seeds, 64 bits each: of the first weights, of batches or their order, of exploration."""

    weights: int
    learning: int
    exploring: int

    @classmethod
    def of(cls, seed: int) -> AgentSeeds:
        """The three seeds that derive from one; ``ConfigError`` unless it is an int of at least 0."""
        return cls(*(int(child.generate_state(1, np.uint64)[0]) for child in _sequence(seed).spawn(3)))

    def for_weights(self) -> torch.Generator:
        """The generator that the first weights are drawn from."""
        return torch.Generator().manual_seed(self.weights)


def seeded_generator(seed: int) -> np.random.Generator:
    """A PCG64 generator; ``ConfigError`` unless the seed is an int of at least 0."""
    return np.random.Generator(np.random.PCG64(_sequence(seed)))


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """The state between two calls, even while another thread draws.

    A call for several numbers releases the interpreter lock while it draws them, and holds this lock.
    """
    with generator.bit_generator.lock:
        return dict(generator.bit_generator.state)


def available_devices() -> list[str]:
    """The devices of this machine by their names in torch, such as ``["cpu", "cuda:0", "cuda:1"]``."""
    if not torch.accelerator.is_available():
        return ["cpu"]
    accelerator = torch.accelerator.current_accelerator()
    kind = "cuda" if accelerator is None else accelerator.type
    return ["cpu", *(f"{kind}:{index}" for index in range(torch.accelerator.device_count()))]


def resolve_device(device: str | torch.device) -> torch.device:
    """The device of that name (``"cpu"``, ``"cuda:1"``, ...); ``ConfigError`` if this machine lacks it."""
    available = available_devices()
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"{device!r} does not name a device; available: {', '.join(available)}") from error
    wanted = "cpu" if resolved.type == "cpu" else f"{resolved.type}:{resolved.index or 0}"
    if wanted not in available:
        raise ConfigError(f"device {str(device)!r} is not available here; available: {', '.join(available)}")
    return resolved


def _sequence(seed: int) -> np.random.SeedSequence:
    try:
        return np.random.SeedSequence(seed)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"seed={seed!r}: give an int of at least 0") from error
