"""The journal of a run as a data set: the same bits, whatever is in it, and never less without saying so."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from random_journals import RandomRun, bits_of, episodes_of, expected_episodes

from stoker.data import JournalDataset
from stoker.errors import ConfigError, JournalBroken
from stoker.journal import columns

FEW, MANY = range(4), range(100)


@pytest.fixture(autouse=True, params=["many records at once", "few"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks as they are, and so small that episodes go on from one to the next."""
    if request.param == "few":
        monkeypatch.setattr(columns, "_MOST_RECORDS", 3)


def found_in(run: Any, **more: Any) -> list[Any]:
    return bits_of(list(episodes_of(JournalDataset(run, **more).episodes())))


def by_actor(episodes: list[Any]) -> list[Any]:
    return sorted(episodes, key=lambda episode: str(episode["actor_id"]))


@pytest.mark.parametrize("kind", ["box", "dict", "discrete"])
@pytest.mark.parametrize("seeds", [FEW, pytest.param(MANY, marks=pytest.mark.faults)], ids=["few", "many"])
def test_episodes_are_those_that_an_event_by_event_reader_finds(
    tmp_path: Path, kind: str, seeds: range
) -> None:
    for seed in seeds:
        run = RandomRun(tmp_path, seed, kind, batched=(seed % 4) / 4).write()
        expected = bits_of(list(expected_episodes(run.journal)))
        # They end in the order of the journal; those that never ended come last.
        assert by_actor(found_in(run)) == by_actor(expected), seed
        assert sum(len(each["rewards"]) for each in expected) == JournalDataset(run).last_step


@pytest.mark.parametrize("seeds", [FEW, pytest.param(MANY, marks=pytest.mark.faults)], ids=["few", "many"])
def test_a_range_and_actors_are_cut_out(tmp_path: Path, seeds: range) -> None:
    rng = random.Random(0)
    for seed in seeds:
        run = RandomRun(tmp_path, seed, batched=(seed % 3) / 3).write()
        last = JournalDataset(run).last_step
        assert last is not None
        start = rng.randrange(last)
        stop = rng.randrange(start + 1, last + 1)
        actors = frozenset({0, "0/red", 3})
        expected = bits_of(list(expected_episodes(run.journal, start, stop, actors)))
        chosen: Any = {"from_step": start, "to_step": stop, "actors": actors}
        assert by_actor(found_in(run, **chosen)) == by_actor(expected), seed
        rich = [each for each in expected if sum(each["rewards"]) >= 0.5]
        assert by_actor(found_in(run, **chosen, min_reward=0.5)) == by_actor(rich), seed


def test_damage_is_raised_behind_all_that_is_whole(tmp_path: Path) -> None:
    run = RandomRun(tmp_path, 1).write(n_attempts=1, n_segments=3, n_items=40)
    whole = bits_of(list(expected_episodes(run.journal)))
    path = run.journal.segments()[1].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    episodes = JournalDataset(run).episodes()
    found: list[Any] = []
    with pytest.raises(JournalBroken, match=path.name) as caught:
        found += [episode for episode in episodes_of(episodes)]  # noqa: C416 - keeps what came before
    n_steps = int(str(caught.value.__notes__[0]).split()[3])
    before = bits_of(list(expected_episodes(run.journal, 0, n_steps)))
    assert n_steps > 0
    assert by_actor(found_in(run, to_step=n_steps)) == by_actor(before)
    assert len(before) < len(whole)


def test_a_range_that_is_not_there_is_refused(tmp_path: Path) -> None:
    run = RandomRun(tmp_path, 2).write(n_attempts=1)
    last = JournalDataset(run).last_step
    assert last is not None
    for wrong, message in (
        ({"from_step": last}, f"from_step={last}: the journal has the steps from 0 to {last}"),
        ({"to_step": last + 1}, f"to_step={last + 1}: the journal has"),
        ({"from_step": 2, "to_step": 2}, "to_step=2 is not beyond from_step=2"),
    ):
        with pytest.raises(ConfigError, match=message):
            JournalDataset(run, **wrong)
    first = run.journal.segments()[0].path
    (first_step, start) = (JournalDataset(run).first_step, run.journal.headers()[1].total_steps)
    first.unlink()
    assert (first_step, JournalDataset(run).first_step) == (0, start)
    with pytest.raises(JournalBroken, match=f"from_step=0: the journal begins at step {start}"):
        JournalDataset(run, from_step=0)
    for path in run.journal_directory.iterdir():
        path.unlink()
    with pytest.raises(JournalBroken, match="without a journal"):
        JournalDataset(run)
