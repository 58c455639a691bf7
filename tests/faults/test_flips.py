"""Bits flip, files are cut short, blocks turn into zeros: whatever is damaged in a run is noticed.

Checkpoints, rows and journal of a finished run are damaged one file at a time, in place, on a copy. The
damage must be noticed where the file is read, by its checksums; where what is left of a file is whole by
itself (rows that end earlier, a journal that does), by ``verify_run``, which knows how much there must be.

The short form runs with all the tests; the long one is marked ``faults``. STOKER_FLIPS sizes it.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from stoker import DQN, DQNConfig, TrainingRun, TrainingSession
from stoker.errors import CheckpointCorrupt, RunBroken
from stoker.runs.rows import ROW_FILES
from stoker.runs.verifying import verify_run
from stoker.stats import EpisodeRecord
from stoker.testing import ChainEnv
from stoker.types import EpisodeStatus, Experience
from stoker.writer import RowReader, load_checkpoint

FLIPS = int(os.environ.get("STOKER_FLIPS", "10000"))
KINDS = {"checkpoints": "checkpoints/*.pt", "rows": "*_episodes.jsonl", "journal": "journal/*.journal"}
N_STEPS = 800


async def _train(root: Path) -> Path:
    """A run of two attempts, with several checkpoints, a best one, rows of both kinds, and a journal."""
    run = await TrainingRun.create("flips", root=root)
    for attempt in (1, 2):
        env = ChainEnv(3, slip=0.3)
        config = DQNConfig(hidden_sizes=(8,), buffer_size=500, learning_starts=32, batch_size=8)
        agent = DQN(env.observation_space, env.action_space, config, seed=attempt)
        async with TrainingSession(agent, run, checkpoint_freq=300, opt_interval=8) as session:
            for seed in range(50 * attempt, 10_000):
                if session.total_steps >= attempt * N_STEPS // 2:
                    break
                await _play(session, env, seed)
                await session.flush()
            record = EpisodeRecord(1.0, 3, EpisodeStatus.TERMINATED, {})
            for _ in range(5):
                await session.on_eval_episode(record)
            assert await session.maybe_save_best(float(attempt))
        if attempt == 1:
            run = await TrainingRun.resume(run.directory)
    await run.aclose()
    return run.directory


async def _play(session: TrainingSession, env: ChainEnv, seed: int) -> None:
    observation, _ = env.reset(seed=seed)
    total_reward, length, status = 0.0, 0, EpisodeStatus.CONTINUING
    while not status.is_done:
        action = await session.act(observation)
        following, reward, terminated, truncated, _ = env.step(action)
        status = EpisodeStatus.of(terminated, truncated)
        await session.observe(Experience(observation, action, reward, following, status))
        observation, total_reward, length = following, total_reward + reward, length + 1
    await session.on_episode(total_reward, length, status)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return anyio.run(_train, tmp_path_factory.mktemp("flips"))


def flip_a_bit(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def cut_short(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def zero_a_block(data: bytes, rng: random.Random) -> bytes:
    size = min(rng.choice([1, 8, 64, 512, 4096]), len(data))
    place = rng.randrange(len(data) - size + 1)
    return data[:place] + bytes(size) + data[place + size :]


def zero_the_tail(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes(len(data) - place)


def cut_after_a_line(data: bytes, rng: random.Random) -> bytes:
    """What is left of rows is whole by itself; elsewhere it is a cut like any other."""
    return data[: data.rfind(b"\n", 0, rng.randrange(len(data))) + 1]


DAMAGES = (flip_a_bit, flip_a_bit, cut_short, cut_after_a_line, zero_a_block, zero_the_tail)


def open_run(directory: Path) -> TrainingRun:
    return anyio.run(TrainingRun.open, directory)


def noticed_by_itself(path: Path, run: TrainingRun) -> bool:
    """Whether whoever reads the file finds that something is wrong with it."""
    match path.suffix:
        case ".pt":
            try:
                load_checkpoint(path)
            except CheckpointCorrupt:
                return True
            return False
        case ".jsonl":
            [row_type] = [row_type for row_type, name in ROW_FILES.items() if name == path.name]
            reader = RowReader(path, row_type)
            try:
                reader.read_new()
            except RunBroken:
                return True
            return bool(reader.torn_bytes)
        case _:
            journal = run.journal.check()
            return bool(journal.problems or journal.torn_bytes)


def noticed_by_verify(directory: Path) -> bool:
    return any(finding.kind in ("torn", "damaged") for finding in verify_run(open_run(directory)))


def damage(
    path: Path, kind: Callable[[bytes, random.Random], bytes], rng: random.Random, noticed: Callable[[], bool]
) -> bool:
    """Whether it is noticed when the file is damaged so; the file is as before afterwards."""
    whole = path.read_bytes()
    while (damaged := kind(whole, rng)) == whole:
        pass
    path.write_bytes(damaged)
    try:
        return noticed()
    finally:
        path.write_bytes(whole)


def campaign(finished: Path, where: str, n: int, seed: int) -> None:
    """Damage files of one kind so often. A finding per damage, or the list of those that went unnoticed."""
    rng = random.Random(seed)
    run = open_run(finished)
    files = sorted(finished.glob(KINDS[where]))
    assert files, f"the run has no {where}"
    by: Counter[str] = Counter()
    unnoticed: list[str] = []
    for number in range(n):
        path, kind = rng.choice(files), rng.choice(DAMAGES)
        state = rng.getstate()
        if damage(path, kind, rng, lambda path=path: noticed_by_itself(path, run)):
            by["where the file is read"] += 1
            continue
        rng.setstate(state)
        if damage(path, kind, rng, lambda: noticed_by_verify(finished)):
            by["by verify alone"] += 1
        else:
            unnoticed.append(f"{number}: {kind.__name__} of {path.name}")
    assert not unnoticed, f"{len(unnoticed)} of {n}: {unnoticed[:20]}"
    print(f"\n{n} damages to {where}: {n} noticed ({', '.join(f'{k} {v}' for v, k in by.items())})")
    assert not noticed_by_verify(finished), "all is as it was"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.mark.parametrize("where", KINDS)
def test_every_damage_is_noticed(copy: Path, where: str) -> None:
    campaign(copy, where, 150, seed=1)


@pytest.mark.parametrize("where", KINDS)
def test_verify_alone_notices_damage(copy: Path, where: str) -> None:
    rng = random.Random(2)
    assert not noticed_by_verify(copy)
    for number in range(15):
        path, kind = rng.choice(sorted(copy.glob(KINDS[where]))), DAMAGES[number % len(DAMAGES)]
        assert damage(path, kind, rng, lambda: noticed_by_verify(copy)), f"{kind.__name__} of {path.name}"


@pytest.mark.faults
@pytest.mark.parametrize("where", KINDS)
def test_every_damage_of_thousands_is_noticed(copy: Path, where: str) -> None:
    campaign(copy, where, FLIPS // len(KINDS) + 1, seed=0)
