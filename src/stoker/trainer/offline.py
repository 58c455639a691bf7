"""A fixed data set, observed by an agent as if actors had played it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from anyio.lowlevel import checkpoint

from stoker.errors import ConfigError, InvalidExperience
from stoker.journal import DatasetGiven
from stoker.journal.codec import encode
from stoker.session import TrainingSession
from stoker.types import ActorId, EpisodeStatus, Experience

__all__ = ["feed", "transitions_of"]

_CHUNK = 256
_COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminated", "truncated")


def transitions_of(dataset: Iterable[Experience] | Mapping[str, Any]) -> Iterator[Experience]:
    """The transitions of a data set, in order.

    Args:
        dataset: experiences; or columns of equal length N by name: ``observations [N, ...]``,
            ``actions [N, ...]``, ``rewards [N]``, ``next_observations [N, ...]``, ``terminated [N]`` and
            ``truncated [N]``. Rows of columns are one stream of episodes.

    Raises:
        ConfigError: A column is missing, or the columns are of different lengths.
    """
    if not isinstance(dataset, Mapping):
        yield from dataset
        return
    columns = cast("Mapping[str, Any]", dataset)
    if missing := [name for name in _COLUMNS if name not in columns]:
        raise ConfigError(f"the data set lacks the columns {', '.join(missing)}; it has {', '.join(columns)}")
    arrays = [np.asarray(columns[name]) for name in _COLUMNS]
    lengths = {name: len(array) for name, array in zip(_COLUMNS, arrays, strict=True)}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ConfigError(f"the data set's columns are of different lengths: {shown}")
    for observation, action, reward, next_observation, terminated, truncated in zip(*arrays, strict=True):
        status = EpisodeStatus.of(bool(terminated), bool(truncated))
        plain = action.item() if np.ndim(action) == 0 else action
        yield Experience(observation, plain, float(reward), next_observation, status)


async def feed(
    session: TrainingSession, dataset: Iterable[Experience] | Mapping[str, Any], first: int = 0
) -> int:
    """Let the session's agent observe a data set, from transition number ``first`` on; return how many.

    An episode that the data set breaks off is abandoned at the end, so that it leads into no other. With a
    journal the data set is also noted there, always beyond what was observed of it: so a resume knows whether
    it is in the middle of a data set, and of which one.

    Raises:
        ConfigError: It is empty, is not the one that the run was trained on, or does not fit the agent's
            spaces; the message says which transition.
    """
    is_noted = session.run is not None and session.config.journal
    known = session.dataset if is_noted else None
    reading = _Reading(dataset, is_noted)
    running: dict[ActorId, None] = {}
    ahead = await _read_what_is_known(reading, first, known, running)
    count = 0
    try:
        while not session.is_stopped and (chunk := ahead + reading.take(max(0, _CHUNK + 1 - len(ahead)))):
            if is_noted and (known is None or reading.n > known.n):
                await session.on_dataset(reading.n, reading.digest())
            chunk, ahead = chunk[:_CHUNK], chunk[_CHUNK:]
            await session.observe_many(chunk)
            count += len(chunk)
            _follow(running, chunk)
    except InvalidExperience as error:
        raise ConfigError(
            f"the data set does not fit the agent, beyond its first {first + count} transitions: {error}"
        ) from error
    if not (reading.n or session.is_stopped):
        raise ConfigError("the data set is empty: give at least one transition")
    if count and not session.is_stopped:  # else a resume goes on in the middle
        for actor_id in running:
            await session.on_episode_start(actor_id)
    return count


class _Reading:
    """The transitions of a data set in their order, and the digest of those that were taken.

    The digest is the SHA-256 of the transitions as the journal encodes values. It is the same for columns and
    for the experiences that they stand for.
    """

    def __init__(self, dataset: Iterable[Experience] | Mapping[str, Any], has_digest: bool) -> None:
        self._transitions = iter(transitions_of(dataset))
        self._hash = hashlib.sha256() if has_digest else None
        self.n = 0
        """How many were taken."""

    def take(self, n: int) -> list[Experience]:
        """The next ones, up to ``n``."""
        taken = list(itertools.islice(self._transitions, n))
        self.n += len(taken)
        if self._hash is not None:
            for step in taken:
                if type(cast("Any", step)) is Experience:  # others are refused by the session
                    status = str(step.status)
                    values = (step.observation, step.action, step.reward, step.next_observation, status)
                    self._hash.update(encode([*values, step.actor_id, step.policy_extras], "a transition"))
        return taken

    def digest(self) -> str:
        """Of those taken so far, in hexadecimal digits."""
        return "" if self._hash is None else self._hash.hexdigest()


async def _read_what_is_known(
    reading: _Reading, first: int, known: DatasetGiven | None, running: dict[ActorId, None]
) -> list[Experience]:
    """Go on to where the run has come in its data set; return what was read and is not yet observed."""
    ahead: list[Experience] = []
    for stop in (0 if known is None else known.n, first):
        while chunk := reading.take(min(_CHUNK, stop - reading.n) if stop > reading.n else 0):
            n_observed = max(0, first - (reading.n - len(chunk)))
            _follow(running, chunk[:n_observed])
            ahead += chunk[n_observed:]
            await checkpoint()  # hashing a large data set takes seconds
        if known is not None and stop == known.n and (digest := reading.digest()) != known.digest:
            raise ConfigError(
                f"this is another data set than the one that the run was trained on: its first {reading.n} "
                f"transitions have the digest {digest}, and those {known.n} the digest {known.digest}; give "
                "the same, or create a new run"
            )
    return ahead


def _follow(running: dict[ActorId, None], experiences: Sequence[Experience]) -> None:
    """Note which actors have a running episode behind these transitions."""
    for experience in experiences:
        running.pop(experience.actor_id, None)
        if not experience.status.is_done:
            running[experience.actor_id] = None
