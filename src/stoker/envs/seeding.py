"""The seed of an episode, computed from what identifies the episode.

No generator is drawn from: seeds do not depend on which actor is faster, and a resumed run continues with the
seeds that the first one would have used.
"""

from __future__ import annotations

import hashlib

import numpy as np

from stoker.errors import ConfigError
from stoker.types import ActorId


def episode_seed(seed: int, actor_id: ActorId, episode: int, *, stream: str = "actors") -> int:
    """The same seed for the same arguments on every machine and in every process, and else another.

    Each combination is a ``numpy.random.SeedSequence`` of its own (its ``spawn_key``), so that neighbors
    such as seed 0 and seed 1 are not correlated.

    Args:
        seed: the run's seed, not negative.
        actor_id: the actor; 5 and "5" are two actors.
        episode: the number of the episode within that actor, from 0 on.
        stream: the purpose of the episodes: ``"actors"``, ``"evaluation"`` or ``"confirmation"``.

    Returns:
        A number in [0, 2**32), which both ``gymnasium.Env.reset`` and ``torch.manual_seed`` take. Two of n
        agree by chance with a probability of about n² / 2³³.

    Raises:
        ConfigError: The seed or the episode is negative.
    """
    for name, value in (("seed", seed), ("episode", episode)):
        if value < 0:
            raise ConfigError(f"{name}={value} is negative: give 0 or more")
    # Always the same number of words: a spawn key is flattened, so with fewer or more two keys could meet.
    key = (*_words(stream), *actor_words(actor_id), episode >> 32, episode & 0xFFFFFFFF)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint32)[0])


def next_seed(seed: int | None, actor_id: ActorId, episode: int) -> int | None:
    """The seed of an actor's episode; None in a run without a seed."""
    return None if seed is None else episode_seed(seed, actor_id, episode)


def actor_words(actor_id: ActorId) -> tuple[int, ...]:
    """Four numbers in [0, 2**32) for an actor, the same in every process; 5 and "5" are two actors."""
    return _words(f"str:{actor_id}" if isinstance(actor_id, str) else f"int:{int(actor_id)}")


def _words(text: str) -> tuple[int, ...]:
    # Python's hash() of a string differs from process to process.
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return tuple(int.from_bytes(digest[at : at + 4], "little") for at in range(0, 16, 4))
