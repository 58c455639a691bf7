"""Journals of random events, and the episodes in them as a reader finds who takes one event after another."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from stoker.data import Episode
from stoker.journal import (
    DatasetGiven,
    EpisodeEnded,
    EpisodeStarted,
    Journal,
    JournalEvent,
    Optimized,
    SegmentEncoder,
    SegmentHeader,
    StreamEnded,
    StreamMoved,
    segment_name,
)
from stoker.runs import TrainingRun
from stoker.stats import EpisodeRecord
from stoker.types import ActorId, EpisodeStatus, Experience, ExperienceBatch

Item = JournalEvent | ExperienceBatch
STATUSES = (EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED)


class RandomRun:
    """A run whose journal has random events of several actors, in segments of several attempts.

    Args:
        root: the runs directory.
        seed: of everything.
        kind: the observations: ``box``, ``dict`` or ``discrete``.
        batched: the share of batches among the transitions.
    """

    def __init__(self, root: Path, seed: int, kind: str = "box", batched: float = 0.3) -> None:
        self.rng, self.kind, self.batched = random.Random(seed), kind, batched
        self.values = np.random.default_rng(seed)
        self.ids: list[ActorId] = self.rng.choice(
            [[0], [0, 1, 2], ["0/red", "0/blue", "1/red"], [3, "x", 700]]
        )
        self.seen: dict[ActorId, Any] = {}
        self.run = TrainingRun._create(root / "random" / f"v{seed}")  # pyright: ignore[reportPrivateUsage]
        self.run.acquire()
        self.run.begin_journal()

    def write(self, n_attempts: int = 3, n_segments: int = 3, n_items: int = 12) -> TrainingRun:
        """Write the journal; each attempt begins within what the one before wrote, or at its end."""
        n_events = steps = 0
        for attempt in range(1, n_attempts + 1):
            if attempt > 1:
                back = self.rng.choice([0, 0, self.rng.randrange(1, 8)])
                n_events = max(0, n_events - back)
                steps = sum(isinstance(event, Experience) for _, event in self.run.journal.read(0, n_events))
                self.run.begin_attempt(steps, 0, n_events)
            for _ in range(n_segments):
                items = [self.item() for _ in range(self.rng.randrange(1, n_items))]
                n_events, steps = self._write_segment(attempt, n_events, steps, items)
        self.run.release()
        return self.run

    def _write_segment(self, attempt: int, first: int, steps: int, items: list[Item]) -> tuple[int, int]:
        encoder = SegmentEncoder()
        data = encoder.begin(
            SegmentHeader(
                attempt=attempt, first_event=first, total_steps=steps, agent_type="DQN", opt_interval=1
            )
        )
        for item in items:
            n = 1
            if isinstance(item, ExperienceBatch):
                n, data = len(item), data + encoder.encode_batch(item)
            else:
                data += encoder.encode_all([item])
            first, steps = first + n, steps + n * isinstance(item, Experience | ExperienceBatch)
        header_first = first - sum(len(each) if isinstance(each, ExperienceBatch) else 1 for each in items)
        (self.run.journal_directory / segment_name(attempt, header_first)).write_bytes(data)
        return first, steps

    def item(self) -> Item:
        """An event or a batch."""
        actor_id = self.rng.choice(self.ids)
        choice = self.rng.random()
        if choice < self.batched:
            return self.batch()
        if choice < 0.8:
            return self.experience(actor_id)
        others: list[Callable[[], JournalEvent]] = [
            lambda: EpisodeStarted(actor_id, self.rng.choice([None, 7, 2**40])),
            lambda: self.numbered_start(actor_id),
            lambda: EpisodeEnded(EpisodeRecord(1.0, 3, EpisodeStatus.TRUNCATED, {}), actor_id),
            lambda: StreamMoved(actor_id, 5, self.observation(), 1.0, 1),
            lambda: StreamEnded(actor_id),
            lambda: Optimized(3),
            lambda: DatasetGiven(4, "ab"),
        ]
        return self.rng.choice(others)()

    def numbered_start(self, actor_id: ActorId) -> EpisodeStarted:
        """A reset whose observation is in the journal, as for remote actors."""
        self.seen[actor_id] = self.observation()
        return EpisodeStarted(actor_id, 11, 4, self.seen[actor_id])

    def observation(self) -> Any:
        """A random one; few values occur, so that some are equal by chance."""
        value = np.float32(self.values.integers(0, 3, 2)) / np.float32(3)
        if self.values.random() < 0.1:
            value[0] = np.nan
        if self.kind == "dict":
            return {"a": value, "b": self.values.integers(0, 2, 3, np.uint8)}
        return int(self.values.integers(0, 300)) if self.kind == "discrete" else value

    def experience(self, actor_id: ActorId) -> Experience:
        """A transition that nearly always begins with what the last one of its actor led to."""
        follows = actor_id in self.seen and self.rng.random() < 0.95
        observation = self.seen[actor_id] if follows else self.observation()
        after = self.seen[actor_id] = self.observation()
        status = self.rng.choices(STATUSES, (8, 1, 1))[0]
        if status.is_done and self.rng.random() < 0.9:
            del self.seen[actor_id]
        version = self.rng.choice([None, 0, 5, 70_000])
        action = self.rng.choice([0, 1, 200])
        return Experience(
            observation, action, self.rng.choice([0.5, -1.0]), after, status, actor_id, None, version
        )

    def batch(self) -> ExperienceBatch:
        """A batch of some actors, which may occur twice in it."""
        ids = tuple(self.rng.choices(self.ids, k=self.rng.choice([2, 6, 8])))
        steps = [self.experience(actor_id) for actor_id in ids]
        column = lambda values: (  # noqa: E731
            {key: np.stack([value[key] for value in values]) for key in ("a", "b")}
            if self.kind == "dict"
            else np.array(values)
        )
        versions = self.rng.choice([None, np.full(len(ids), 9), np.arange(len(ids))])
        return ExperienceBatch(
            column([step.observation for step in steps]),
            np.array([step.action for step in steps]),
            np.array([step.reward for step in steps]),
            column([step.next_observation for step in steps]),
            np.array([step.status.is_terminal for step in steps]),
            np.array([step.status.is_truncated for step in steps]),
            ids,
            None,
            versions,
        )


def expected_episodes(
    journal: Journal, from_step: int = 0, to_step: int | None = None, actors: frozenset[ActorId] | None = None
) -> Iterator[dict[str, Any]]:
    """The episodes, found event by event."""
    running: dict[ActorId, dict[str, Any]] = {}
    seeds: dict[ActorId, int | None] = {}
    n_steps = 0

    def finished(actor_id: ActorId, status: EpisodeStatus) -> Iterator[dict[str, Any]]:
        if (found := running.pop(actor_id, None)) is not None:
            yield {**found, "status": status}

    def with_step(event: Experience) -> Iterator[dict[str, Any]]:
        actor_id = event.actor_id
        found = running.get(actor_id)
        if found is not None and bits_of(found["observations"][-1]) != bits_of(event.observation):
            yield from finished(actor_id, EpisodeStatus.CONTINUING)
            found = None
        if found is None:
            found = running[actor_id] = {
                "observations": [event.observation], "actions": [], "rewards": [], "versions": [],
                "seed": seeds.pop(actor_id, None), "actor_id": actor_id,
            }  # fmt: skip
        found["observations"].append(event.next_observation)
        found["actions"].append(event.action)
        found["rewards"].append(event.reward)
        found["versions"].append(-1 if event.policy_version is None else event.policy_version)
        if event.status.is_done:
            yield from finished(actor_id, event.status)

    for _, event in journal.read(0):
        if isinstance(event, Experience):
            n_steps += 1
            if n_steps <= from_step:
                seeds.pop(event.actor_id, None)
            elif actors is None or event.actor_id in actors:
                yield from with_step(event)
        elif isinstance(event, EpisodeStarted | EpisodeEnded | StreamMoved | StreamEnded):
            yield from finished(event.actor_id, EpisodeStatus.CONTINUING)
            seeds[event.actor_id] = event.seed if isinstance(event, EpisodeStarted) else None
        if n_steps == to_step:
            break
    for actor_id in list(running):
        yield from finished(actor_id, EpisodeStatus.CONTINUING)


def episodes_of(episodes: Iterator[Episode]) -> Iterator[dict[str, Any]]:
    """Episodes in the form of ``expected_episodes``."""
    for episode in episodes:
        steps = list(episode.experiences())
        yield {
            "observations": [steps[0].observation, *(step.next_observation for step in steps)],
            "actions": [step.action for step in steps],
            "rewards": episode.rewards.tolist(),
            "versions": [-1 if step.policy_version is None else step.policy_version for step in steps],
            "seed": episode.seed,
            "actor_id": episode.actor_id,
            "status": episode.status,
        }


def bits_of(value: Any) -> Any:
    """A value whose arrays are compared by their bits, whatever container they are in."""
    if isinstance(value, dict):
        return {key: bits_of(part) for key, part in value.items()}
    if isinstance(value, list):
        return [bits_of(part) for part in value]
    if isinstance(value, np.ndarray | np.generic):
        return (str(value.dtype), value.shape, value.tobytes()) if np.ndim(value) else value.item()
    return msgspec.to_builtins(value)
