"""What clients write down of their records of CartPole, and what the journal of the server holds."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import anyio
import lives
import numpy as np

from stoker import EpisodeStatus, Experience, TrainingRun
from stoker.journal import EpisodeEnded, EpisodeStarted

FLAGS = [
    "--agent", "dqn", "--hidden-sizes", "16", "16", "--batch-size", "16", "--learning-starts", "100",
    "--opt-interval", "16", "--keep-journal", "all",
]  # fmt: skip


class CartPoleServer(lives.Server):
    """A server for CartPole, that is killed and started again on its port, with its run."""

    def __init__(self, directory: Path, flags: Sequence[str] = ()) -> None:
        super().__init__(directory, [*FLAGS, *flags])
        place = self._words.index("--spaces")
        self._words[place : place + 2] = ["--env", "CartPole-v1"]
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self) -> TrainingRun:
        """Its run, to be read once it has ended."""
        [metadata] = self.runs.rglob("metadata.json")
        return anyio.run(TrainingRun.open, metadata.parent)


class Row(NamedTuple):
    """A record, as its actor and the journal know it."""

    seq: int
    observation: tuple[float, ...]
    action: int | None
    reward: float | None
    status: EpisodeStatus

    @property
    def start(self) -> bool:
        """Whether an episode begins with it."""
        return self.reward is None

    @classmethod
    def of(cls, seq: int, observation: Iterable[float], step: Experience | None = None) -> Row:
        """The first record of an episode, or that of a step."""
        seen = tuple(np.asarray(observation, np.float32).tolist())
        if step is None:
            return cls(seq, seen, None, None, EpisodeStatus.CONTINUING)
        return cls(seq, seen, int(step.action), step.reward, step.status)


def read_ledger(path: Path) -> dict[str, list[Row]]:
    """The lines that a client has written: actor, number, observation, action, reward, end."""
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for line in path.read_text().splitlines():
        actor, seq, observation, action, reward, end = json.loads(line)
        status = EpisodeStatus(end)
        seen = tuple(np.asarray(observation, np.float32).tolist())
        rows[actor].append(Row(seq, seen, action, reward, status))
    return dict(rows)


def journaled(run: TrainingRun) -> dict[str, list[Row]]:
    """The records of each actor in the run's journal, in order."""
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for _, event in run.journal.read(0):
        match event:
            case EpisodeStarted(actor_id=str(actor), seq=int(seq), observation=observation):
                rows[actor].append(Row.of(seq, observation))
            case Experience(actor_id=str(actor), seq=int(seq)):
                rows[actor].append(Row.of(seq, event.next_observation, event))
            case EpisodeEnded():
                pass
            case _:
                raise AssertionError(f"who sent {event}?")
    return dict(rows)


def compare(written: dict[str, list[Row]], run: TrainingRun) -> int:
    """Hold ledgers against the journal: each record once and in order; returns how many there are."""
    found = journaled(run)
    assert found.keys() == written.keys()
    for actor, rows in written.items():
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1)), actor
        assert found[actor] == rows, actor
    return sum(map(len, written.values()))
