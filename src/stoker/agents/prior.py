"""Prior data of an agent: fixed transitions, of which each batch has a share.

Ball et al. 2023, "Efficient Online Reinforcement Learning with Offline Data", section 4.1, "symmetric
sampling": with half of each batch from data of before, an agent that begins to play need not find again what
they show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from stoker.agents.protocol import ChecksBatches, PriorData
from stoker.errors import ConfigError, InvalidExperience
from stoker.replay import Batch, UniformReplay
from stoker.types import Experience, ExperienceBatch


def seed_of_draws(seed: int) -> int:
    """The seed of the draws from prior data, apart from those of the played transitions."""
    return int(np.random.SeedSequence((seed, 1)).generate_state(1, np.uint64)[0])


def rows_of_share(share: float, batch_size: int) -> int:
    """How many rows of a batch are prior data: ``round(share * batch_size)``.

    Raises:
        ConfigError: The share is not between 0 and 1, or leaves nothing of one of the two.
    """
    if not 0 < share < 1:
        raise ConfigError(f"mix={share!r}: give the share of prior data in a batch, above 0 and below 1")
    if not 0 < (n_rows := round(share * batch_size)) < batch_size:
        raise ConfigError(
            f"mix={share:g}: of batch_size={batch_size} rows, {n_rows} would be prior data: each batch needs "
            "at least one of them, and one of what is played; change mix or batch_size"
        )
    return n_rows


def checked(
    agent: ChecksBatches, batches: Iterable[ExperienceBatch | Sequence[Experience]]
) -> Iterator[ExperienceBatch | Sequence[Experience]]:
    """The batches, once the agent has checked each.

    Raises:
        InvalidExperience: It cannot take a transition; ``index`` is the number of that among all.
    """
    n_before = 0
    for batch in batches:
        if not (isinstance(batch, ExperienceBatch) and agent.check_batch(batch)):
            rows = batch.experiences() if isinstance(batch, ExperienceBatch) else batch
            for index, experience in enumerate(rows, start=n_before):
                try:
                    agent.check_experience(experience)
                except InvalidExperience as error:
                    raise InvalidExperience(
                        f"transition {index}: {error}", field=error.field, index=index
                    ) from None
        n_before += len(batch)
        yield batch


class PriorReplay:
    """Draws rows of prior data, each as likely as any other, from its own generator.

    Its state is the generator's and what names the data; the transitions are saved nowhere.

    Args:
        replay: holds all of the data, and nothing else is added to it.
        share: of a batch.

    Attributes:
        data: the data, as they are named and compared.
    """

    def __init__(self, replay: UniformReplay, share: float) -> None:
        self._replay = replay
        self.data: PriorData = PriorData(_digest(replay), len(replay), share)

    def fill_up(self, batch: Batch, batch_size: int) -> Batch:
        """The batch with rows drawn here behind its own, so that it has ``batch_size``."""
        drawn = self._replay.sample(batch_size - len(batch.rewards))
        return Batch(*(torch.cat(columns) for columns in zip(batch, drawn, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        """The digest of the data, and the generator."""
        return {"digest": self.data.digest, "generator": self._replay.reference()["generator"]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the generator."""
        self._replay.load_generator(state["generator"])


def _digest(replay: UniformReplay) -> str:
    """The SHA-256 of the transitions as they are learned from: of any file that gives the same ones."""
    digest = hashlib.sha256()
    columns: dict[str, torch.Tensor] = replay.state_dict()
    for name in ("observations", "actions", "rewards", "next_observations", "bootstrap_masks"):
        column = np.ascontiguousarray(columns[name].numpy())
        digest.update(f"{name} {column.dtype.str} {column.shape}".encode())
        raw: Any = column.reshape(-1).view(np.uint8)
        digest.update(raw)
    return digest.hexdigest()
