"""Each record exactly once: actors keep ledgers, a proxy breaks connections, and the server is killed.

Behind it all the journal must hold what the ledgers say, in their order, and the weights must be those of a
training from the journal's first event on. The short form runs with all the tests; the long one is marked
``faults``. STOKER_FAULTS_STEPS and STOKER_FAULTS_KILLS size it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec
import numpy as np
import pytest
from lives import SPACES, Actors, Server, actors_in
from proxy import Faults, Proxy

from stoker import DQN, DQNConfig, EpisodeStatus, Experience, TrainingRun
from stoker.journal import EpisodeEnded, EpisodeStarted
from stoker.protocol import Spaces, space_from
from stoker.session.replaying import replay_run

LANGUAGES = ("python", "javascript", "rust")
STEPS = int(os.environ.get("STOKER_FAULTS_STEPS", "1000000"))
KILLS = int(os.environ.get("STOKER_FAULTS_KILLS", "200"))
AGENT = {"hidden_sizes": (16, 16), "batch_size": 16, "learning_starts": 100}
FLAGS = [
    "--agent", "dqn", "--hidden-sizes", "16", "16", "--batch-size", "16", "--learning-starts", "100",
    "--seed", "0", "--opt-interval", "16", "--keep-journal", "all",
]  # fmt: skip
FAULTS = Faults(cut_before=0.004, cut_after=0.004, late=0.004, repeat=0.004, delay=0.004)
ENDS = {EpisodeStatus.CONTINUING: 0, EpisodeStatus.TERMINATED: 1, EpisodeStatus.TRUNCATED: 2}


class Form(NamedTuple):
    """How long a campaign is.

    Attributes:
        n_actors: in each language.
        records: of each actor.
        kills: of the server.
        checkpoint_freq: environment steps between checkpoints.
        languages: of the actors.
    """

    n_actors: int
    records: int
    kills: int
    checkpoint_freq: int
    languages: tuple[str, ...] = LANGUAGES


def test_the_journal_is_what_the_actors_wrote_down(tmp_path: Path) -> None:
    campaign(Form(n_actors=3, records=80, kills=2, checkpoint_freq=200), tmp_path, FAULTS.often(8), 60.0)


@pytest.mark.faults
@pytest.mark.timeout(4 * 3600)
def test_the_journal_is_what_64_actors_wrote_down_in_a_million_steps(tmp_path: Path) -> None:
    n_actors = 64 // len(LANGUAGES) + 1
    form = Form(n_actors, -(-STEPS // (n_actors * len(LANGUAGES))), KILLS, checkpoint_freq=10_000)
    campaign(form, tmp_path, FAULTS, 4 * 3600.0)


def campaign(form: Form, directory: Path, faults: Faults, seconds: float) -> None:
    began = time.monotonic()
    programs = [actors_in(language, directory) for language in form.languages]
    flags = [*FLAGS, "--checkpoint-freq", str(form.checkpoint_freq)]
    with (
        Server(directory, flags) as server,
        Proxy(server.port, faults) as proxy,
        contextlib.ExitStack() as stack,
    ):
        groups: list[Actors] = []
        for i, (language, words) in enumerate(zip(form.languages, programs, strict=True)):
            ledger = directory / f"{language}.jsonl"
            group = Actors(words, proxy.port, ledger, i * form.n_actors, form.n_actors, form.records)
            stack.callback(group.kill)
            groups.append(group)
        kill_at_random(server, proxy, form)
        for group in groups:
            group.join(began + seconds - time.monotonic())
        server.stop()
    n_records = compare_with_journal(groups, server.runs)
    n_checkpoints = train_again(server.runs)
    print(
        f"\n{n_records} records of {len(groups) * form.n_actors} actors in {', '.join(form.languages)}: each "
        f"once and in order, through {server.n_kills} kills and {dict(proxy.done)}; {n_checkpoints} "
        f"checkpoints equal a training from the first event on ({time.monotonic() - began:.0f} s)"
    )


def kill_at_random(server: Server, proxy: Proxy, form: Form) -> None:
    """SIGKILL behind random numbers of answers, sometimes twice in a row, so also while it starts."""
    drawn = random.Random(0)
    n_answers = form.n_actors * form.records * len(form.languages) * 7 // 10  # several actors share messages
    behind = sorted(drawn.randrange(1, n_answers) for _ in range(form.kills))
    for number in behind:
        proxy.wait_for_answers(number, 60.0)
        server.kill()
        server.start()
        if drawn.random() < 0.2:
            server.kill()
            server.start()


# What is left -------------------------------------------------------------------------------------------


def run_in(runs: Path) -> TrainingRun:
    [metadata] = runs.rglob("metadata.json")
    return anyio.run(TrainingRun.open, metadata.parent)


def compare_with_journal(groups: list[Actors], runs: Path) -> int:
    """Hold the ledgers against the journal; returns how many records there are."""
    journaled = journal_rows(run_in(runs))
    n_records = 0
    for group in groups:
        written: defaultdict[str, list[bytes]] = defaultdict(list)
        for row in group.rows():
            written[row[0]].append(packed(row))
        assert len(written) > 0
        for actor, rows in written.items():
            found = journaled.pop(actor)
            for mine, theirs in itertools.zip_longest(rows, found):
                assert mine == theirs, f"the actor wrote {mine!r}, the journal has {theirs!r}"
            n_records += len(rows)
    assert not journaled, f"nobody wrote of {sorted(journaled)}"
    return n_records


def packed(row: list[Any]) -> bytes:
    """A row in a form that equals another's if all values do, and is small."""
    actor, seq, start, observation, action, reward, end = row
    return msgspec.json.encode(
        [
            actor,
            seq,
            bool(start),
            [*map(float, observation)],
            action,
            None if reward is None else float(reward),
            end,
        ]
    )


def journal_rows(run: TrainingRun) -> dict[str, list[bytes]]:
    """Each actor's records as rows of a ledger; episodes must be those that the records make."""
    rows: defaultdict[str, list[bytes]] = defaultdict(list)
    seen: dict[str, np.ndarray[Any, Any]] = {}
    over: set[str] = set()
    sums: Counter[str] = Counter()
    lengths: Counter[str] = Counter()
    for _, event in run.journal.read(0):
        match event:
            case EpisodeStarted(actor_id=actor):
                assert event.observation is not None, "no actor was silent"
                assert actor not in over, "its episode has no end"
                rows[actor].append(
                    packed([actor, event.seq, True, event.observation.tolist(), None, None, 0])
                )
                seen[actor], sums[actor], lengths[actor] = event.observation, 0, 0
            case Experience(actor_id=actor):
                assert np.array_equal(event.observation, seen[actor]), "a transition begins elsewhere"
                observation = event.next_observation
                row = [
                    actor, event.seq, False, observation.tolist(), int(event.action), event.reward,
                    ENDS[event.status],
                ]  # fmt: skip
                rows[actor].append(packed(row))
                seen[actor] = observation
                sums[actor] += event.reward
                lengths[actor] += 1
                if event.status.is_done:
                    over.add(actor)
            case EpisodeEnded(record, actor):
                over.remove(actor)  # once
                assert (record.total_reward, record.length) == (sums[actor], lengths[actor])
            case _:
                raise AssertionError(f"who sent {event}?")
    assert not over
    return rows


def train_again(runs: Path) -> int:
    """Train from the first event on, and compare with each checkpoint; returns how many there were."""
    run = run_in(runs)
    spaces = msgspec.convert(SPACES, Spaces)
    agent = DQN(
        space_from(spaces.observation), space_from(spaces.action), msgspec.convert(AGENT, DQNConfig), seed=0
    )
    replayed = replay_run(run, agent)
    assert replayed.from_steps == 0
    assert [each for each in replayed.comparisons if each.differences] == []
    assert replayed.opt_steps > 0
    assert replayed.comparisons[-1].step == replayed.total_steps == run.metadata.total_steps
    return len(replayed.comparisons)
