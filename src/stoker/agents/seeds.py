"""Generators and seeds of their own, from one seed that was given."""

from __future__ import annotations

from typing import Any

import numpy as np

from stoker.errors import ConfigError

__all__ = ["generator_state", "seeded_generator", "spawn_seeds"]


def spawn_seeds(seed: int, count: int) -> list[int]:
    """Independent seeds, 64 bits each, from one.

    Raises:
        ConfigError: It is no whole number of at least 0.
    """
    children = _sequence(seed).spawn(count)
    return [int(child.generate_state(1, np.uint64)[0]) for child in children]


def seeded_generator(seed: int) -> np.random.Generator:
    """A PCG64 generator; different seeds give streams that do not overlap.

    Raises:
        ConfigError: It is no whole number of at least 0.
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed)))


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """The state between two calls, also while another thread draws.

    A call for several numbers gives the interpreter lock up while it draws them, and holds this lock.
    """
    with generator.bit_generator.lock:
        return dict(generator.bit_generator.state)


def _sequence(seed: int) -> np.random.SeedSequence:
    try:
        return np.random.SeedSequence(seed)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"seed must be a whole number of at least 0, got {seed!r}") from error
