"""A fixed data set, observed by an agent as if actors had played it.

It is read in a thread, in parts of some thousand rows, while the learner observes the part before.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from anyio import to_thread
from anyio.lowlevel import checkpoint

from stoker.data import Dataset
from stoker.errors import ConfigError, InvalidExperience
from stoker.journal import DatasetGiven
from stoker.session import TrainingSession
from stoker.session.tail import say_progress
from stoker.trainer.digests import TransitionDigest
from stoker.trainer.parts import GivenDataset, NamedDataset, Part, parts_of
from stoker.types import ActorId, ExperienceBatch

_SHOWN_EVERY_S = 2.0


def is_fed(session: TrainingSession) -> bool:
    """Whether the agent has observed all of its run's data set: a resume then goes on without it."""
    # More than was observed is noted for as long as there is more.
    return session.dataset is not None and session.kept_steps == session.dataset.n


async def feed(session: TrainingSession, dataset: GivenDataset, first: int = 0) -> int:
    """Let the session's agent observe a data set, from transition number ``first`` on; return how many.

    Episodes of a ``Dataset`` whose recording broke off are truncated there. At the end each actor's episode
    is over, also one that the data break off. With a run the data set is also noted there, always beyond what
    was observed of it: so a resume knows whether it is in the middle of a data set, and of which one.

    Raises:
        ConfigError: It is empty, is not the one that the run was trained on, or does not fit the agent's
            spaces; the message says which transition.
    """
    if isinstance(dataset, str | Path):
        dataset = NamedDataset(dataset)
    if isinstance(dataset, NamedDataset) and is_fed(session):
        return 0
    is_noted = session.run is not None
    known = session.dataset if is_noted else None
    actors: dict[ActorId, None] = {}
    reading = _Reading(dataset, has_digest=is_noted)
    count = 0
    try:
        ahead = deque(await _read_what_is_known(reading, first, known, actors))
        while not session.is_stopped:
            while len(ahead) < 2 and len(part := await reading.take()):
                ahead.append(part)
            if not ahead:
                break
            part = ahead.popleft()
            if is_noted and (known is None or reading.n > known.n):
                await session.on_dataset(reading.n, reading.digest())
            if isinstance(part, ExperienceBatch):
                await session.observe_batch(part)
            else:
                await session.observe_many(part)
            count += len(part)
            actors |= dict.fromkeys(_actors_of(part))
            reading.show(first + count)
    except InvalidExperience as error:
        raise ConfigError(
            f"the data set does not fit the agent, beyond its first {first + count} transitions: {error}"
        ) from error
    finally:
        reading.close()
    if not (reading.n or session.is_stopped):
        raise ConfigError("the data set is empty: give at least one transition")
    if count and not session.is_stopped:  # else a resume goes on in the middle
        for actor_id in actors:  # as a resume does behind the data set
            await session.on_episode_start(actor_id)
        reading.show(first + count, is_last=True)
    return count


class _Reading:
    """The transitions of a data set in their order, and the digest of those that were taken."""

    def __init__(self, dataset: GivenDataset, *, has_digest: bool) -> None:
        self._parts = parts_of(dataset)
        # An iterable of the caller's may be bound to this thread.
        self._is_blocking = isinstance(dataset, Dataset | NamedDataset)
        self._rest: Part = []
        self._digest = TransitionDigest() if has_digest else None
        self._began_at = self._shown_at = time.monotonic()
        self.n = 0
        """How many were taken."""

    async def take(self, n: int | None = None) -> Part:
        """The next ones, up to ``n``; none: there are no more."""
        if self._is_blocking:
            return await to_thread.run_sync(self._take, n)
        await checkpoint()  # hashing a large data set takes seconds
        return self._take(n)

    def _take(self, n: int | None) -> Part:
        nothing: Part = []
        rest = self._rest if len(self._rest) else next(self._parts, nothing)
        taken, self._rest = (rest, []) if n is None else (rest[:n], rest[n:])
        self.n += len(taken)
        if self._digest is not None:
            self._digest.add(taken)
        return taken

    def digest(self) -> str:
        """Of those taken so far, in hexadecimal digits."""
        return "" if self._digest is None else self._digest.hexdigest()

    def show(self, n: int, *, is_last: bool = False) -> None:
        """Log how far a data set is read that takes seconds."""
        now = time.monotonic()
        if now - self._shown_at < _SHOWN_EVERY_S and not (is_last and self._shown_at > self._began_at):
            return
        self._shown_at = now
        took_s = now - self._began_at
        say_progress(f"reading the data set: {n:,} transitions in {took_s:.0f} s ({n / took_s:,.0f}/s)")

    def close(self) -> None:
        """Close what it reads from."""
        self._parts.close()


async def _read_what_is_known(
    reading: _Reading, first: int, known: DatasetGiven | None, actors: dict[ActorId, None]
) -> list[Part]:
    """Go on to where the run has come in its data set; return what was read and is not yet observed."""
    ahead: list[Part] = []
    for stop in (0 if known is None else known.n, first):
        while reading.n < stop and len(part := await reading.take(stop - reading.n)):
            n_observed = max(0, first - (reading.n - len(part)))
            actors |= dict.fromkeys(_actors_of(part[:n_observed]))
            if n_observed < len(part):
                ahead.append(part[n_observed:])
        if known is not None and stop == known.n and (digest := reading.digest()) != known.digest:
            raise ConfigError(
                f"this is another data set than the one that the run was trained on: its first {reading.n} "
                f"transitions have the digest {digest}, and those {known.n} the digest {known.digest}; give "
                "the same, or create a new run"
            )
    return ahead


def _actors_of(part: Part) -> Iterable[ActorId]:
    return part.actor_ids if isinstance(part, ExperienceBatch) else (step.actor_id for step in part)
